"""Which slots should be up now, and why. Run policies and demand make a verdict; the arbiter has the last word."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from hal0.core.engines import is_stand_in
from hal0.core.override import HELD, UP, Aspect, Override, of_aspect
from hal0.core.quantity import show_duration
from hal0.core.schema import RunPolicy
from hal0.core.spec import Desired, DesiredSlot, SlotSpec


@dataclass(frozen=True, slots=True)
class Demand:
    """What requests want of a slot.

    ``last_used`` is in seconds on the loop's clock; ``waiting`` requests wait for the slot, ``serving`` ones are at its
    engines, ``beside`` of those at its stand-in. ``keep`` is for how many seconds the last request wants it kept; None
    is the slot's idle timeout. ``since`` is from when on there was always a request that waits; None where none does.
    """

    last_used: float
    serving: int = 0
    waiting: int = 0
    keep: float | None = None
    beside: int = 0
    since: float | None = None

    @property
    def in_flight(self) -> int:
        """Requests that have no answer yet."""
        return self.serving + self.waiting

    def at(self, engine: str) -> int:
        """Return how many requests are at one of the slot's engines."""
        return self.beside if is_stand_in(engine) else self.serving - self.beside

    def idle_at(self, spec: SlotSpec) -> float:
        """Return when the slot has been unused for too long, on the loop's clock."""
        return self.last_used + (spec.idle_timeout if self.keep is None else self.keep)


class Standing(StrEnum):
    """What the arbiter makes of a slot."""

    ADMITTED = "admitted"  # nothing against it
    WAITS = "waits"  # it may start when others have gone, or have loaded
    REFUSED = "refused"  # nobody who is in its way will go
    DRAINS = "drains"  # it has to make room, when the requests at its engine are answered
    EVICTED = "evicted"  # it has to make room, now


class Ground(StrEnum):
    """What slots compete for."""

    MEMORY = "memory"
    EXCLUSIVE = "exclusive"  # one of them excludes the other
    IMAGE = "image"  # the GPU: images and other models are not served together
    TURN = "turn"  # one slot of a pool loads at a time


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a slot should be up, and the rule that says so. ``ground`` is the arbiter's, unless it is admitted.

    ``barred``: no request brings it up, so none waits for it. ``beneficiary``: the slot that it makes room for.
    """

    up: bool
    why: str
    barred: bool = False
    standing: Standing = Standing.ADMITTED
    ground: Ground | None = None
    beneficiary: str = ""


@dataclass(frozen=True, slots=True)
class PoolView:
    """A memory pool as it is shared out, in bytes. ``claimed`` is by slots that hold it, ``used`` by whomever."""

    name: str
    total: int
    claimed: int
    used: int | None


@dataclass(frozen=True, slots=True)
class Placement:
    """Which slots may be up now. ``pools`` are those that are known."""

    verdicts: Mapping[str, Verdict] = field(default_factory=dict)
    pools: Mapping[str, PoolView] = field(default_factory=dict)


ALWAYS = Verdict(up=True, why="run: always")
UNDECLARED = Verdict(up=False, why="no manifest declares it")


def placement(
    desired: Desired, demand: Mapping[str, Demand], now: float, overrides: Iterable[Override] = ()
) -> dict[str, Verdict]:
    """Return the verdict for every desired slot. ``overrides`` are those in force."""
    asked = of_aspect(overrides, Aspect.RUN) | of_aspect(overrides, Aspect.HOLD)
    return {
        name: _rejected(slot) or _verdict(slot.spec, demand.get(name), now, asked.get(name))
        for name, slot in desired.slots.items()
    }


def next_deadline(desired: Desired, demand: Mapping[str, Demand], now: float) -> float | None:
    """Return when a verdict may change by time alone, or None."""
    ends = [
        use.idle_at(desired.slots[name].spec)
        for name, use in demand.items()
        if name in desired.slots and desired.slots[name].spec.run is RunPolicy.ON_DEMAND and not use.in_flight
    ]
    return min((end for end in ends if end > now), default=None)


def _rejected(slot: DesiredSlot) -> Verdict | None:
    return Verdict(up=False, why=str(slot.rejected), barred=True) if slot.is_barred else None


def _verdict(spec: SlotSpec, use: Demand | None, now: float, asked: Override | None) -> Verdict:
    if spec.suspend:
        return Verdict(up=False, why="suspended", barred=True)
    if asked and asked.aspect is Aspect.HOLD:
        return Verdict(up=True, why=HELD)
    if asked and asked.value == UP:
        return Verdict(up=True, why=f"loaded {asked.by}")
    if asked:
        return Verdict(up=False, why=f"unloaded {asked.by}", barred=True)
    if spec.run is RunPolicy.ALWAYS:
        return ALWAYS
    if spec.run is RunPolicy.NEVER:
        return Verdict(up=False, why="run: never", barred=True)
    if use and use.in_flight:
        return Verdict(up=True, why=f"on demand: {use.in_flight} requests in flight")
    if use and now < use.idle_at(spec):
        return Verdict(up=True, why=f"on demand: used {show_duration(now - use.last_used)} ago")
    return Verdict(up=False, why="on demand: no request wants it")
