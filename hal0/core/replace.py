"""Which slots' engines are being replaced, how, and how far that is: made anew in each pass from what is seen.

``standin`` decides; this module gathers what it decides on. A slot is not in here unless it has a stand-in, or is worth
one: it serves, and something else is declared now.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

from hal0.core.backoff import Attempt, not_before
from hal0.core.conditions import Signs, not_ready, unanswered
from hal0.core.engines import is_stand_in, slot_of, stand_in_of
from hal0.core.exclusion import is_npu_llm
from hal0.core.facts import Known, known
from hal0.core.fields import parse_listen
from hal0.core.observed import Activity, SlotObservation
from hal0.core.phase import Phase, phase
from hal0.core.pools import pool_of
from hal0.core.proof import ask_of
from hal0.core.replacement import Candidate, Replacement
from hal0.core.room import left
from hal0.core.schedule import UNDECLARED
from hal0.core.schema import Replace
from hal0.core.spec import DesiredSlot, SlotSpec
from hal0.core.standin import (
    Circumstances,
    Method,
    Sight,
    Stage,
    View,
    is_absent,
    leaves_own,
    method,
    serving_engine,
    spare_port,
    stage,
    view,
)
from hal0.core.state import SlotState
from hal0.core.tenants import Tenant, tenants
from hal0.core.world import World

_ABSENT: SlotObservation = SlotObservation(Known(None), Known(None), Known(None), Known(None))


def engine_signs(world: World, engine: str) -> Signs:
    """Return what, besides the observation, tells how far an engine is."""
    name = slot_of(engine)
    return Signs(
        fresh=world.observed.fresh is None or engine in world.observed.fresh,
        verdict=world.wants.get(name, UNDECLARED),
        pulling=world.pulling.get(engine, ""),
        attempt=world.attempts.get(engine),
        demand=world.demand.get(name),
        now=world.now,
    )


def phases(world: World, before: Mapping[str, Phase]) -> dict[str, Phase]:
    """Return how far every engine is, by its key, where it was ``before`` at the last look."""
    specs = {**world.stand_ins, **world.owned, **{name: slot.spec for name, slot in world.desired.slots.items()}}
    for engine in world.observed.slots:
        if is_stand_in(engine) and (spec := specs.get(slot_of(engine))):
            specs.setdefault(engine, spec)
    return {
        engine: phase(spec, world.observed.slot(engine), engine_signs(world, engine), before.get(engine))
        for engine, spec in specs.items()
    }


def replacements(world: World, render: Callable[[SlotSpec], DesiredSlot]) -> dict[str, Replacement]:
    """Return the replacements, by slot. ``world.phases`` are of this look; ``render`` makes a spec's definition."""
    round_ = _Round(world, render, _taken(world))
    # Whoever a batch works on keeps the port that it was given: those that come later look for another.
    for name in sorted(world.desired.slots, key=lambda name: (stand_in_of(name) not in world.busy, name)):
        if (pair := round_.pair(world.desired.slots[name])) and (found := round_.replacement(pair)):
            round_.found[name] = found
    return round_.found


def _taken(world: World) -> set[int]:
    specs = (*world.owned.values(), *(slot.spec for slot in world.desired.slots.values()))
    return {parse_listen(world.desired.host.listen)[1], *(spec.port for spec in specs)}


@dataclass(frozen=True, slots=True)
class _Pair:
    """The two engines of a slot: what is wanted of each, what is seen of it, and how it looks. ``port`` is a spare one.

    ``is_traced``: something of a stand-in is there or remembered, or a batch makes it just now.
    """

    slot: DesiredSlot
    own_seen: SlotObservation
    own: View
    stand_in: DesiredSlot
    seen: SlotObservation
    beside: View
    port: int | None
    is_traced: bool

    @property
    def is_worth_one(self) -> bool:
        """Whether the slot's own engine serves, and is of another spec than the wanted one."""
        return self.own.sight.can_serve and not self.own.is_wanted


@dataclass
class _Round:
    """The replacements of one pass in the making: ports and memory that one is to have are no other's."""

    world: World
    render: Callable[[SlotSpec], DesiredSlot]
    taken: set[int]
    found: dict[str, Replacement] = field(default_factory=dict)
    promised: Counter[str] = field(default_factory=Counter)

    @cached_property
    def tenants(self) -> Mapping[str, Tenant]:
        """What every slot holds and wants of its pool."""
        return tenants(self.world, self.world.wants)

    def pair(self, slot: DesiredSlot) -> _Pair | None:
        """Return the engines of a slot that has a stand-in, or may be worth one."""
        world, key = self.world, stand_in_of(slot.spec.name)
        own_seen, seen = world.observed.slot(slot.spec.name), world.observed.slots.get(key, _ABSENT)
        if key in world.stand_ins:
            seen = world.observed.slot(key)  # one that is remembered is absent only where somebody looked
        is_traced = not is_absent(seen) or key in world.stand_ins or key in world.busy
        if not (is_traced or (_is_new(slot, own_seen) and not self._is_left_alone(slot))):
            return None
        # The image and the model are those that the slot is to have: they are looked up once.
        seen = replace(seen, image=own_seen.image, model=own_seen.model)
        port = self._port(key)
        stand_in = self.render(replace(slot.spec, port=port or 0, unit=key))
        own, beside = self._view(slot, own_seen), self._view(stand_in, seen)
        if slot.spec.name in world.busy and beside.sight.can_serve:
            own = View(Sight.LOADING, own.is_wanted)  # it goes down just now, whatever was seen of it last
        return _Pair(slot, own_seen, own, stand_in, seen, beside, port, is_traced)

    def replacement(self, pair: _Pair) -> Replacement | None:
        """Return how far the replacement is; None where none is under way and none is due."""
        way, why = self._method(pair)
        now = self._stage(pair, way)
        if not pair.is_traced and (now is Stage.NONE or way is Method.IN_PLACE) and not self._is_in_place(pair, way):
            return None
        if pair.is_traced or now is Stage.LOAD:
            self._book(pair, now)
        is_made = pair.beside.sight is not Sight.ABSENT
        return Replacement(
            slot=pair.slot.spec.name,
            stand_in=pair.stand_in,
            seen=pair.seen,
            stage=now,
            engine=serving_engine(pair.slot.spec.name, pair.own, pair.beside),
            method=Method.IN_PLACE if now is Stage.NONE else Method.BESIDE,
            why=_progress(now, pair) if is_made or (way is Method.IN_PLACE and now is not Stage.NONE) else why,
            leaves_own=self._is_wanted(pair) and leaves_own(now, pair.own),
            is_there=is_made,
            candidates=tuple(self._candidates(pair)) if is_made else (),
            failure=self._failure(pair) if now is Stage.DROP and _has_failed(pair.beside) else "",
        )

    def _is_left_alone(self, slot: DesiredSlot) -> bool:
        return slot.spec.suspend or slot.spec.name in self.world.on_hold

    def _is_wanted(self, pair: _Pair) -> bool:
        return self.world.wants[pair.slot.spec.name].up

    def _is_in_place(self, pair: _Pair, way: Method) -> bool:
        return way is Method.IN_PLACE and pair.is_worth_one and self._is_wanted(pair)

    def _book(self, pair: _Pair, now: Stage) -> None:
        """Take the port, and the memory that a stand-in will take which is not there yet."""
        self.taken.add(pair.stand_in.spec.port)
        if now is Stage.LOAD and pair.beside.sight is Sight.ABSENT:
            self.promised[pool_of(pair.slot.spec, self.world.pools)] += self._claim(pair) or 0

    def _claim(self, pair: _Pair) -> int | None:
        claim = self.world.claims.get(pair.slot.spec.name)
        return claim.bytes if claim else None

    def _view(self, slot: DesiredSlot, seen: SlotObservation) -> View:
        found = self.world.phases.get(slot.spec.key)
        return view(slot, seen, found.state if found else SlotState.OFFLINE, _proof(slot.spec, seen))

    def _stage(self, pair: _Pair, way: Method) -> Stage:
        if self._is_left_alone(pair.slot):
            return Stage.HOLD
        is_nowhere, beside = pair.beside.sight is Sight.ABSENT, pair.beside
        is_busy = stand_in_of(pair.slot.spec.name) in self.world.busy
        if not self._is_wanted(pair):
            return Stage.DROP if pair.is_traced else Stage.NONE
        if is_nowhere and is_busy and not pair.own.is_wanted:
            beside = View(Sight.LOADING, is_wanted=True)  # a batch makes it just now, and nobody has looked since
        now = stage(pair.own, beside, way, may_try=failed_try(self.world, pair.slot) is None)
        is_left_over = pair.is_traced and is_nowhere and not is_busy and now is not Stage.LOAD
        return Stage.DROP if is_left_over else now

    def _method(self, pair: _Pair) -> tuple[Method, str]:
        spec, service = pair.slot.spec, known(pair.own_seen.service)
        pool = pool_of(spec, self.world.pools)
        room = left(self.world.pools.get(pool), self.tenants, spec.name)
        return method(
            Circumstances(
                is_asked=spec.replace is Replace.AUTO,
                is_ready=pair.own.sight.can_serve or pair.own.sight is Sight.UNKNOWN,
                has_operators_dropins=bool(service and service.operator_dropins),
                exclusive=_exclusive(spec),
                port=pair.port,
                ports=self.world.desired.host.ports,
                pool=pool,
                left=None if room is None else max(0, room - self.promised[pool]),
                claim=self._claim(pair),
            )
        )

    def _port(self, key: str) -> int | None:
        others = {spec.port for engine, spec in self.world.stand_ins.items() if engine != key}
        had = self.world.stand_ins.get(key)
        return spare_port(self.world.desired.host, self.taken | others, had.port if had else None)

    def _candidates(self, pair: _Pair) -> Iterator[Candidate]:
        for engine, looks in ((pair.slot.spec, pair.own), (pair.stand_in.spec, pair.beside)):
            if looks == View(Sight.READY, is_wanted=True):
                yield Candidate(engine.key, engine, self.world.phases[engine.key].run)

    def _failure(self, pair: _Pair) -> str:
        attempt = self.world.attempts.get(pair.stand_in.spec.key)
        service, proof = known(pair.seen.service), known(pair.seen.proof)
        if service and service.activity is Activity.FAILED:
            return service.failure
        if service and proof and proof.invocation == service.invocation and proof.is_refuted:
            return unanswered(proof)
        if service and service.activity is Activity.ACTIVE:
            return not_ready(pair.slot.spec)
        return attempt.error if attempt and attempt.error else "it did not get ready"


def held_try(world: World, found: Replacement) -> Attempt | None:
    """Return the failed try that a replacement waits after; None where it does not wait for another one."""
    return failed_try(world, world.desired.slots[found.slot]) if found.stage in {Stage.HOLD, Stage.DROP} else None


def failed_try(world: World, slot: DesiredSlot) -> Attempt | None:
    """Return the last try beside a slot of what is wanted now, while it is too fresh for another one."""
    key = stand_in_of(slot.spec.name)
    attempt = world.attempts.get(key)
    if attempt is None or attempt.spec_hash != slot.spec_hash:
        return None
    return attempt if world.now < not_before(key, attempt) else None


def _proof(spec: SlotSpec, seen: SlotObservation) -> bool | None:
    """Return whether the run that is seen answered a real request; None where it was not asked one."""
    if ask_of(spec) is None:
        return True  # there is no cheap one: its probe has to do
    proof, service = known(seen.proof), known(seen.service)
    if proof is None or service is None or proof.invocation != service.invocation:
        return None
    return not proof.is_refuted


def _is_new(slot: DesiredSlot, seen: SlotObservation) -> bool:
    """Return whether a slot's definition is of another spec than what is wanted: an edit or an override, no drift."""
    return seen.mark is not None and seen.mark.spec_hash != slot.spec_hash


def _has_failed(beside: View) -> bool:
    return beside == View(Sight.FAILED, is_wanted=True)


def _exclusive(spec: SlotSpec) -> str:
    return "one llm at a time on the npu" if is_npu_llm(spec) else ""


def _progress(now: Stage, pair: _Pair) -> str:
    """Return how far a stand-in is that is there."""
    match now:
        case Stage.LOAD:
            return "its stand-in is asked a real request" if pair.beside.sight is Sight.READY else "its stand-in loads"
        case Stage.FLIP:
            return f"its stand-in serves on port {pair.stand_in.spec.port}"
        case Stage.RETURN:
            return "its own engine serves again"
        case Stage.DROP:
            return "its stand-in failed" if _has_failed(pair.beside) else "its stand-in is of no use any more"
    return "its stand-in is left as it is"
