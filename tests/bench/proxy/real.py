"""A real model behind hal0 and behind nginx: whether a user can tell them apart."""

from __future__ import annotations

import os
import statistics
from pathlib import Path

from bench.measure import Row, Rows
from bench.proxy.load import Load, requests
from bench.proxy.scenarios import Effort
from bench.proxy.stage import Kit, stage
from bench.report import note

_ASKED = 60
_LIMIT_S = 60.0
_ONE = Load("tokens", 1, stream=True, real=True)


def rows(kit: Kit, effort: Effort) -> Rows:
    """Compare the time to the first token, one request at a time.

    The aim is that hal0 adds no more to it than nginx's own answers differ by: from the median to the slowest tenth.
    """
    model = Path(os.environ.get("HAL0_TEST_MODEL", ""))
    if not model.is_file():
        note("model1 is left out: HAL0_TEST_MODEL names no model file (`make model` fetches one)")
        return
    with stage(kit, beside_nginx=True, model=model) as on:
        found = {
            way.name: [requests(on, way, _ONE, _ASKED, limit_s=_LIMIT_S) for _ in range(effort.rounds)]
            for way in on.ways
        }
    for name, results in found.items():
        failed = sum(result.errors for result in results)
        text = f"{failed} failed: the engine closes kept connections without a word" if failed else ""
        yield Row(f"model1: {name}, to the first token", "ms", tuple(result.first.p50 for result in results), note=text)
    pairs = zip(found["hal0"], found["nginx"], strict=True)
    added = tuple(hal0.first.p50 - nginx.first.p50 for hal0, nginx in pairs)
    spread = statistics.median(result.first.p90 - result.first.p50 for result in found["nginx"])
    yield Row("model1: hal0 adds, beside nginx", "ms", added, spread, note="the aim is nginx's own spread")
    yield Row("model1: requests that failed", "", (sum(result.errors for result in found["hal0"]),), 0)
