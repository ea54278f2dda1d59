"""One measurement: the load generator against one way to the engine, and what it cost whom."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bench import report
from bench.proxy import bodies, processes
from bench.proxy.stage import CHAT, Stage, Way

FOREIGN_CORE = 0.1
"""So much of a core may go to processes that are not ours."""
_ATTEMPTS = 4
_PAUSE_S = 0.5
_WARM_UP_S = 0.2


@dataclass(frozen=True)
class Load:
    """What the load generator sends: a body, over some connections, one request after the other on each.

    ``count`` requests in all, where that says more than a time does. ``real``: the engine is one, and its tokens are
    looked for; the mock writes times into its chunks.
    """

    body: str
    connections: int
    stream: bool = False
    count: int = 0
    real: bool = False


@dataclass(frozen=True)
class Delay:
    """Milliseconds: what half stay below, and what all but one of ten and of a hundred do."""

    p50: float
    p90: float
    p99: float


@dataclass(frozen=True)
class Result:
    """What one measurement found. ``rate`` is answers a second, ``cpu`` microseconds of the proxy for each answer.

    ``answer`` is the delay to its end, ``first`` to its first chunk, ``lag`` that of a chunk since the engine wrote it.
    """

    rate: float
    answer: Delay
    first: Delay
    lag: Delay
    cpu: float
    requests: int
    errors: int
    foreign: float

    @property
    def is_disturbed(self) -> bool:
        return self.foreign > FOREIGN_CORE


def measured(stage: Stage, way: Way, load: Load, seconds: float) -> Result:
    """Measure one way alone. A measurement that others disturbed is repeated; the least disturbed one is taken."""
    limits = ["-n", str(load.count)] if load.count else ["-w", str(_WARM_UP_S), "-d", str(seconds)]
    results: list[Result] = []
    with stage.alone(way):
        while len(results) < _ATTEMPTS:
            results.append(_once(stage, way, load, limits))
            if not results[-1].is_disturbed:
                break
            if not results[1:]:
                report.note(f"others took {results[0].foreign:.2f} of a core from {way.name}: again")
            time.sleep(_PAUSE_S)
    return min(results, key=lambda result: result.foreign)


def requests(stage: Stage, way: Way, load: Load, count: int, *, limit_s: float) -> Result:
    """Send a number of requests one way."""
    with stage.alone(way):
        return _once(stage, way, load, ["-n", str(count), "-d", str(limit_s)])


def _once(stage: Stage, way: Way, load: Load, limits: Sequence[str]) -> Result:
    pids = way.pids
    ours = (*pids, way.engine)
    begun, proxy, known = time.monotonic(), processes.cpu(pids), _known(ours)
    machine = processes.machine_cpu()
    found = _generate(stage, way, load, limits)
    foreign = processes.machine_cpu() - machine - (_known(ours) - known)
    took = time.monotonic() - begun
    return _result(found, proxy=(processes.cpu(pids) - proxy) / took, foreign=max(0.0, foreign) / took)


def _known(pids: Sequence[int]) -> float:
    return processes.cpu(pids) + processes.own_cpu()


def _generate(stage: Stage, way: Way, load: Load, limits: Sequence[str]) -> dict[str, Any]:
    argv = [str(stage.kit.tools.loadgen), "-u", f"http://127.0.0.1:{way.port}{CHAT}", "-c", str(load.connections)]
    argv += ["-b", str(bodies.path(stage.kit.folder, load.body)), *_streams(load), *limits]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(argv)}: exit status {done.returncode}\n{done.stderr}")
    found: dict[str, Any] = json.loads(done.stdout)
    if "errsample" in found:
        report.note(f"{way.name} answered {found['errsample']}")
    return found


def _streams(load: Load) -> list[str]:
    return ["-t" if load.real else "-s"] if load.stream else []


def _result(found: dict[str, Any], *, proxy: float, foreign: float) -> Result:
    """Take what is wanted; ``proxy`` and ``foreign`` are shares of a core."""
    return Result(
        rate=found["rps"],
        answer=_delay(found, "lat"),
        first=_delay(found, "ttfb"),
        lag=_delay(found, "lag"),
        cpu=proxy / max(found["rps"], 1.0) * 1e6,
        requests=found["ok"] + found["errors"],
        errors=found["errors"] + found["unfinished"],
        foreign=foreign,
    )


def _delay(found: dict[str, Any], key: str) -> Delay:
    """Convert microseconds; an answer in one piece has neither a first chunk nor a lag."""
    figures = found.get(key, {"p50": 0.0, "p90": 0.0, "p99": 0.0})
    return Delay(figures["p50"] / 1e3, figures["p90"] / 1e3, figures["p99"] / 1e3)
