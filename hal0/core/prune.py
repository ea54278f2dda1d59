"""Pruning: what becomes of slots that hal0 owns and no manifest declares."""

from __future__ import annotations

from collections.abc import Iterator

from hal0.core.engines import is_stand_in, slot_of
from hal0.core.facts import Unknown, known
from hal0.core.hold import backed_off, waits
from hal0.core.observed import Activity, SlotObservation
from hal0.core.reasons import foreign, unknown_reason
from hal0.core.steps import Action, Change, Reason, Step, StepKind
from hal0.core.world import World

_NOT_DECLARED = Reason("manifest", "present", "removed")


def pruned(world: World, *, prune_all: bool) -> Iterator[Change]:
    """Yield the removals, or why they wait: for sound manifests, or for leave to remove more than half of the slots."""
    mine = _owned(world)
    gone = sorted(mine - set(world.desired.slots))
    if world.desired.problems:
        # A broken manifest may be one of theirs: who is missing is not known until all is well.
        yield from (waits(name, "no manifest declares it, and the manifests have errors") for name in gone)
        return
    refused = () if prune_all else _too_many(mine - world.deletions, gone)
    yield from refused
    for name in sorted(set(gone) - {change.slot for change in refused}):
        yield backed_off(world, removal(world, name, _NOT_DECLARED))
    kept = {*world.desired.slots, *(change.slot for change in refused)}
    for engine in sorted(_stand_ins(world)):
        if slot_of(engine) not in kept:
            yield backed_off(world, removal(world, engine, _NOT_DECLARED))


def _too_many(mine: set[str], gone: list[str]) -> tuple[Change, ...]:
    """Return the refusals where more than half would go of the slots that nobody asked to remove by name."""
    lost = [name for name in gone if name in mine]
    if len(lost) * 2 <= len(mine):
        return ()
    why = Reason(f"pruning {len(lost)} of {len(mine)} slots", "", "refused without --prune-all")
    return tuple(Change(name, Action.REFUSE, (why,)) for name in lost)


def _owned(world: World) -> set[str]:
    """Return the slots that are hal0's: remembered, or carrying its mark or label."""
    marked = {name for name, seen in world.observed.slots.items() if _is_marked(name, seen)}
    return set(world.owned) | {name for name in marked if not is_stand_in(name)}


def _stand_ins(world: World) -> set[str]:
    """Return the keys of the stand-ins that are hal0's: they are no slots, and count as none."""
    marked = {name for name, seen in world.observed.slots.items() if _is_marked(name, seen)}
    return set(world.stand_ins) | {name for name in marked if is_stand_in(name)}


def _is_marked(name: str, seen: SlotObservation) -> bool:
    mark, instance = seen.mark, known(seen.instance)
    return bool(mark and mark.slot == name) or bool(instance and instance.slot == name)


def removal(world: World, name: str, why: Reason) -> Change:
    """Return the removal of an engine that is not wanted any more, and of its definition."""
    seen = world.observed.slot(name)
    if isinstance(seen.definition, Unknown) or isinstance(seen.service, Unknown):
        return waits(name, unknown_reason(seen))
    if refusal := foreign(name, seen):
        return Change(name, Action.REFUSE, (Reason(refusal, "", ""),))
    service, definition = seen.service.value, seen.definition.value
    is_up = bool(service and service.activity is not Activity.INACTIVE) or _is_running(seen)
    steps = [
        (is_up and world.serving(name) > 0, Step(StepKind.DRAIN, name)),
        (is_up, Step(StepKind.STOP, name)),
        (definition, Step(StepKind.REMOVE, name)),
        (definition, Step(StepKind.RELOAD)),
        (service, Step(StepKind.RESET_FAILED, name)),
        (True, Step(StepKind.FORGET, name)),
    ]
    path, before = (definition.path, definition.text) if definition else ("", None)
    return Change(name, Action.DELETE, (why,), tuple(step for wanted, step in steps if wanted), path, before, None)


def _is_running(seen: SlotObservation) -> bool:
    instance = known(seen.instance)
    return instance is not None and instance.running
