"""The engines of a slot: its own, and later a stand-in; and the spec of the one that requests go to.

An engine's key names its unit, its container, its door and its count of requests: the slot's name for its own engine.
"""

from __future__ import annotations

from hal0.core.facts import known
from hal0.core.observed import Activity, SlotObservation
from hal0.core.spec import DesiredSlot, SlotSpec

STAND_IN = ".next"
"""After a slot's name: its stand-in. No slot's name has a dot."""


def stand_in_of(slot: str) -> str:
    """Return the key of a slot's stand-in."""
    return slot + STAND_IN


def slot_of(engine: str) -> str:
    """Return the slot that an engine is of."""
    return engine.removesuffix(STAND_IN)


def is_stand_in(engine: str) -> bool:
    """Return whether an engine is a slot's stand-in."""
    return engine.endswith(STAND_IN)


def served_spec(slot: DesiredSlot, seen: SlotObservation, applied: SlotSpec | None) -> SlotSpec:
    """Return the spec of the engine that a slot's requests go to; the wanted one where none runs.

    Between an edit and the replacement of the engine that is the spec ``applied`` last, which the store remembers.
    What runs decides: an engine that was started from the wanted spec is of the wanted spec, whatever is remembered.
    """
    if applied is None or not _may_be_up(seen):
        return slot.spec
    instance = known(seen.instance)
    is_wanted = instance is not None and instance.running and instance.spec_hash == slot.spec_hash
    return slot.spec if is_wanted else applied


def _may_be_up(seen: SlotObservation) -> bool:
    """Return whether an engine may be running: who can't be seen may."""
    return seen.activity not in {Activity.INACTIVE, Activity.FAILED}
