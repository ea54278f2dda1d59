"""The data plane beside nginx: the same engine, the same requests, one core for the proxy and one for the load."""

from __future__ import annotations

from bench.measure import Rows
from bench.proxy import endurance, real, scenarios
from bench.proxy.scenarios import SCENARIOS, Effort
from bench.proxy.stage import kit, stage

NAMES = (*(scenario.name for scenario in SCENARIOS), "model1", "close", "memory")


def rows(effort: Effort) -> Rows:
    """Measure what is wanted."""
    with kit() as made:
        if any(effort.wants(scenario.name, by_default=scenario.by_default) for scenario in SCENARIOS):
            with stage(made, beside_nginx=True) as on:
                yield from scenarios.rows(on, effort)
        if effort.wants("model1"):
            yield from real.rows(made, effort)
        if effort.wants("close"):
            yield from endurance.close(made, effort)
        if effort.wants("memory"):
            yield from endurance.memory(made, effort)
