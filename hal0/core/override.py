"""Overrides: what a person asked of a slot goes before its manifest, for a while or until it is taken back.

They are drift that is meant: shown with everything that the manifests say, and never silent. Wall time, in seconds
since the epoch: an override outlives the process and the machine's boot.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from enum import StrEnum

from hal0.core.facts import known
from hal0.core.observed import Observed, SlotObservation
from hal0.core.quantity import show_moment
from hal0.core.schema import RunPolicy
from hal0.core.spec import Desired, DesiredSlot

UP = "up"
DOWN = "down"
HELD = "as found when the store was lost"


class Aspect(StrEnum):
    """What of a slot is overridden; of each there is one override at the most."""

    RUN = "run"
    MODEL = "model"
    RESTART = "restart"
    HOLD = "hold"


@dataclass(frozen=True, slots=True)
class Override:
    """What ``who`` asked of a slot, and when. ``until`` None: until it is reset.

    ``value`` is ``UP`` or ``DOWN`` for a run, a Model's name for a model, and for a restart the invocation that has to
    be gone: so it is asked for once, whatever comes between. For a hold, which is hal0's own, it is what the manifest
    asked for at that time (``wish``): what runs is left as it is until that changes.
    """

    slot: str
    aspect: Aspect
    value: str
    who: str
    at: float
    until: float | None = None

    @property
    def key(self) -> tuple[str, Aspect]:
        """What a newer override replaces."""
        return self.slot, self.aspect

    @property
    def said(self) -> str:
        """What is asked for, in words."""
        return HELD if self.aspect is Aspect.HOLD else self.value

    @property
    def by(self) -> str:
        """Who asked for it, and until when it holds."""
        end = "" if self.until is None else f" until {show_moment(self.until)}"
        return f"by {self.who}{end}"


@dataclass(frozen=True, slots=True)
class Deviation:
    """An override beside what the manifest says. ``void`` says why it has no effect now, and is empty where it has."""

    override: Override
    declared: str
    void: str = ""

    def __str__(self) -> str:
        """``run: never -> up (by eve until ...)``."""
        own = self.override
        void = f"; without effect: {self.void}" if self.void else ""
        return f"{own.aspect}: {self.declared} -> {own.said} ({own.by}){void}"


def of_aspect(overrides: Iterable[Override], aspect: Aspect) -> dict[str, Override]:
    """Return the overrides of one aspect, by slot."""
    return {override.slot: override for override in overrides if override.aspect is aspect}


def models_of(overrides: Iterable[Override]) -> dict[str, str]:
    """Return the Model that each slot is to have in the place of its manifest's."""
    return {slot: override.value for slot, override in of_aspect(overrides, Aspect.MODEL).items()}


def overridden(declared: Desired, changed: Desired) -> Desired:
    """Return ``changed``, what the manifests ask for with other models, with what they say alone kept beside it."""
    slots = {
        name: slot if slot == declared.slots[name] else replace(slot, declared=declared.slots[name])
        for name, slot in changed.slots.items()
    }
    return replace(declared, slots=slots)


def differs(override: Override, slot: DesiredSlot) -> bool:
    """Return whether an override asks for something else than the slot's manifest."""
    said = slot.as_declared.spec
    match override.aspect:
        case Aspect.RUN:
            return said.run is not (RunPolicy.ALWAYS if override.value == UP else RunPolicy.NEVER)
        case Aspect.MODEL:
            return said.model != override.value
    return True


def deviations(desired: Desired, overrides: Iterable[Override]) -> tuple[Deviation, ...]:
    """Return what is overridden of the desired slots. A restart is none: the plan shows it as a change."""
    return tuple(
        Deviation(override, _declared(slot, override.aspect), _void(desired, slot, override))
        for override in overrides
        if override.aspect is not Aspect.RESTART and (slot := desired.slots.get(override.slot))
    )


def _declared(slot: DesiredSlot, aspect: Aspect) -> str:
    said = slot.as_declared.spec
    match aspect:
        case Aspect.RUN:
            return said.run.value
        case Aspect.HOLD:
            return "as declared"
    return said.model


def wish(slot: DesiredSlot) -> str:
    """Return what a slot's manifest asks for, as far as its engine is concerned: what is executed, and when."""
    return f"{slot.as_declared.spec.run} {slot.as_declared.spec_hash}"


def _void(desired: Desired, slot: DesiredSlot, override: Override) -> str:
    if slot.spec.suspend:
        return "the slot is suspended"
    if slot.rejected and (override.aspect is Aspect.MODEL or slot.is_barred):
        return "the spec was rejected"
    if override.aspect is Aspect.MODEL and slot.problems:
        return "the manifest has errors, and its last good spec stays"
    if override.aspect is Aspect.MODEL and override.value not in desired.models:
        return f"no Model {override.value!r} is declared any more"
    return ""


def expired(overrides: Iterable[Override], wall: float) -> tuple[Override, ...]:
    """Return the overrides whose time is over."""
    return tuple(override for override in overrides if override.until is not None and override.until <= wall)


def next_expiry(overrides: Iterable[Override], wall: float) -> float | None:
    """Return in how many seconds the next override ends, or None."""
    ends = [override.until - wall for override in overrides if override.until is not None]
    return max(0.0, min(ends)) if ends else None


def spent(
    overrides: Iterable[Override], desired: Desired, owned: Collection[str], observed: Observed
) -> tuple[Override, ...]:
    """Return the overrides that nothing is left to do for.

    They are those of slots that are gone, restarts that were made, and holds of what runs no more or is declared anew.

    While anything is wrong with the manifests nobody knows which slots are gone.
    """
    return tuple(
        override
        for override in overrides
        if (override.slot not in {*desired.slots, *owned} and not desired.problems)
        or (override.aspect is Aspect.RESTART and _is_made(override, observed.slot(override.slot)))
        or (override.aspect is Aspect.HOLD and _is_let_go(override, desired, observed.slot(override.slot)))
    )


def _is_let_go(hold: Override, desired: Desired, seen: SlotObservation) -> bool:
    """Return whether what was held is known to be down, or its manifest asks for something else than it did."""
    if seen.activity and not seen.activity.is_up:
        return True
    slot = desired.slots.get(hold.slot)
    return slot is not None and not slot.problems and hold.value != wish(slot)


def _is_made(restart: Override, seen: SlotObservation) -> bool:
    """Return whether the invocation that had to go is known to be gone."""
    service = known(seen.service)
    is_another = service is not None and service.invocation != restart.value
    return is_another or (seen.activity is not None and not seen.activity.is_up)
