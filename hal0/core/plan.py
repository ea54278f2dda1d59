"""Desired against Observed: what to change, why, and in which steps. Pure: planning twice gives the same plan.

What is unknown is never read as absent: a slot whose unit or definition can't be seen waits.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from hal0.core.backoff import Attempt, not_before
from hal0.core.definition import is_edited, split, stamp
from hal0.core.differences import differences
from hal0.core.facts import Known, Unknown, known
from hal0.core.observed import Activity, Instance, Observed, Service, SlotObservation
from hal0.core.quantity import show_duration
from hal0.core.schedule import Demand, Verdict, placement
from hal0.core.schema import DriftPolicy
from hal0.core.spec import Desired, DesiredSlot, Launch, SlotSpec
from hal0.core.steps import Action, Change, Plan, Reason, Step, StepKind

TEMPLATE_UNIT = "hal0-slot@.service"
SYSTEMDS_TURN = 10.0
"""Seconds in which a unit notices that its container is gone."""
_UNUSABLE = {
    "masked": "the unit is masked: systemctl unmask it",
    "not-found": f"{TEMPLATE_UNIT} is not installed: run hal0 install",
}


@dataclass(frozen=True, slots=True)
class World:
    """Everything a plan is made of.

    ``owned`` maps the slots that hal0 remembers to the spec it last applied. ``started`` are those that it last
    started, and has not stopped since: one of them that is down was stopped by others.
    """

    desired: Desired
    observed: Observed
    owned: Mapping[str, SlotSpec] = field(default_factory=dict)
    started: frozenset[str] = frozenset()
    attempts: Mapping[str, Attempt] = field(default_factory=dict)
    demand: Mapping[str, Demand] = field(default_factory=dict)
    now: float = 0.0


def plan(world: World, *, prune_all: bool = False) -> Plan:
    """Return what to do now. ``prune_all`` allows to remove more than half of the slots."""
    changes = (*_kept(world), *_pruned(world, prune_all=prune_all))
    return Plan(changes, world.desired.generation, world.desired.revision)


def _kept(world: World) -> Iterator[Change]:
    verdicts = placement(world.desired, world.demand, world.now)
    for name, slot in world.desired.slots.items():
        if not slot.spec.suspend and (change := _change(world, slot, world.observed.slot(name), verdicts[name])):
            yield _held_back(world, slot, change)


def _change(world: World, slot: DesiredSlot, seen: SlotObservation, verdict: Verdict) -> Change | None:
    """Return what one slot needs, before policy and backoff have their say."""
    name = slot.spec.name
    if isinstance(seen.definition, Unknown) or isinstance(seen.service, Unknown):
        return _waits(name, _unknown_reason(seen))
    if refusal := foreign(name, seen):
        return Change(name, Action.REFUSE, (Reason(refusal, "", ""),))
    service = seen.service.value
    if verdict.up and seen.model == Known(value=False) and not (service and service.activity is Activity.ACTIVE):
        return Change(name, Action.REFUSE, (Reason(f"ModelMissing: there is no {slot.spec.model_path}", "", ""),))
    before = seen.definition.value.text if seen.definition.value else None
    written = _definition_reasons(slot, before, world.owned.get(name))
    if not written and service and service.load in _UNUSABLE:
        return Change(name, Action.REFUSE, (Reason(_UNUSABLE[service.load], "", ""),))
    reloaded = _reload_reasons(slot, service) if not written else ()
    if not written and _is_ending(seen, world.now):
        return Change(name, Action.WAIT, (Reason("container", "gone", "its unit ends", drift=True),))
    moved = _activity_reasons(slot, seen, service, verdict, settled=not written, started=name in world.started)
    if not (written or reloaded or moved):
        return None
    steps = _steps(
        world, slot, seen, write=bool(written), reload=bool(written or reloaded), move=bool(moved), verdict=verdict
    )
    path = seen.definition.value.path if seen.definition.value else definition_name(slot)
    after = _new_text(world, slot) if written else before
    return Change(
        name, _action(before, written, verdict, moved), (*written, *reloaded, *moved), steps, path, before, after
    )


def is_as_declared(slot: DesiredSlot, seen: SlotObservation) -> bool:
    """Return whether the definition on disk is hal0's own and what the manifests ask for."""
    if isinstance(seen.definition, Unknown) or seen.definition.value is None:
        return False
    body, mark = split(seen.definition.value.text)
    return mark is not None and mark.slot == slot.spec.name and body == slot.body


def definition_name(slot: DesiredSlot) -> str:
    """Return how a definition that does not exist yet is called in a diff."""
    return f"hal0-slot@{slot.spec.name}.service.d/50-hal0.conf" if slot.spec.image else f"slots/{slot.spec.name}.toml"


def foreign(name: str, seen: SlotObservation) -> str:
    """Return why a slot's unit or container is not hal0's to touch; empty where it is, or where there is none."""
    if definition := known(seen.definition):
        mark = seen.mark
        if mark is None or mark.slot != name:
            return f"ForeignUnit: {definition.path} does not carry hal0's mark: move it away"
    if service := known(seen.service):
        fragment = service.fragment.rpartition("/")[2]
        if fragment and fragment != TEMPLATE_UNIT:
            return f"ForeignUnit: {service.fragment} stands in for {TEMPLATE_UNIT}: move it away"
    if (instance := known(seen.instance)) and instance.slot != name:
        return f"ForeignUnit: container hal0-slot-{name} does not carry hal0's label: remove or rename it"
    return ""


def _unknown_reason(seen: SlotObservation) -> str:
    reasons = [fact.reason for fact in (seen.definition, seen.service) if isinstance(fact, Unknown)]
    return f"unknown: {'; '.join(dict.fromkeys(reasons))}"


def _definition_reasons(slot: DesiredSlot, before: str | None, applied: SlotSpec | None) -> tuple[Reason, ...]:
    """Return why the definition must be written: new, removed by others, edited by others, or behind the manifests."""
    if before is None:
        known = applied is not None
        return (Reason("definition", "removed outside hal0" if known else "absent", "present", drift=known),)
    body, mark = split(before)
    if is_edited(before):
        return (Reason("definition", "edited outside hal0", "as declared", drift=True),)
    if body == slot.body:
        return ()
    if applied and (told := tuple(differences(applied, slot.spec))):
        return told
    if mark and mark.spec_hash != slot.spec_hash:
        return (Reason("spec", mark.spec_hash, slot.spec_hash),)
    return (Reason("definition", "of an earlier template or setting", "as declared"),)


def _reload_reasons(slot: DesiredSlot, service: Service | None) -> tuple[Reason, ...]:
    if service is None:
        return (Reason("unit", "not loaded", "loaded", drift=True),)
    if service.needs_reload:
        return (Reason("unit", "older than its files", "reloaded", drift=True),)
    if service.argv != slot.launch.argv and not service.operator_dropins:
        return (Reason("ExecStart", "not as written", "as declared", drift=True),)
    return ()


def _activity_reasons(
    slot: DesiredSlot,
    seen: SlotObservation,
    service: Service | None,
    verdict: Verdict,
    *,
    settled: bool,
    started: bool,
) -> tuple[Reason, ...]:
    """Return why the service must be started, stopped or replaced.

    ``settled``: its definition is as declared. ``started``: hal0 started it, and did not stop it.
    """
    activity = service.activity if service else Activity.INACTIVE
    if activity is Activity.DEACTIVATING:
        return ()
    if not verdict.up:
        return (Reason("run", activity.value, f"stopped ({verdict.why})"),) if activity.is_up else ()
    if not activity.is_up:
        # A stop that nobody here asked for is drift; a failure is the engine's own.
        drift = settled and started and activity is Activity.INACTIVE
        return (Reason("service", _down(service), f"running ({verdict.why})", drift=drift),)
    if activity is not Activity.ACTIVE or isinstance(seen.instance, Unknown):
        return ()
    return tuple(_instance_reasons(slot, seen, service, seen.instance.value, settled=settled))


def _is_ending(seen: SlotObservation, now: float) -> bool:
    """Return whether the container is gone and its unit is about to notice: systemd's turn, not hal0's."""
    if not seen.is_hollow or _overridden(seen):
        return False
    return seen.gone_since is None or now - seen.gone_since < SYSTEMDS_TURN


def _overridden(seen: SlotObservation) -> bool:
    service = known(seen.service)
    return service is not None and bool(service.operator_dropins)


def _down(service: Service | None) -> str:
    if service is None or service.activity is Activity.INACTIVE:
        return "stopped"
    return f"{service.activity.value} ({service.result})"


def _instance_reasons(
    slot: DesiredSlot, seen: SlotObservation, service: Service | None, instance: Instance | None, *, settled: bool
) -> Iterator[Reason]:
    """Yield what of the running container is not what was asked for."""
    if instance is None or not instance.running:
        if not _overridden(seen):  # an operator's own ExecStart need not run a container
            yield Reason("container", "gone", "running", drift=settled)
        return
    overridden = service is not None and service.operator_dropins and not service.needs_reload
    is_wanted = instance.command == service.argv if overridden and service else _is_made_of(slot.launch, instance)
    if settled and not is_wanted:
        yield Reason("container", f"started from {instance.spec_hash or 'another spec'}", slot.spec_hash, drift=True)
    if isinstance(seen.image, Known) and seen.image.value and seen.image.value != instance.image:
        yield Reason("image", instance.image[:19], seen.image.value[:19], drift=True)


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
    name = slot.spec.name
    service = known(seen.service)
    is_up = bool(service and service.activity.is_up)
    replaced = write and _is_replaced(slot, seen)
    stop = is_up and (move or replaced)
    start = verdict.up and (move or replaced or not is_up)
    pull = start and bool(slot.spec.image) and isinstance(seen.image, Known) and seen.image.value is None
    steps = [
        (pull, Step(StepKind.PULL, name, slot.spec.image)),
        (stop and _is_serving(world, name), Step(StepKind.DRAIN, name)),
        (stop, Step(StepKind.STOP, name)),
        (write, Step(StepKind.WRITE, name, _new_text(world, slot) if write else "")),
        (reload, Step(StepKind.RELOAD)),
        (start, Step(StepKind.RESET_FAILED, name)),
        (start, Step(StepKind.START, name)),
    ]
    return tuple(step for wanted, step in steps if wanted)


def _is_serving(world: World, name: str) -> bool:
    """Return whether requests are being answered, that a stop should wait for."""
    return name in world.demand and world.demand[name].serving > 0


def _is_replaced(slot: DesiredSlot, seen: SlotObservation) -> bool:
    """Return whether a written definition means another container, as far as can be seen."""
    if instance := known(seen.instance):
        return not _is_made_of(slot.launch, instance)
    mark = seen.mark
    return mark is None or mark.spec_hash != slot.spec_hash


def _is_made_of(launch: Launch, instance: Instance) -> bool:
    """Return whether what runs was started like this. Only the hash tells the environment of a child process."""
    return (instance.command, instance.spec_hash) == (launch.argv, launch.spec_hash)


def _new_text(world: World, slot: DesiredSlot) -> str:
    return stamp(slot.body, slot=slot.spec.name, spec_hash=slot.spec_hash, generation=world.desired.generation)


def _action(before: str | None, written: tuple[Reason, ...], verdict: Verdict, moved: tuple[Reason, ...]) -> Action:
    if written:
        return Action.UPDATE if before is not None else Action.CREATE
    return Action.RESTART if moved and verdict.up else Action.UPDATE


def _held_back(world: World, slot: DesiredSlot, change: Change) -> Change:
    """Return the change, or why it waits: by drift policy, or because the last try is too fresh."""
    if change.action in {Action.WAIT, Action.REFUSE}:
        return change
    name, policy = slot.spec.name, slot.spec.drift
    serving = world.demand[name].serving if name in world.demand else 0
    if change.is_drift and policy is DriftPolicy.ALERT:
        return _waiting(change, Reason("drift policy", "", "alert: left as it is", drift=True))
    if change.is_drift and policy is DriftPolicy.HEAL_WHEN_IDLE and serving:
        return _waiting(change, Reason("drift policy", "", f"heal-when-idle: {serving} in flight", drift=True))
    return _backed_off(world, change, slot.spec_hash)


def _backed_off(world: World, change: Change, spec_hash: str = "") -> Change:
    """Return the change, or why it waits where its last try is too fresh."""
    attempt = world.attempts.get(change.slot)
    starts = any(step.kind is StepKind.START for step in change.steps) or change.action is Action.DELETE
    if starts and attempt and attempt.spec_hash == spec_hash and world.now < not_before(change.slot, attempt):
        left = show_duration(not_before(change.slot, attempt) - world.now)
        return _waiting(change, Reason(f"retry {attempt.count}", attempt.error or "did not get ready", f"in {left}"))
    return change


def _waiting(change: Change, reason: Reason) -> Change:
    return replace(change, action=Action.WAIT, steps=(), reasons=(*change.reasons, reason))


def _waits(name: str, why: str) -> Change:
    return Change(name, Action.WAIT, (Reason(why, "", ""),))


# Pruning: slots that hal0 owns and no manifest declares.


def owned(world: World) -> set[str]:
    """Return the slots that are hal0's: remembered, or carrying its mark or label."""
    return set(world.owned) | {name for name, seen in world.observed.slots.items() if _is_marked(name, seen)}


def _is_marked(name: str, seen: SlotObservation) -> bool:
    mark, instance = seen.mark, known(seen.instance)
    return bool(mark and mark.slot == name) or bool(instance and instance.slot == name)


def _pruned(world: World, *, prune_all: bool) -> Iterator[Change]:
    mine = owned(world)
    gone = sorted(mine - set(world.desired.slots))
    if world.desired.problems:
        # A broken manifest may be one of theirs: who is missing is not known until all is well.
        yield from (_waits(name, "no manifest declares it, and the manifests have errors") for name in gone)
        return
    if not prune_all and len(gone) * 2 > len(mine):
        why = Reason(f"pruning {len(gone)} of {len(mine)} slots", "", "refused without --prune-all")
        yield from (Change(name, Action.REFUSE, (why,)) for name in gone)
        return
    for name in gone:
        yield _backed_off(world, _removal(world, name))


def _removal(world: World, name: str) -> Change:
    seen = world.observed.slot(name)
    if isinstance(seen.definition, Unknown) or isinstance(seen.service, Unknown):
        return _waits(name, _unknown_reason(seen))
    if refusal := foreign(name, seen):
        return Change(name, Action.REFUSE, (Reason(refusal, "", ""),))
    service, definition = seen.service.value, seen.definition.value
    is_up = bool(service and service.activity is not Activity.INACTIVE) or _is_running(seen)
    steps = [
        (is_up and _is_serving(world, name), Step(StepKind.DRAIN, name)),
        (is_up, Step(StepKind.STOP, name)),
        (definition, Step(StepKind.REMOVE, name)),
        (definition, Step(StepKind.RELOAD)),
        (service, Step(StepKind.RESET_FAILED, name)),
        (True, Step(StepKind.FORGET, name)),
    ]
    path, before = (definition.path, definition.text) if definition else ("", None)
    reasons = (Reason("manifest", "present", "removed"),)
    return Change(name, Action.DELETE, reasons, tuple(step for wanted, step in steps if wanted), path, before, None)


def _is_running(seen: SlotObservation) -> bool:
    instance = known(seen.instance)
    return instance is not None and instance.running
