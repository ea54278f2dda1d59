"""The status of a slot: derived from what is observed, by one pure function. docs/status.md is its contract."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from hal0.core.conditions import Condition, ConditionType, Signs, conditions
from hal0.core.differences import behind_lock
from hal0.core.documents import ManifestError
from hal0.core.facts import known
from hal0.core.observed import Instance, Service, SlotObservation
from hal0.core.override import Deviation
from hal0.core.phase import Failing, Phase
from hal0.core.pools import Claim
from hal0.core.schedule import ALWAYS, PoolView, Verdict
from hal0.core.spec import DesiredSlot, HostSpec, SlotSpec, UpstreamSpec
from hal0.core.state import SlotState
from hal0.core.steps import Plan
from hal0.core.trial import Rejection, Trial


@dataclass(frozen=True, slots=True)
class Engine:
    """One engine of a slot: its key, the spec that it was started from, what is seen of it and how far it is."""

    key: str
    spec: SlotSpec
    seen: SlotObservation
    phase: Phase


@dataclass(frozen=True, slots=True)
class SlotStatus:
    """Everything a view says of a slot.

    ``since`` is on the loop's clock, ``failing`` is None unless the last probe failed, ``run`` is the invocation last
    seen, and ``was_ready`` whether it has been ready. ``spec`` is what the manifests want; ``engine`` is the key of the
    engine that requests go to, and ``serves`` its spec. ``verdict`` says whether it should be up, ``overrides`` what a
    person asked of it. ``trial`` is the one that is open, ``rejected`` what the manifests want and failed its own.
    ``claim`` is what it takes of ``pool``, which is empty where none is known. ``behind_lock`` tells what runs that is
    not what the lock has.
    """

    name: str
    state: SlotState
    since: float
    conditions: tuple[Condition, ...]
    spec: SlotSpec
    serves: SlotSpec
    engine: str
    spec_hash: str = ""
    generation: int = 0
    service: Service | None = None
    instance: Instance | None = None
    drift: tuple[str, ...] = ()
    failing: Failing | None = None
    run: str = ""
    was_ready: bool = False
    verdict: Verdict = ALWAYS
    overrides: tuple[Deviation, ...] = ()
    pool: str = ""
    claim: Claim | None = None
    trial: Trial | None = None
    rejected: Rejection | None = None
    behind_lock: tuple[str, ...] = ()

    @property
    def may_answer(self) -> bool:
        """Whether a request may be sent to it, now or once it has come up."""
        return self.state.is_dispatchable or not self.verdict.barred

    def condition(self, kind: ConditionType) -> Condition:
        """Return one of the conditions; all of them are always there."""
        return next(condition for condition in self.conditions if condition.type is kind)

    @property
    def is_ready(self) -> bool:
        """Whether requests may be sent."""
        return self.condition(ConditionType.READY).status is True

    @property
    def is_settled(self) -> bool:
        """Whether waiting longer is of no use: as declared and ready (or meant to be down), or in need of a person."""
        if self.is_on_trial:
            return False
        if self.condition(ConditionType.STALLED).status or self.spec.suspend:
            return True
        return self.condition(ConditionType.RECONCILING).status is False

    @property
    def is_on_trial(self) -> bool:
        """Whether its spec is being tried: it ends in a good spec or a rejected one."""
        return self.trial is not None and self.verdict.up

    @property
    def rejection(self) -> str:
        """What became of the spec that the manifests want, where that was rejected; else empty."""
        return self.rejected.told(self.spec_hash) if self.rejected else ""

    @property
    def is_kept_down(self) -> bool:
        """Whether it is down as it is meant to be, whatever requests come: how its last run ended is of no matter."""
        return self.verdict.barred and self.condition(ConditionType.RUNNING).status is False

    @property
    def failure(self) -> str:
        """What is wrong with it, where waiting longer may be of no use; else empty."""
        stalled = self.condition(ConditionType.STALLED)
        is_broken = self.state is SlotState.ERROR and not (self.is_ready or self.is_kept_down)
        if stalled.status or is_broken:
            return stalled.message or self.message or "the slot is in error"
        return ""

    @property
    def message(self) -> str:
        """The most telling sentence about the slot: what is wrong first."""
        if self.state is SlotState.ERROR and not self.condition(ConditionType.STALLED).status:
            said = [self.condition(kind).message for kind in (ConditionType.RUNNING, ConditionType.READY)]
            if any(said):
                return "; ".join(filter(None, said))
        if self.state is SlotState.PULLING and not self.condition(ConditionType.STALLED).status:
            return self.condition(ConditionType.READY).message
        order = (ConditionType.STALLED, ConditionType.ACCEPTED, ConditionType.SYNCED, ConditionType.READY)
        for kind in order:
            condition = self.condition(kind)
            wrong = condition.status if kind is ConditionType.STALLED else condition.status is not True
            if wrong and condition.message:
                return condition.message
        return str(self.trial) if self.is_on_trial else ""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The immutable picture that every view reads. ``at`` is on the loop's clock, ``wall`` seconds since the epoch.

    ``phases`` tell how far every engine is, by its key: the next picture follows on them. ``stale`` are the pins of the
    lock that are not in force.
    """

    slots: Mapping[str, SlotStatus] = field(default_factory=dict)
    plan: Plan = field(default_factory=Plan)
    problems: tuple[ManifestError, ...] = ()
    models: Mapping[str, str] = field(default_factory=dict)
    upstreams: Mapping[str, UpstreamSpec] = field(default_factory=dict)
    phases: Mapping[str, Phase] = field(default_factory=dict)
    host: HostSpec = field(default_factory=HostSpec)
    pools: Mapping[str, PoolView] = field(default_factory=dict)
    generation: int = 0
    revision: str = ""
    runtime: str = ""
    root: str = ""
    stale: tuple[str, ...] = ()
    at: float = 0.0
    wall: float = 0.0

    @property
    def is_ready(self) -> bool:
        """Whether at least one look at the host went into this picture."""
        return self.at > 0


def told(slot: DesiredSlot, engine: Engine, own: SlotObservation, signs: Signs) -> SlotStatus:
    """Return the status of a slot whose requests go to ``engine``; ``own`` is what is seen of the slot's own one."""
    now = engine.phase
    return SlotStatus(
        name=slot.spec.name,
        state=now.state,
        since=now.since,
        conditions=conditions(slot, engine.seen, own, signs, now.state),
        spec=slot.spec,
        serves=engine.spec,
        engine=engine.key,
        spec_hash=slot.spec_hash,
        generation=own.mark.generation if own.mark else 0,
        service=known(engine.seen.service),
        instance=known(engine.seen.instance),
        drift=tuple(str(reason) for reason in signs.change.reasons if reason.drift) if signs.change else (),
        failing=now.failing,
        run=now.run,
        was_ready=now.was_ready,
        verdict=signs.verdict,
        overrides=signs.overrides,
        pool=signs.pool,
        claim=signs.claim,
        trial=signs.trial,
        rejected=slot.rejected,
        behind_lock=_behind(slot, engine),
    )


def _behind(slot: DesiredSlot, engine: Engine) -> tuple[str, ...]:
    """Return what of a running engine is not what the lock has, also where its newer spec was rejected."""
    instance = known(engine.seen.instance)
    if instance is None or not instance.running:
        return ()
    wanted = slot.as_declared if slot.rejected else slot
    return tuple(str(reason) for reason in behind_lock(engine.spec, wanted.spec))
