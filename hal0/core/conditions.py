"""The conditions of a slot: what is true of it, what is not, and why. docs/status.md lists every reason."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from hal0.core.backoff import Attempt
from hal0.core.facts import Known, Unknown, known
from hal0.core.observed import Activity, ProbeResult, SlotObservation
from hal0.core.override import Aspect, Deviation
from hal0.core.pools import Claim
from hal0.core.proof import Proof
from hal0.core.quantity import show_duration
from hal0.core.schedule import ALWAYS, Demand, Standing, Verdict
from hal0.core.spec import DesiredSlot, SlotSpec
from hal0.core.state import SlotState
from hal0.core.steps import Action, Change
from hal0.core.trial import Trial


class ConditionType(StrEnum):
    """What a condition is about."""

    ACCEPTED = "Accepted"
    SYNCED = "Synced"
    RUNNING = "Running"
    READY = "Ready"
    RECONCILING = "Reconciling"
    STALLED = "Stalled"


@dataclass(frozen=True, slots=True)
class Condition:
    """One statement about a slot. ``status`` is True, False, or None for unknown; ``reason`` is one CamelCase word."""

    type: ConditionType
    status: bool | None
    reason: str
    message: str = ""


@dataclass(frozen=True, slots=True)
class Signs:
    """What, besides the observation, a status is derived from. ``change`` is the plan's for this slot.

    ``fresh``: it was looked at for this status. ``verdict``: whether it should be up now. ``overrides`` are the slot's.
    ``pulling`` tells how far its model or image is, while it waits for that. ``last_lines`` are the journal's.
    ``replacing`` tells of its stand-in, and ``no_replacement`` why the last one failed; empty where there is nothing to
    tell. ``trial`` is the one that is open. ``claim`` is on ``pool``, which is empty where none is known.
    """

    change: Change | None = None
    fresh: bool = True
    verdict: Verdict = ALWAYS
    overrides: tuple[Deviation, ...] = ()
    pulling: str = ""
    attempt: Attempt | None = None
    demand: Demand | None = None
    last_lines: tuple[str, ...] = ()
    replacing: str = ""
    no_replacement: str = ""
    trial: Trial | None = None
    now: float = 0.0
    pool: str = ""
    claim: Claim | None = None

    @property
    def wanted(self) -> bool:
        """Whether the slot should be up now."""
        return self.verdict.up

    @property
    def serving(self) -> int:
        """How many requests are at the slot's engine."""
        return self.demand.serving if self.demand else 0


def conditions(
    slot: DesiredSlot, seen: SlotObservation, own: SlotObservation, signs: Signs, state: SlotState
) -> tuple[Condition, ...]:
    """Return all six conditions of a slot, in the order of ``ConditionType``.

    ``seen`` is the engine that its requests go to, and ``state`` how far that one is; ``own`` is the slot's own one.
    """
    ready = _ready(seen, signs, state)
    stalled = _stalled(slot, seen, signs, state)
    return (
        _accepted(slot, signs),
        _synced(slot, own, signs),
        _running(seen),
        ready,
        _reconciling(slot, signs, state, ready=ready, stalled=stalled),
        stalled,
    )


def _accepted(slot: DesiredSlot, signs: Signs) -> Condition:
    if slot.problems:
        message = "; ".join(str(problem) for problem in slot.problems) + "; the last good spec stays in force"
        return Condition(ConditionType.ACCEPTED, status=False, reason="InvalidManifest", message=message)
    if slot.rejected:
        told = slot.rejected.told(slot.spec_hash)
        return Condition(ConditionType.ACCEPTED, status=False, reason="Rejected", message=told)
    if signs.trial:
        return Condition(ConditionType.ACCEPTED, status=True, reason="OnTrial", message=str(signs.trial))
    return Condition(ConditionType.ACCEPTED, status=True, reason="Valid")


def _synced(slot: DesiredSlot, seen: SlotObservation, signs: Signs) -> Condition:
    kind, change = ConditionType.SYNCED, signs.change
    if slot.spec.suspend:
        return Condition(kind, status=None, reason="Suspended", message="suspended: hal0 leaves this slot as it is")
    if unknown := [fact.reason for fact in (seen.definition, seen.service) if isinstance(fact, Unknown)]:
        return Condition(kind, status=None, reason="Unknown", message="; ".join(dict.fromkeys(unknown)))
    if change is None:
        said = [*map(str, signs.overrides), _dropins(seen)]
        reason = "Overridden" if signs.overrides else "InSync"
        return Condition(kind, status=True, reason=reason, message="; ".join(filter(None, said)))
    message = "; ".join(str(reason) for reason in change.reasons)
    if change.action is Action.REFUSE:
        return Condition(kind, status=False, reason="Refused", message=message)
    return Condition(kind, status=False, reason="Drifted" if change.is_drift else "ChangePending", message=message)


def _dropins(seen: SlotObservation) -> str:
    """Name the drop-ins of others: they are left alone, and never silently."""
    service = known(seen.service)
    return (
        f"operator's drop-ins in force: {', '.join(service.operator_dropins)}"
        if service and service.operator_dropins
        else ""
    )


def _running(seen: SlotObservation) -> Condition:
    kind = ConditionType.RUNNING
    if isinstance(seen.service, Unknown):
        return Condition(kind, status=None, reason="Unknown", message=seen.service.reason)
    service = seen.service.value
    if service is None:
        return Condition(kind, status=False, reason="Absent")
    if service.activity is Activity.FAILED:
        return Condition(kind, status=False, reason="Failed", message=service.failure)
    return Condition(kind, status=service.activity is Activity.ACTIVE, reason=service.activity.value.capitalize())


def _ready(seen: SlotObservation, signs: Signs, state: SlotState) -> Condition:
    kind = ConditionType.READY
    if isinstance(seen.service, Unknown):
        return Condition(kind, status=None, reason="Unknown", message=seen.service.reason)
    failing = isinstance(seen.probe, Known) and seen.probe.value is not ProbeResult.UP
    if state.is_dispatchable:
        return Condition(kind, status=not failing, reason="ProbeFailing" if failing else "ProbeUp")
    if state is SlotState.PULLING:
        return Condition(kind, status=False, reason="Pulling", message=signs.pulling)
    if state is SlotState.WARMING:
        return Condition(kind, status=False, reason="Loading", message="the engine is loading its model")
    if word := _PLACES.get(signs.verdict.standing):
        return Condition(kind, status=False, reason=word, message=signs.verdict.why)
    if not signs.wanted:
        by_hand = any(deviation.override.aspect is Aspect.RUN for deviation in signs.overrides)
        return Condition(kind, status=False, reason="NotWanted", message=signs.verdict.why if by_hand else "")
    if wedged := seen.wedged(signs.serving):
        return Condition(kind, status=False, reason="Wedged", message=unanswered(wedged))
    word = "Error" if state is SlotState.ERROR else "NotRunning"
    return Condition(kind, status=False, reason=word, message=_tail(signs).removeprefix("; "))


_PLACES = {
    Standing.WAITS: "WaitingForRoom",
    Standing.REFUSED: "Refused",
    Standing.DRAINS: "Evicted",
    Standing.EVICTED: "Evicted",
}
"""What the arbiter's word means for a slot that is not up."""


def _reconciling(
    slot: DesiredSlot, signs: Signs, state: SlotState, *, ready: Condition, stalled: Condition
) -> Condition:
    kind = ConditionType.RECONCILING
    if slot.spec.suspend:
        return Condition(kind, status=False, reason="Suspended")
    if stalled.status:
        return Condition(kind, status=False, reason=stalled.reason)
    if signs.replacing:
        return Condition(kind, status=True, reason="Replacing", message=signs.replacing)
    if signs.verdict.standing is Standing.WAITS and signs.change is not None:
        return Condition(kind, status=True, reason="WaitingForRoom", message=signs.verdict.why)
    if signs.change is not None and not is_left_alone(signs.change):
        return Condition(kind, status=True, reason="ChangePending", message=signs.pulling)
    if signs.trial and signs.wanted:
        return Condition(kind, status=True, reason="OnTrial", message="its engine has to give a real answer")
    if signs.wanted and ready.status is not True and signs.change is None:
        return Condition(kind, status=True, reason=state.value.capitalize())
    return Condition(kind, status=False, reason="Settled")


def is_left_alone(change: Change) -> bool:
    """Return whether the drift policy says to leave a change as it is."""
    return change.action is Action.WAIT and any(reason.field == "drift policy" for reason in change.reasons)


def _stalled(slot: DesiredSlot, seen: SlotObservation, signs: Signs, state: SlotState) -> Condition:
    kind, change = ConditionType.STALLED, signs.change
    if change is not None and change.action is Action.REFUSE:
        message = "; ".join(str(reason) for reason in change.reasons)
        word, colon, _ = change.reasons[0].field.partition(":")
        word = word if colon and word.isalpha() else "Refused"
        return Condition(kind, status=True, reason=word, message=message)
    if signs.no_replacement:
        return Condition(kind, status=True, reason="ReplacementFailed", message=signs.no_replacement)
    service, wedged = known(seen.service), seen.wedged(signs.serving)
    if state is SlotState.ERROR and wedged and (change is None or is_left_alone(change)):
        return Condition(kind, status=True, reason="Wedged", message=unanswered(wedged))
    if state is SlotState.ERROR and not wedged and service and service.activity is Activity.ACTIVE:
        return Condition(kind, status=True, reason="NotReady", message=not_ready(slot.spec) + _tail(signs))
    attempt = signs.attempt
    if attempt and attempt.is_stalled and _leads_nowhere(attempt, state):
        why = attempt.error or "it does not stay up"
        return Condition(kind, status=True, reason="CrashLoop", message=f"{attempt.count} starts: {why}{_tail(signs)}")
    return Condition(kind, status=False, reason="Progressing")


def _leads_nowhere(attempt: Attempt, state: SlotState) -> bool:
    """Return whether a row of starts may be called a crash loop now: a slot that got ready may be down for good."""
    if attempt.settled:
        return state is SlotState.ERROR
    return state is not SlotState.WARMING and not state.is_dispatchable


def unanswered(proof: Proof) -> str:
    """Return what a proof says of an engine that it refutes."""
    return f"the engine does not answer a real request: {proof.error}"


def not_ready(spec: SlotSpec) -> str:
    """Return what is said of an engine that runs and does not get ready, or is so no more."""
    return f"not ready within {show_duration(spec.start_deadline)}, or its probe fails"


def _tail(signs: Signs) -> str:
    return f"; last lines: {' | '.join(signs.last_lines)}" if signs.last_lines else ""
