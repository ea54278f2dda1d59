"""When to look again, where no event will say so."""

from __future__ import annotations

from collections.abc import Iterator

from hal0.core.backoff import not_before
from hal0.core.conditions import ConditionType, is_left_alone
from hal0.core.hold import waits_for_retry
from hal0.core.override import next_expiry
from hal0.core.replace import held_try
from hal0.core.schedule import next_deadline
from hal0.core.standin import Stage
from hal0.core.state import SlotState
from hal0.core.status import SlotStatus, Snapshot
from hal0.core.steps import Action, Plan
from hal0.core.world import World
from hal0.host.ports import EVERYTHING, MANIFESTS, USE

LOADING = 0.5
"""Seconds between two looks at a slot that is loading: only its probe tells when it is done."""
WAITING = 2.0
"""Seconds between two looks at a slot that waits for what sends no event."""
FAILING = 2.0
"""Seconds between two looks at a slot whose probe fails."""

_LATE = 0.01
"""Seconds after an override's end at which to look: two clocks must not make it a little too early."""


def next_looks(world: World, current: Plan, snapshot: Snapshot) -> Iterator[tuple[str, float]]:
    """Yield the keys to look at and when, on the loop's clock."""
    yield MANIFESTS, world.now + world.desired.host.resync
    if (left := next_expiry(world.overrides, snapshot.wall)) is not None:
        yield MANIFESTS, world.now + left + _LATE
    if (idle := _next_idle(world)) is not None:
        yield USE, idle
    deadline = next_deadline(world.desired, world.demand, world.now)
    if deadline is not None:
        yield EVERYTHING, deadline
    for change in current.changes:
        if change.action is Action.WAIT and not (is_left_alone(change) or _waits_for_stand_in(world, change.slot)):
            attempt = world.attempts.get(change.slot)
            retry = not_before(change.slot, attempt) if attempt and waits_for_retry(change) else 0.0
            yield change.slot, max(retry, world.now + WAITING)
    for name, slot in snapshot.slots.items():
        if (wait := _wait(slot)) is not None:
            yield name, world.now + wait


def replacement_looks(world: World) -> Iterator[tuple[str, float]]:
    """Yield the engines to look at and when, of slots whose engine is replaced: no state of theirs is shown."""
    for found in world.replacing.values():
        if found.stage in {Stage.HOLD, Stage.DROP}:
            attempt = held_try(world, found)
            yield found.slot, not_before(found.key, attempt) if attempt else world.now + WAITING
        for engine in (found.slot, found.key):
            if (phase := world.phases.get(engine)) and phase.state.is_loading:
                yield engine, world.now + LOADING


def _waits_for_stand_in(world: World, name: str) -> bool:
    found = world.replacing.get(name)
    return found is not None and found.leaves_own


def _next_idle(world: World) -> float | None:
    """Return when the next slot has been unused for so long that it is called idle, on the loop's clock."""
    slots = world.desired.slots
    unused = {name: use for name, use in world.demand.items() if name in slots and not use.in_flight}
    ends = [use.idle_at(slots[name].spec) for name, use in unused.items()]
    return min((end for end in ends if end > world.now), default=None)


def _wait(slot: SlotStatus) -> float | None:
    if slot.state in {SlotState.STARTING, SlotState.WARMING}:
        return LOADING
    failing = slot.condition(ConditionType.READY).status is False and slot.condition(ConditionType.RUNNING).status
    return FAILING if failing else None
