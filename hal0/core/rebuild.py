"""What a lost store knew, read back from the host: ports that were handed out, and what ran for a reason of its own.

A slot that is declared and not remembered has never been made, or the store lost it: such a slot can only run in the
second case.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import replace

from hal0.core.definition import split
from hal0.core.engines import is_stand_in, slot_of
from hal0.core.facts import Known, known
from hal0.core.observed import Observed, SlotObservation
from hal0.core.override import Aspect, Override, wish
from hal0.core.schedule import Standing
from hal0.core.spec import Desired, DesiredSlot, SlotSpec
from hal0.core.steps import Change, Plan, StepKind

_PUBLISHED = re.compile(r"--publish=127\.0\.0\.1:(\d+):")
_FLAG = re.compile(r'"--port(?:",\s*"|=)(\d+)"')
_NUMBER = re.compile(r"(?<![\w.])(\d+)(?![\w.])")


def ports_found(desired: Desired, observed: Observed, remembered: Collection[str]) -> Mapping[str, int]:
    """Return the ports in the definitions of declared slots that hal0 made and does not remember."""
    lost = [name for name in desired.slots if name not in remembered]
    found = {name: _port(name, observed.slot(name), desired.host.ports) for name in lost}
    return {name: port for name, port in found.items() if port}


def holds(current: Plan, desired: Desired, lost: Collection[str], wall: float) -> tuple[Override, ...]:
    """Return a hold for each declared slot that a plan would stop or replace, and the store knew nothing of.

    Somebody may have asked for what it runs, and what they asked for is lost. One that makes room for another goes all
    the same. ``wall`` is in seconds since the epoch.
    """
    evicted = {name for name, found in current.placement.verdicts.items() if found.standing is Standing.EVICTED}
    touched = {slot_of(change.slot) for change in current.changes if _replaces(change)}
    return tuple(
        Override(name, Aspect.HOLD, wish(slot), "hal0", wall)
        for name, slot in desired.slots.items()
        if name in touched and name in lost and name not in evicted
    )


def _replaces(change: Change) -> bool:
    """Return whether an engine is stopped, or one is begun that is to take its place."""
    return change.has(StepKind.START) if is_stand_in(change.slot) else change.stops


def found_spec(slot: DesiredSlot, seen: SlotObservation, bounds: tuple[int, int]) -> SlotSpec:
    """Return as much as can be told of what a held slot was started from: its manifest's spec, on the port found."""
    return replace(slot.spec, port=_port(slot.spec.name, seen, bounds) or slot.spec.port)


def is_seen(seen: SlotObservation) -> bool:
    """Return whether enough is seen of a slot to tell whether a plan stops it."""
    return all(isinstance(fact, Known) for fact in (seen.definition, seen.service, seen.instance))


def _port(name: str, seen: SlotObservation, bounds: tuple[int, int]) -> int:
    """Return the port of a slot's definition; 0 where there is none of hal0's, or where it could be several."""
    definition = known(seen.definition)
    body, mark = split(definition.text) if definition else ("", None)
    if mark is None or mark.slot != name:
        return 0
    if stated := _PUBLISHED.search(body) or _FLAG.search(body):
        return int(stated[1])
    # A command line of the operator's own says it in any place: only one number there can have been handed out.
    numbers = {int(text) for text in _NUMBER.findall(body)}
    likely = [number for number in numbers if bounds[0] <= number <= bounds[1]]
    return likely[0] if len(likely) == 1 else 0
