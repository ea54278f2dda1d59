"""What is compared in rounds: how much passes through hal0 and nginx, and how long a first chunk takes."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from bench.measure import Row, Rows, ratios
from bench.proxy.load import Delay, Load, Result, measured
from bench.proxy.stage import Stage
from bench.report import number


@dataclass(frozen=True)
class Effort:
    """How much is measured: rounds of a scenario, seconds of one measurement, names (none: the default ones)."""

    rounds: int = 3
    seconds: float = 0.5
    scenarios: tuple[str, ...] = ()

    def wants(self, name: str, *, by_default: bool = True) -> bool:
        """Tell whether a scenario is to run."""
        return name in self.scenarios if self.scenarios else by_default


@dataclass(frozen=True)
class Scenario:
    """A load, and what is compared: the rate, or with another ``figure`` that delay.

    ``aim`` is hal0's share of nginx's rate, or the milliseconds that hal0 may add.
    """

    name: str
    load: Load
    aim: float | None = None
    figure: Literal["answer", "first", "lag"] = "answer"
    by_default: bool = True

    def delay(self, result: Result) -> Delay:
        """Return the delay that counts here."""
        delay: Delay = getattr(result, self.figure)
        return delay


SCENARIOS = (
    Scenario("json1", Load("chat", 1)),
    Scenario("json16", Load("chat", 16), 0.20),
    Scenario("json64", Load("chat", 64), 0.20),
    Scenario("big16", Load("long", 16)),
    Scenario("burst16", Load("burst", 16, stream=True), 1.4),
    Scenario("ttfb1", Load("short", 1, stream=True), 0.6, "first"),
    Scenario("paced8", Load("paced", 8, stream=True, count=8), None, "lag", by_default=False),
)
_WHAT = {"first": "to the first chunk", "lag": "a chunk is on its way"}
_Found = Mapping[str, Sequence[Result]]


def rows(stage: Stage, effort: Effort) -> Rows:
    """Measure each wanted scenario; the last row counts what failed in all of them."""
    errors = requests = 0
    for scenario in SCENARIOS:
        if not effort.wants(scenario.name, by_default=scenario.by_default):
            continue
        found = _rounds(stage, scenario, effort)
        yield from _rates(scenario, found) if scenario.figure == "answer" else _delays(scenario, found)
        errors += sum(result.errors for result in found["hal0"])
        requests += sum(result.requests for result in found["hal0"])
    if requests:
        yield Row("hal0: requests that failed", "", (errors,), 0, note=f"of {requests:,} in all of these")


def _rounds(stage: Stage, scenario: Scenario, effort: Effort) -> _Found:
    """Measure all ways in each round, in an order that turns: what a round's ratio compares was taken together."""
    found: dict[str, list[Result]] = {way.name: [] for way in stage.ways}
    for turn in range(effort.rounds):
        first = turn % len(stage.ways)
        for way in stage.ways[first:] + stage.ways[:first]:
            found[way.name].append(measured(stage, way, scenario.load, effort.seconds))
    return found


def _rates(scenario: Scenario, found: _Found) -> Iterator[Row]:
    rates = {name: [result.rate for result in results] for name, results in found.items()}
    for name, results in found.items():
        yield Row(f"{scenario.name}: {name}", "req/s", tuple(rates[name]), note=_cost(scenario, results))
    yield Row(
        f"{scenario.name}: hal0 / nginx",
        "x",
        ratios(rates["hal0"], rates["nginx"]),
        scenario.aim,
        note=_disturbed(found),
        at_least=True,
    )


def _delays(scenario: Scenario, found: _Found) -> Iterator[Row]:
    delays = {name: [scenario.delay(result).p50 for result in results] for name, results in found.items()}
    direct, *proxies = delays
    for name, values in delays.items():
        yield Row(
            f"{scenario.name}: {name}, {_WHAT[scenario.figure]}", "ms", tuple(values), note=_cost(scenario, found[name])
        )
    for name in proxies:
        added = tuple(value - limit for value, limit in zip(delays[name], delays[direct], strict=True))
        aim = scenario.aim if name == "hal0" else None
        yield Row(f"{scenario.name}: {name} adds", "ms", added, aim, note=_disturbed(found))


def _cost(scenario: Scenario, results: Sequence[Result]) -> str:
    """Say the slowest percent, and a proxy's CPU for each answer."""
    slow = f"p99 {number(statistics.median(scenario.delay(result).p99 for result in results))} ms"
    cpu = statistics.median(result.cpu for result in results)
    return f"{slow}, {cpu:.0f} us CPU each" if cpu else slow


def _disturbed(found: _Found) -> str:
    every = [result for results in found.values() for result in results]
    disturbed = sum(result.is_disturbed for result in every)
    return f"others took CPU in {disturbed} of {len(every)} measurements" if disturbed else ""
