"""Desired against Observed: what to change, why, and in which steps. Pure: planning twice gives the same plan.

What is unknown is never read as absent: a slot whose unit or definition can't be seen waits.
"""

from __future__ import annotations

from dataclasses import replace

from hal0.core.arbiter import place
from hal0.core.definition import stamp
from hal0.core.engines import slot_of
from hal0.core.facts import Known, Unknown, known
from hal0.core.hold import backed_off, held_back, retry_reason, waiting, waits
from hal0.core.observed import Activity, SlotObservation
from hal0.core.override import deviations
from hal0.core.pools import pool_of
from hal0.core.prune import pruned, removal
from hal0.core.reasons import (
    TEMPLATE_UNIT,
    activity_reasons,
    definition_reasons,
    foreign,
    is_as_declared,
    is_ending,
    is_made_of,
    reload_reasons,
    restart_reasons,
    unknown_reason,
)
from hal0.core.replace import held_try
from hal0.core.replacement import Replacement
from hal0.core.schedule import Standing, Verdict
from hal0.core.spec import DesiredSlot
from hal0.core.standin import Stage
from hal0.core.steps import Action, Change, Plan, Reason, Step, StepKind
from hal0.core.world import World

_UNUSABLE = {
    "masked": "the unit is masked: systemctl unmask it",
    "not-found": f"{TEMPLATE_UNIT} is not installed: run hal0 install",
}


def plan(world: World, *, prune_all: bool = False) -> Plan:
    """Return what to do now. ``prune_all`` allows to remove more than half of the slots."""
    wished = {name: change for name in world.desired.slots if (change := _own(world, name))}
    starts = frozenset(name for name, change in wished.items() if change.has(StepKind.START))
    incomplete = frozenset(name for name in starts if wished[name].awaits)
    placement = place(world, starts, incomplete)
    kept = (_placed(world, name, wished.get(name), placement.verdicts[name]) for name in world.desired.slots)
    beside = (_beside(world, found, placement.verdicts[name]) for name, found in world.replacing.items())
    changes = (*(_claimed(world, change) for change in (*kept, *beside) if change), *pruned(world, prune_all=prune_all))
    overrides = deviations(world.desired, world.overrides)
    rejections = tuple(slot.rejected for slot in world.desired.slots.values() if slot.rejected)
    return Plan(changes, world.desired.generation, world.desired.revision, overrides, placement, rejections)


def _claimed(world: World, change: Change) -> Change:
    """Return a change with what its engine will take of which pool, where it makes or starts one."""
    if not (change.action is Action.CREATE or change.has(StepKind.START)):
        return change
    slot = slot_of(change.slot)
    pool = pool_of(world.desired.slots[slot].spec, world.pools)
    return replace(change, claim=world.claims.get(slot), pool=pool)


def _wished(world: World, name: str, verdict: Verdict) -> Change | None:
    """Return what one slot needs to follow a verdict, as far as its policy and backoff let it."""
    slot = world.desired.slots[name]
    is_left_alone = slot.spec.suspend or name in world.on_hold
    change = None if is_left_alone else _change(world, slot, world.observed.slot(name), verdict)
    return change and held_back(world, slot, change)


def _placed(world: World, name: str, wished: Change | None, verdict: Verdict) -> Change | None:
    """Return what becomes of a slot's change by the arbiter's word."""
    reason = Reason("placement", "", verdict.why)
    match verdict.standing:
        case Standing.REFUSED:
            return Change(name, Action.REFUSE, (reason,))
        case Standing.WAITS if wished:
            return _without_start(wished, reason)
        case Standing.DRAINS:
            return waiting(wished or Change(name, Action.WAIT, ()), reason)
    return wished if verdict.up is world.wants[name].up else _wished(world, name, verdict)


def _without_start(change: Change, reason: Reason) -> Change:
    """Return a change that defines a slot and waits with its start; one that runs is left as it is until then."""
    if change.stops or not change.has(StepKind.WRITE):
        return waiting(change, reason)
    steps = tuple(step for step in change.steps if step.kind in {StepKind.WRITE, StepKind.RELOAD})
    return replace(change, steps=steps, reasons=(*change.reasons, reason))


def _own(world: World, name: str) -> Change | None:
    """Return what a slot's own engine needs: no step while its stand-in loads, or why that has to be tried again."""
    change, found = _wished(world, name, world.wants[name]), world.replacing.get(name)
    if change is None or found is None or not change.stops:
        return change
    if world.observed.slot(name).model == Known(value=False) and not change.has(StepKind.FETCH):
        return _without_model(world, world.desired.slots[name])
    if not found.leaves_own:
        return replace(change, reasons=(*change.reasons, found.reason))
    if attempt := held_try(world, found):
        return waiting(change, retry_reason(found.key, attempt, world.now))
    return replace(change, reasons=(*change.reasons, found.reason), steps=())


def _beside(world: World, found: Replacement, verdict: Verdict) -> Change | None:
    """Return what becomes of a slot's stand-in. Its tries are counted for the spec that the slot is to have."""
    slot, is_evicted = world.desired.slots[found.slot], not verdict.up and verdict.standing is not Standing.DRAINS
    if found.goes or (is_evicted and found.is_there and found.stage is not Stage.HOLD):
        return backed_off(world, removal(world, found.key, Reason("stand-in", "", found.why)))
    change = _change(world, found.stand_in, found.seen, verdict) if found.stage is Stage.LOAD else None
    return change and backed_off(world, replace(change, reasons=(found.reason, *change.reasons)), slot.spec_hash)


def _change(world: World, slot: DesiredSlot, seen: SlotObservation, verdict: Verdict) -> Change | None:
    """Return what one slot needs, before policy and backoff have their say."""
    name = slot.spec.key
    if isinstance(seen.definition, Unknown) or isinstance(seen.service, Unknown):
        return waits(name, unknown_reason(seen))
    if refusal := foreign(name, seen):
        return Change(name, Action.REFUSE, (Reason(refusal, "", ""),))
    service = seen.service.value
    if verdict.up and world.lacks_model(slot.spec, seen) and not (service and service.activity is Activity.ACTIVE):
        return _without_model(world, slot)
    if verdict.up and world.lacks_image(slot.spec, seen) and not _runs_as_declared(slot, seen):
        return _without_image(slot)
    before = seen.definition.value.text if seen.definition.value else None
    written = definition_reasons(slot, before, world.applied(name))
    if not written and service and service.load in _UNUSABLE:
        return Change(name, Action.REFUSE, (Reason(_UNUSABLE[service.load], "", ""),))
    reloaded = reload_reasons(slot, service) if not written else ()
    if not written and is_ending(seen, world.now):
        return Change(name, Action.WAIT, (Reason("container", "gone", "its unit ends", drift=True),))
    hangs, started = world.is_wedged(name), name in world.started
    moved = (
        *activity_reasons(slot, seen, service, verdict, settled=not written, started=started, wedged=hangs),
        *restart_reasons(world.restarts.get(name), service, verdict),
    )
    if not (written or reloaded or moved):
        return None
    steps = _steps(
        world, slot, seen, write=bool(written), reload=bool(written or reloaded), move=bool(moved), verdict=verdict
    )
    path = seen.definition.value.path if seen.definition.value else definition_name(slot)
    after = _new_text(world, slot) if written else before
    reasons = tuple(dict.fromkeys((*written, *reloaded, *moved)))  # a loaded unit and its container differ alike
    return Change(name, _action(before, written, verdict, moved), reasons, steps, path, before, after)


def _without_model(world: World, slot: DesiredSlot) -> Change:
    missing = "no file as the lock has it at" if slot.spec.model_pins else "no"
    why = f"ModelMissing: there is {missing} {slot.spec.model_path} ({world.desired.mend(slot.spec)})"
    return Change(slot.spec.key, Action.REFUSE, (Reason(why, "", ""),))


def _without_image(slot: DesiredSlot) -> Change:
    name = slot.spec.image_name
    mend = f"build it as it was, or hal0 lock --upgrade {name}"
    why = f"ImageMissing: {name} is locked to the image {slot.spec.image[:12]}, which is not here ({mend})"
    return Change(slot.spec.key, Action.REFUSE, (Reason(why, "", ""),))


def _runs_as_declared(slot: DesiredSlot, seen: SlotObservation) -> bool:
    return seen.activity is Activity.ACTIVE and is_as_declared(slot, seen)


def definition_name(slot: DesiredSlot) -> str:
    """Return how a definition that does not exist yet is called in a diff."""
    return f"hal0-slot@{slot.spec.key}.service.d/50-hal0.conf" if slot.spec.image else f"slots/{slot.spec.key}.toml"


def _steps(
    world: World,
    slot: DesiredSlot,
    seen: SlotObservation,
    *,
    write: bool,
    reload: bool,
    move: bool,
    verdict: Verdict,
) -> tuple[Step, ...]:
    name = slot.spec.key
    service = known(seen.service)
    is_up = bool(service and service.activity.is_up)
    replaced = write and _is_replaced(slot, seen)
    stop = is_up and (move or replaced)
    start = verdict.up and (move or replaced or not is_up)
    download = world.desired.download(slot.spec) if start and seen.model == Known(value=False) else None
    pull = start and bool(slot.spec.image) and isinstance(seen.image, Known) and seen.image.value is None
    steps = [
        (download is not None, Step(StepKind.FETCH, name, download=download)),
        (pull, Step(StepKind.PULL, name, slot.spec.image)),
        (stop and world.serving(name) > 0 and not world.is_wedged(name), Step(StepKind.DRAIN, name)),
        (stop, Step(StepKind.STOP, name)),
        (write, Step(StepKind.WRITE, name, _new_text(world, slot) if write else "")),
        (reload, Step(StepKind.RELOAD)),
        (start, Step(StepKind.RESET_FAILED, name)),
        (start, Step(StepKind.START, name)),
    ]
    return tuple(step for wanted, step in steps if wanted)


def _is_replaced(slot: DesiredSlot, seen: SlotObservation) -> bool:
    """Return whether a written definition means another container, as far as can be seen."""
    if instance := known(seen.instance):
        return not is_made_of(slot.launch, instance)
    mark = seen.mark
    return mark is None or mark.spec_hash != slot.spec_hash


def _new_text(world: World, slot: DesiredSlot) -> str:
    return stamp(slot.body, slot=slot.spec.key, spec_hash=slot.spec_hash, generation=world.desired.generation)


def _action(before: str | None, written: tuple[Reason, ...], verdict: Verdict, moved: tuple[Reason, ...]) -> Action:
    if written:
        return Action.UPDATE if before is not None else Action.CREATE
    return Action.RESTART if moved and verdict.up else Action.UPDATE
