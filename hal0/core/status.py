"""The status of a slot: derived from what is observed, by one pure function. docs/status.md is its contract."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from hal0.core.conditions import Condition, ConditionType, Signs, conditions
from hal0.core.documents import ManifestError
from hal0.core.engines import served_spec
from hal0.core.facts import Known, Unknown, known
from hal0.core.observed import Activity, Instance, ProbeResult, Service, SlotObservation
from hal0.core.override import Deviation
from hal0.core.pools import Claim
from hal0.core.schedule import ALWAYS, PoolView, Verdict
from hal0.core.spec import DesiredSlot, HostSpec, SlotSpec, UpstreamSpec
from hal0.core.state import SlotState
from hal0.core.steps import Plan

PROBE_PATIENCE = 10.0
"""Seconds for which probes in a row must fail before a slot that was ready is called an error."""
LATE_PATIENCE = 60.0
"""The same where one of them got no answer in time: an engine that is starved, say while another loads, still works."""


@dataclass(frozen=True, slots=True)
class Failing:
    """Looks in a row at which the probe of a slot failed: the ``first`` and the ``last``, on the loop's clock.

    ``late``: at one of them there was no answer in time.
    """

    first: float
    last: float
    late: bool = False

    @property
    def is_lasting(self) -> bool:
        """Whether patience is over. Only looks count, so one look proves nothing, however long ago it was."""
        return self.last - self.first >= (LATE_PATIENCE if self.late else PROBE_PATIENCE)


@dataclass(frozen=True, slots=True)
class SlotStatus:
    """Everything a view says of a slot.

    ``since`` is on the loop's clock, ``failing`` is None unless the last probe failed, ``run`` is the invocation last
    seen, and ``was_ready`` whether it has been ready. ``spec`` is what the manifests want; ``engine`` is the key of the
    engine that requests go to, and ``serves`` its spec. ``verdict`` says whether it should be up, ``overrides`` what a
    person asked of it. ``claim`` is what it takes of ``pool``, which is empty where none is known.
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
        if self.condition(ConditionType.STALLED).status or self.spec.suspend:
            return True
        return self.condition(ConditionType.RECONCILING).status is False

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
        order = (ConditionType.STALLED, ConditionType.ACCEPTED, ConditionType.SYNCED, ConditionType.READY)
        for kind in order:
            condition = self.condition(kind)
            wrong = condition.status if kind is ConditionType.STALLED else condition.status is not True
            if wrong and condition.message:
                return condition.message
        return ""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The immutable picture that every view reads. ``at`` is on the loop's clock, ``wall`` seconds since the epoch."""

    slots: Mapping[str, SlotStatus] = field(default_factory=dict)
    plan: Plan = field(default_factory=Plan)
    problems: tuple[ManifestError, ...] = ()
    models: Mapping[str, str] = field(default_factory=dict)
    upstreams: Mapping[str, UpstreamSpec] = field(default_factory=dict)
    host: HostSpec = field(default_factory=HostSpec)
    pools: Mapping[str, PoolView] = field(default_factory=dict)
    generation: int = 0
    revision: str = ""
    runtime: str = ""
    root: str = ""
    at: float = 0.0
    wall: float = 0.0

    @property
    def is_ready(self) -> bool:
        """Whether at least one look at the host went into this picture."""
        return self.at > 0


def status(slot: DesiredSlot, seen: SlotObservation, signs: Signs, before: SlotStatus | None) -> SlotStatus:
    """Return the status of a slot that follows on ``before``."""
    failing = _failing(seen, signs, before)
    state = _state(slot.spec, seen, signs, before, failing)
    since = before.since if before and before.state is state else signs.now
    run = _run(seen, before)
    return SlotStatus(
        name=slot.spec.name,
        state=state,
        since=since,
        conditions=conditions(slot, seen, signs, state),
        spec=slot.spec,
        serves=served_spec(slot, seen, signs.applied),
        engine=slot.spec.name,
        spec_hash=slot.spec_hash,
        generation=seen.mark.generation if seen.mark else 0,
        service=known(seen.service),
        instance=known(seen.instance),
        drift=tuple(str(reason) for reason in signs.change.reasons if reason.drift) if signs.change else (),
        failing=failing,
        run=run,
        was_ready=state.is_dispatchable or (before is not None and before.was_ready and before.run == run),
        verdict=signs.verdict,
        overrides=signs.overrides,
        pool=signs.pool,
        claim=signs.claim,
    )


def _failing(seen: SlotObservation, signs: Signs, before: SlotStatus | None) -> Failing | None:
    earlier = before.failing if before else None
    if not signs.fresh:
        return earlier
    if isinstance(seen.probe, Unknown) or seen.probe.value is ProbeResult.UP:
        return None  # a look that could not tell ends the row too: nobody knows how the engine was in between
    late = seen.probe.value is ProbeResult.LATE
    if _answered(seen, before):
        return Failing(signs.now, signs.now, late=True)  # a new row, with all the patience that there is
    if earlier is None:
        return Failing(signs.now, signs.now, late)
    return replace(earlier, last=signs.now, late=earlier.late or late)


def _answered(seen: SlotObservation, before: SlotStatus | None) -> bool:
    """Return whether the engine gave a real answer since its probe began to fail: it is starved, and works."""
    proof = known(seen.proof)
    if proof is None or proof.is_refuted or before is None or before.failing is None:
        return False
    return proof.invocation == _run(seen, before) and proof.at > before.failing.first


def _state(
    spec: SlotSpec, seen: SlotObservation, signs: Signs, before: SlotStatus | None, failing: Failing | None
) -> SlotState:
    if isinstance(seen.service, Unknown):
        return before.state if before else SlotState.OFFLINE
    activity = seen.service.value.activity if seen.service.value else Activity.INACTIVE
    match activity:
        case Activity.ACTIVE:
            return _state_of_active(spec, seen, signs, before, failing)
        case Activity.ACTIVATING | Activity.RESTARTING:
            return SlotState.STARTING
        case Activity.DEACTIVATING:
            return SlotState.UNLOADING
        case Activity.FAILED:
            return SlotState.PULLING if signs.pulling else SlotState.ERROR
    if signs.pulling:
        return SlotState.PULLING
    failed = signs.verdict.up and signs.attempt is not None and bool(signs.attempt.error)
    return SlotState.ERROR if failed else SlotState.OFFLINE


def _state_of_active(
    spec: SlotSpec, seen: SlotObservation, signs: Signs, before: SlotStatus | None, failing: Failing | None
) -> SlotState:
    if seen.wedged(signs.serving):
        return SlotState.ERROR
    if isinstance(seen.probe, Known) and seen.probe.value is ProbeResult.UP:
        return _state_of_ready(spec, signs)
    if before is None:
        return SlotState.WARMING
    is_same_run = _run(seen, before) == before.run
    is_proved = before.was_ready and _answered(seen, before)
    if is_same_run and (before.state.is_dispatchable or is_proved):
        return SlotState.ERROR if failing and failing.is_lasting else _state_of_ready(spec, signs)
    if before.state is SlotState.ERROR and is_same_run:
        return SlotState.ERROR
    is_late = before.state is SlotState.WARMING and signs.now - before.since > spec.start_deadline
    return SlotState.ERROR if is_late else SlotState.WARMING


def _run(seen: SlotObservation, before: SlotStatus | None) -> str:
    if isinstance(seen.service, Unknown):
        return before.run if before else ""
    return seen.service.value.invocation if seen.service.value else ""


def _state_of_ready(spec: SlotSpec, signs: Signs) -> SlotState:
    use = signs.demand
    if use and use.serving:
        return SlotState.SERVING
    if use and not use.waiting and signs.now >= use.idle_at(spec):
        return SlotState.IDLE
    return SlotState.READY
