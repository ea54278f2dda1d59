"""Why a slot is as it is: the rule behind each act, what hal0 wants of it now, and what it waits for."""

from __future__ import annotations

from collections.abc import Collection
from enum import StrEnum

from hal0.core.backoff import Attempt, not_before
from hal0.core.override import Aspect
from hal0.core.reasons import RESTART
from hal0.core.schedule import Standing, Verdict
from hal0.core.spec import DesiredSlot
from hal0.core.status import SlotStatus
from hal0.core.steps import Change
from hal0.core.wire import VERSION, Json, reason_json, verdict_json


class Rule(StrEnum):
    """What made hal0 touch a slot."""

    MANIFESTS = "manifests"  # another definition is declared, or none
    DRIFT = "drift"  # it was changed outside hal0
    FAILURE = "failure"  # its service failed
    ROOM = "room"  # another slot has its place: memory, or one excludes the other
    DEMAND = "demand"  # a request wants it, or none does any more
    RUN = "run"  # its run policy
    HAND = "hand"  # a person asked for it, or what was asked for is over
    TRIAL = "trial"  # a spec did not prove itself, and the last good one is to be back


def rule_of(change: Change, verdict: Verdict, asked: Collection[Aspect] = (), slot: DesiredSlot | None = None) -> Rule:
    """Return what a change is for. Of several causes the one that people act on comes first.

    ``verdict`` is the slot's. ``asked`` is what of it is overridden by hand, or was until just now. ``slot`` is as
    desired.
    """
    fields = {reason.field for reason in change.reasons}
    if change.is_drift:
        return Rule.DRIFT
    if Aspect.RESTART in asked and RESTART in fields:
        return Rule.HAND
    if slot and slot.rejected and (slot.is_barred or change.before != change.after):
        return Rule.TRIAL
    if change.before != change.after:
        return Rule.HAND if Aspect.MODEL in asked and Aspect.MODEL in fields else Rule.MANIFESTS
    if verdict.standing is Standing.EVICTED:
        return Rule.ROOM
    told = "; ".join(str(reason) for reason in change.reasons)
    if "on demand: " in told:
        return Rule.DEMAND
    if any(reason.before.startswith("failed") for reason in change.reasons):
        return Rule.FAILURE
    return Rule.HAND if Aspect.RUN in asked else Rule.RUN


def why_json(
    slot: SlotStatus,
    change: Change | None,
    attempt: Attempt | None,
    *,
    now: float,
    acts: list[Json],
    refusals: list[Json],
) -> Json:
    """Return all that is known of why a slot is as it is; ``now`` is on the loop's clock, lists are newest first.

    ``change`` is what the plan has for it, ``attempt`` its starts since it was last ready.
    """
    return {
        "version": VERSION,
        "name": slot.name,
        "state": slot.state.value,
        "since_seconds": round(now - slot.since, 1),
        "message": slot.message,
        "verdict": verdict_json(slot.verdict),
        "change": change and {"action": change.action.value, "reasons": [reason_json(each) for each in change.reasons]},
        "backoff": attempt and _backoff_json(slot.name, attempt, now),
        "acts": acts,
        "refusals": refusals,
    }


def _backoff_json(name: str, attempt: Attempt, now: float) -> Json:
    left = round(max(0.0, not_before(name, attempt) - now), 1)
    return {"starts": attempt.count, "error": attempt.error, "next_in_seconds": left}
