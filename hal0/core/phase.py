"""How far an engine is in its life: derived from what is observed, and from how far it was at the last look."""

from __future__ import annotations

from dataclasses import dataclass, replace

from hal0.core.conditions import Signs
from hal0.core.facts import Known, Unknown, known
from hal0.core.observed import Activity, ProbeResult, SlotObservation
from hal0.core.spec import SlotSpec
from hal0.core.state import SlotState

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
class Phase:
    """How far one engine is.

    ``since`` is when its state began, on the loop's clock, ``failing`` is None unless the last probe failed, ``run`` is
    the invocation last seen, and ``was_ready`` whether that one has been ready.
    """

    state: SlotState
    since: float
    failing: Failing | None = None
    run: str = ""
    was_ready: bool = False


def phase(spec: SlotSpec, seen: SlotObservation, signs: Signs, before: Phase | None) -> Phase:
    """Return how far an engine of ``spec`` is, where it was ``before`` at the last look."""
    failing = _failing(seen, signs, before)
    state = _state(spec, seen, signs, before, failing)
    run = _run(seen, before)
    return Phase(
        state=state,
        since=before.since if before and before.state is state else signs.now,
        failing=failing,
        run=run,
        was_ready=state.is_dispatchable or (before is not None and before.was_ready and before.run == run),
    )


def _failing(seen: SlotObservation, signs: Signs, before: Phase | None) -> Failing | None:
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


def _answered(seen: SlotObservation, before: Phase | None) -> bool:
    """Return whether the engine gave a real answer since its probe began to fail: it is starved, and works."""
    proof = known(seen.proof)
    if proof is None or proof.is_refuted or before is None or before.failing is None:
        return False
    return proof.invocation == _run(seen, before) and proof.at > before.failing.first


def _state(
    spec: SlotSpec, seen: SlotObservation, signs: Signs, before: Phase | None, failing: Failing | None
) -> SlotState:
    match seen.activity:
        case None:
            return before.state if before else SlotState.OFFLINE
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
    spec: SlotSpec, seen: SlotObservation, signs: Signs, before: Phase | None, failing: Failing | None
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


def _run(seen: SlotObservation, before: Phase | None) -> str:
    if isinstance(seen.service, Unknown):
        return before.run if before else ""
    return seen.run


def _state_of_ready(spec: SlotSpec, signs: Signs) -> SlotState:
    use = signs.demand
    if use and use.serving:
        return SlotState.SERVING
    if use and not use.waiting and signs.now >= use.idle_at(spec):
        return SlotState.IDLE
    return SlotState.READY
