"""Why a slot has to be touched: what of its definition, unit and container is not as it should be."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from hal0.core.argv_diff import argv_differences
from hal0.core.definition import is_edited, split
from hal0.core.differences import differences
from hal0.core.facts import Known, Unknown, known
from hal0.core.observed import Activity, Instance, Service, SlotObservation
from hal0.core.override import Override
from hal0.core.quantity import show_size
from hal0.core.schedule import Verdict
from hal0.core.spec import DesiredSlot, Launch, SlotSpec
from hal0.core.steps import Reason

TEMPLATE_UNIT = "hal0-slot@.service"
RESTART = "restart"
"""The field of the reason of a restart that a person asked for."""
SYSTEMDS_TURN = 10.0
"""Seconds in which a unit notices that its container is gone."""

_PAGE = 65536
"""Bytes: the kernel rounds a limit of memory down to a page, and no page is larger."""
_CPU_STEP = 0.01


def is_as_declared(slot: DesiredSlot, seen: SlotObservation) -> bool:
    """Return whether the definition on disk is hal0's own and what the manifests ask for."""
    if isinstance(seen.definition, Unknown) or seen.definition.value is None:
        return False
    body, mark = split(seen.definition.value.text)
    return mark is not None and mark.slot == slot.spec.key and body == slot.body


def foreign(name: str, seen: SlotObservation) -> str:
    """Return why a slot's unit or container is not hal0's to touch; empty where it is, or where there is none."""
    if definition := known(seen.definition):
        mark = seen.mark
        if mark is None or mark.slot != name:
            return f"ForeignUnit: {definition.path} does not carry hal0's mark: hal0 slot adopt {name}, or move it away"
    if unit := foreign_unit(seen):
        return unit
    if (instance := known(seen.instance)) and instance.slot != name:
        return (
            f"ForeignUnit: container hal0-slot-{name} does not carry hal0's label: hal0 slot adopt {name}, or rename it"
        )
    return ""


def foreign_unit(seen: SlotObservation) -> str:
    """Return what stands in the template's place; empty where nothing does. Only a person can judge what it is."""
    service = known(seen.service)
    fragment = service.fragment if service else ""
    if not fragment or fragment.rpartition("/")[2] == TEMPLATE_UNIT:
        return ""
    return f"ForeignUnit: {fragment} stands in for {TEMPLATE_UNIT}: move it away"


def unknown_reason(seen: SlotObservation) -> str:
    """Return why a slot can't be planned for: its definition or its unit could not be seen."""
    reasons = [fact.reason for fact in (seen.definition, seen.service) if isinstance(fact, Unknown)]
    return f"unknown: {'; '.join(dict.fromkeys(reasons))}"


def definition_reasons(slot: DesiredSlot, before: str | None, applied: SlotSpec | None) -> tuple[Reason, ...]:
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


def reload_reasons(slot: DesiredSlot, service: Service | None) -> tuple[Reason, ...]:
    """Return why the service manager must read the definition again."""
    if service is None:
        return (Reason("unit", "not loaded", "loaded", drift=True),)
    if service.needs_reload:
        return (Reason("unit", "older than its files", "reloaded", drift=True),)
    if service.argv != slot.launch.argv and not service.operator_dropins:
        return _named(slot.launch.argv, service.argv) or (
            Reason("ExecStart", "not as written", "as declared", drift=True),
        )
    return ()


def activity_reasons(
    slot: DesiredSlot,
    seen: SlotObservation,
    service: Service | None,
    verdict: Verdict,
    *,
    settled: bool,
    started: bool,
    wedged: bool = False,
) -> tuple[Reason, ...]:
    """Return why the service must be started, stopped or replaced.

    ``settled``: its definition is as declared. ``started``: hal0 started it, and did not stop it. ``wedged``: its
    engine is known not to answer.
    """
    activity = service.activity if service else Activity.INACTIVE
    if activity is Activity.DEACTIVATING:
        return ()
    if not verdict.up:
        return (Reason("run", activity.value, f"stopped ({verdict.why})"),) if activity.is_up else ()
    if not activity.is_up:
        # A stop that nobody here asked for is drift; a failure is the engine's own.
        drift = settled and started and activity is Activity.INACTIVE
        failed = activity is Activity.FAILED
        return (Reason("service", _down(service), f"running ({verdict.why})", drift=drift, fault=failed),)
    if activity is not Activity.ACTIVE or isinstance(seen.instance, Unknown):
        return ()
    hangs = (Reason("engine", "does not answer", "running", drift=True, fault=True),) if wedged else ()
    return (*hangs, *_instance_reasons(slot, seen, service, seen.instance.value, settled=settled))


def restart_reasons(asked: Override | None, service: Service | None, verdict: Verdict) -> tuple[Reason, ...]:
    """Return why a service that should run is replaced all the same: somebody asked for it, and it is not done yet."""
    if not (asked and verdict.up and service and service.activity.is_up and service.invocation == asked.value):
        return ()
    return (Reason(RESTART, "", f"asked for {asked.by}"),)


def is_ending(seen: SlotObservation, now: float) -> bool:
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
    is_wanted = instance.command == service.argv if overridden and service else is_made_of(slot.launch, instance)
    if settled and not is_wanted:
        yield from _started_from(slot, service.argv if overridden and service else slot.launch.argv, instance)
    elif settled and not overridden:
        yield from _limits(slot.spec, instance)
    if isinstance(seen.image, Known) and seen.image.value and seen.image.value != instance.image:
        yield Reason("image", instance.image[:19], seen.image.value[:19], drift=True)


def _started_from(slot: DesiredSlot, wanted: Sequence[str], instance: Instance) -> tuple[Reason, ...]:
    """Return in what a container was started otherwise. Of a child's environment only the hash is known."""
    if named := _named(wanted, instance.command):
        return named
    if not slot.spec.image:
        return (Reason("env", "another", "as declared", drift=True),)
    return (Reason("container", f"started from {instance.spec_hash or 'another spec'}", slot.spec_hash, drift=True),)


def _named(declared: Sequence[str], found: Sequence[str]) -> tuple[Reason, ...]:
    return tuple(Reason(*difference, drift=True) for difference in argv_differences(declared, found))


def _limits(spec: SlotSpec, instance: Instance) -> Iterator[Reason]:
    """Yield the limits that were changed since the start, as by ``podman update``.

    No limit where one is declared is no difference: some hosts can't set it, and a restart would change nothing.
    """
    memory, cpus = spec.memory or 0, spec.cpus or 0.0
    if instance.memory and abs(instance.memory - memory) >= _PAGE:
        yield Reason("memory", show_size(instance.memory), show_size(memory) if memory else "none", drift=True)
    if instance.cpus and abs(instance.cpus - cpus) >= _CPU_STEP:
        yield Reason("cpus", f"{instance.cpus:g}", f"{cpus:g}" if cpus else "none", drift=True)


def is_made_of(launch: Launch, instance: Instance) -> bool:
    """Return whether what runs was started like this. Only the hash tells the environment of a child process."""
    return (instance.command, instance.spec_hash) == (launch.argv, launch.spec_hash)
