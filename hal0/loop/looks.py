"""When to look again, where no event will say so."""

from __future__ import annotations

from collections.abc import Iterator

from hal0.core.backoff import not_before
from hal0.core.conditions import ConditionType, is_left_alone
from hal0.core.hold import waits_for_retry
from hal0.core.schedule import next_deadline
from hal0.core.state import SlotState
from hal0.core.status import SlotStatus, Snapshot
from hal0.core.steps import Action, Plan
from hal0.core.world import World
from hal0.host.ports import EVERYTHING, MANIFESTS

LOADING = 0.5
"""Seconds between two looks at a slot that is loading: only its probe tells when it is done."""
WAITING = 2.0
"""Seconds between two looks at a slot that waits for what sends no event."""
FAILING = 2.0
"""Seconds between two looks at a slot whose probe fails."""


def next_looks(world: World, current: Plan, snapshot: Snapshot) -> Iterator[tuple[str, float]]:
    """Yield the keys to look at and when, on the loop's clock."""
    yield MANIFESTS, world.now + world.desired.host.resync
    deadline = next_deadline(world.desired, world.demand, world.now)
    if deadline is not None:
        yield EVERYTHING, deadline
    for change in current.changes:
        if change.action is Action.WAIT and not is_left_alone(change):
            attempt = world.attempts.get(change.slot)
            retry = not_before(change.slot, attempt) if attempt and waits_for_retry(change) else 0.0
            yield change.slot, max(retry, world.now + WAITING)
    for name, slot in snapshot.slots.items():
        if (wait := _wait(slot)) is not None:
            yield name, world.now + wait


def _wait(slot: SlotStatus) -> float | None:
    if slot.state in {SlotState.STARTING, SlotState.WARMING}:
        return LOADING
    failing = slot.condition(ConditionType.READY).status is False and slot.condition(ConditionType.RUNNING).status
    return FAILING if failing else None
