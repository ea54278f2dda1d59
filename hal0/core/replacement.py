"""How far replacing a slot's engine is, as a value: made by ``replace``, read by the plan and the status."""

from __future__ import annotations

from dataclasses import dataclass

from hal0.core.engines import stand_in_of
from hal0.core.observed import SlotObservation
from hal0.core.spec import DesiredSlot, SlotSpec
from hal0.core.standin import Method, Stage
from hal0.core.steps import Reason

_GOING = frozenset({Stage.DROP, Stage.RETURN})


@dataclass(frozen=True, slots=True)
class Candidate:
    """An engine that has to answer a real request: its key, its spec, and the run that is to be asked."""

    engine: str
    spec: SlotSpec
    run: str


@dataclass(frozen=True, slots=True)
class Replacement:
    """How far replacing one slot's engine is.

    ``stand_in`` is the wanted spec as a stand-in has it, ``seen`` what there is of it now, and ``engine`` the key of
    the one that requests go to. ``method`` is how the engine is replaced, and ``why`` so. ``leaves_own``: the slot's
    own engine is not touched. ``is_there``: there is a stand-in. ``candidates`` have to prove themselves now.
    ``failure`` tells why a stand-in that is dropped did not work.
    """

    slot: str
    stand_in: DesiredSlot
    seen: SlotObservation
    stage: Stage
    engine: str
    method: Method
    why: str
    leaves_own: bool
    is_there: bool
    candidates: tuple[Candidate, ...] = ()
    failure: str = ""

    @property
    def key(self) -> str:
        """The stand-in's key."""
        return stand_in_of(self.slot)

    @property
    def goes(self) -> bool:
        """Whether the stand-in is to be removed."""
        return self.stage in _GOING

    @property
    def reason(self) -> Reason:
        """How the engine is replaced, and why so: for the plan."""
        return Reason(self.method.value, "", self.why)
