"""Replacing a slot's engine beside it: a stand-in loads the new spec and serves while the slot's own is replaced.

Pure and level-triggered: what to do next follows from what is seen of the two engines, whoever began it and when.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from hal0.core.engines import stand_in_of
from hal0.core.facts import Unknown, known
from hal0.core.observed import Activity, SlotObservation
from hal0.core.quantity import show_size
from hal0.core.spec import DesiredSlot, HostSpec
from hal0.core.state import SlotState


class Method(StrEnum):
    """How the engine of a slot is replaced."""

    BESIDE = "beside"
    IN_PLACE = "in place"


class Stage(StrEnum):
    """What is to be done with a slot's two engines."""

    NONE = "none"  # there is no stand-in, and none is wanted: the slot's own engine is all there is
    HOLD = "hold"  # nothing: one can't be seen, or the stand-in's next try is not due; the slot's own runs on
    LOAD = "load"  # the stand-in is started, or loads; the slot's own is not touched while it serves
    FLIP = "flip"  # requests go to the stand-in, and the slot's own is replaced
    RETURN = "return"  # requests go to the slot's own again, and the stand-in is removed
    DROP = "drop"  # the stand-in is removed: it failed, or is of a spec that nobody wants any more


class Sight(StrEnum):
    """What is seen of one engine."""

    UNKNOWN = "unknown"
    ABSENT = "absent"
    DOWN = "down"
    LOADING = "loading"
    READY = "ready"  # its health says so
    PROVED = "proved"  # it answered a real completion
    FAILED = "failed"

    @property
    def can_serve(self) -> bool:
        """Whether requests may go to it."""
        return self in {Sight.READY, Sight.PROVED}


@dataclass(frozen=True, slots=True)
class View:
    """One engine: what is seen of it, and whether it is of the wanted spec."""

    sight: Sight
    is_wanted: bool = False


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What decides how an engine is replaced.

    ``is_asked``: its manifest does not say ``replace: in-place``. ``is_alone``: there may be no second one like it, by
    ``exclusive``. ``port`` is a spare one. ``pool`` is where it takes memory, ``left`` what of it is free and ``claim``
    what the new one needs, both in bytes; None is not known.
    """

    is_asked: bool
    is_ready: bool
    has_operators_dropins: bool
    exclusive: str
    port: int | None
    ports: tuple[int, int]
    pool: str
    left: int | None
    claim: int | None


def view(slot: DesiredSlot, seen: SlotObservation, state: SlotState, proof: bool | None) -> View:
    """Return how an engine looks. ``slot`` is what is wanted of it, ``proof`` whether it did what was asked, if it was.

    ``state`` is derived as a slot's is, with the same patience: one late answer takes no engine out of service.
    """
    if any(isinstance(fact, Unknown) for fact in (seen.definition, seen.service, seen.instance)):
        return View(Sight.UNKNOWN)
    instance, mark = known(seen.instance), seen.mark
    found = instance.spec_hash if instance and instance.running else mark.spec_hash if mark else ""
    return View(_sight(seen, state, proof), found == slot.spec_hash)


def is_absent(seen: SlotObservation) -> bool:
    """Return whether nothing is left of an engine: no definition, no container, and no unit that does anything."""
    if any(isinstance(fact, Unknown) for fact in (seen.definition, seen.service, seen.instance)):
        return False
    service = known(seen.service)
    is_idle = service is None or service.activity is Activity.INACTIVE
    return is_idle and not (known(seen.definition) or known(seen.instance))


def stage(own: View, beside: View, method: Method, *, may_try: bool) -> Stage:
    """Return what is to be done with a slot's own engine and its stand-in.

    ``method`` is asked only where there is no stand-in yet: memory that moves later takes none back. ``may_try``: no
    try of the wanted spec beside the slot failed a moment ago.
    """
    if Sight.UNKNOWN in {own.sight, beside.sight}:
        return Stage.HOLD
    if beside.sight is Sight.ABSENT:
        return _without(own, method, may_try=may_try)
    if _is_done(own):
        return Stage.RETURN
    if not beside.is_wanted:
        return Stage.FLIP if _is_better(beside, own) else Stage.DROP
    if beside.sight is Sight.FAILED:
        return Stage.DROP
    return Stage.FLIP if beside.sight is Sight.PROVED else Stage.LOAD


def leaves_own(now: Stage, own: View) -> bool:
    """Return whether the slot's own engine is left as it is at a stage: while it serves, and no stand-in does."""
    return now is Stage.HOLD or (now in {Stage.LOAD, Stage.DROP} and own.sight.can_serve)


def serving_engine(slot: str, own: View, beside: View) -> str:
    """Return the key of the engine that a slot's requests go to: one that can serve, where there is one."""
    return stand_in_of(slot) if _is_better(beside, own) else slot


def method(around: Circumstances) -> tuple[Method, str]:
    """Return how a slot's engine is to be replaced, and why."""
    if why := _obstacle(around):
        return Method.IN_PLACE, why
    return Method.BESIDE, f"{_pool(around)}, it claims {show_size(around.claim or 0)}"


def spare_port(host: HostSpec, taken: Iterable[int], had: int | None) -> int | None:
    """Return a port for a stand-in: the one it ``had``, or the host's highest that nobody has."""
    held = set(taken)
    if had is not None and had not in held:
        return had
    first, last = host.ports
    return next((port for port in range(last, first - 1, -1) if port not in held), None)


def _sight(seen: SlotObservation, state: SlotState, proof: bool | None) -> Sight:
    if is_absent(seen):
        return Sight.ABSENT
    if state.is_dispatchable:
        return Sight.READY if proof is None else Sight.PROVED if proof else Sight.FAILED
    if state is SlotState.ERROR:
        return Sight.FAILED
    return Sight.LOADING if state.is_loading else Sight.DOWN


def _without(own: View, way: Method, *, may_try: bool) -> Stage:
    """Return what is to be done where there is no stand-in: only an engine that serves is worth one."""
    if own.is_wanted or not own.sight.can_serve or way is Method.IN_PLACE:
        return Stage.NONE
    return Stage.LOAD if may_try else Stage.HOLD


def _is_done(own: View) -> bool:
    return own.is_wanted and own.sight is Sight.PROVED


def _is_better(beside: View, own: View) -> bool:
    """Return whether requests are better off at the stand-in than at the slot's own engine.

    Of two that are of other specs than the wanted one, the slot's own is the one that stays.
    """
    if beside.sight is Sight.PROVED:
        is_old_up = own.sight.can_serve and not own.is_wanted
        return not _is_done(own) and (beside.is_wanted or not is_old_up)
    return beside.sight.can_serve and not own.sight.can_serve


def _obstacle(around: Circumstances) -> str:
    """Return what keeps a second engine from running beside the first; empty where nothing does."""
    obstacles = (
        (not around.is_asked, "replace: in-place"),
        (not around.is_ready, "it is not ready now"),
        (around.has_operators_dropins, "drop-ins of yours would not hold for a second unit"),
        (bool(around.exclusive), around.exclusive),
        (around.port is None, "no spare port in {}-{}".format(*around.ports)),
        (around.left is None or around.claim is None, f"what of {around.pool or 'memory'} it would take is not known"),
        ((around.claim or 0) > (around.left or 0), f"{_pool(around)}, and it claims {show_size(around.claim)}"),
    )
    return next((why for stands, why in obstacles if stands), "")


def _pool(around: Circumstances) -> str:
    return f"pool {around.pool} has {show_size(around.left)} left"
