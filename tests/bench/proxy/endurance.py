"""What many requests leave behind in hal0, and what an engine that closes its connections does to them."""

from __future__ import annotations

from bench.measure import Row, Rows
from bench.proxy import processes
from bench.proxy.load import Load, measured, requests
from bench.proxy.scenarios import Effort
from bench.proxy.stage import Kit, stage

_WARM_UP = 5_000
_REQUESTS = 100_000
_LIMIT_S, _LONG_LIMIT_S = 25.0, 300.0
"""For as long the requests may take: a run of everything should end soon."""
_GROWTH_AIM_MB = 2.0
_MANY = Load("chat", 16)
_STREAMS = Load("short", 16, stream=True)


def close(kit: Kit, effort: Effort) -> Rows:
    """Ask an engine that closes the connection after a streamed answer without a word, as llama-server does."""
    with stage(kit, beside_nginx=False, env={"MOCK_CLOSE_AFTER_STREAM": "1"}) as on:
        results = [measured(on, on.hal0, _STREAMS, effort.seconds) for _ in range(effort.rounds)]
    errors, streams = (sum(values) for values in zip(*((one.errors, one.requests) for one in results), strict=True))
    yield Row("close: streams that failed", "", (errors,), 0, note=f"of {streams:,}")


def memory(kit: Kit, effort: Effort) -> Rows:
    """Compare what a hal0 of its own holds before and after many requests. Asked for by name, it takes its time."""
    limit = _LONG_LIMIT_S if effort.scenarios else _LIMIT_S
    with stage(kit, beside_nginx=False) as on:
        requests(on, on.hal0, _MANY, _WARM_UP, limit_s=limit)
        before = processes.memory(on.hal0.pids)
        asked = requests(on, on.hal0, _MANY, _REQUESTS, limit_s=limit)
        after = processes.memory(on.hal0.pids)
    short = "" if asked.requests >= _REQUESTS else f" in {limit:.0f} s, too slow for {_REQUESTS:,}"
    yield Row(
        "memory: RSS of hal0, warmed up", "MB", (before.rss,), note=f"{_WARM_UP:,} requests; PSS {before.pss:.1f}"
    )
    yield Row("memory: RSS of hal0, after many more", "MB", (after.rss,), note=f"{asked.requests:,} requests{short}")
    yield Row("memory: RSS that these added", "MB", (after.rss - before.rss,), _GROWTH_AIM_MB)
    yield Row("memory: PSS that these added", "MB", (after.pss - before.pss,))
    yield Row("memory: requests that failed", "", (asked.errors,), 0)
