"""The judge of trials: whether a spec has proved itself, by what the status of its slot says and by a real answer.

Every pass asks again, from what is observed then. So a hal0 that is killed goes on with the trials of the one before.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from hal0.core.backoff import Attempt
from hal0.core.conditions import ConditionType
from hal0.core.proof import Proof, ask_of
from hal0.core.quantity import show_duration
from hal0.core.state import SlotState
from hal0.core.status import SlotStatus
from hal0.core.trial import Trial


class Word(StrEnum):
    """What the judge says of a trial."""

    PASSED = "passed"
    FAILED = "failed"
    OPEN = "open"
    OVER = "over"  # another spec is wanted by now, or none


@dataclass(frozen=True, slots=True)
class Judgement:
    """The judge's word; ``why`` is said of what failed."""

    word: Word
    why: str = ""


_PASSED, _OPEN, _OVER = Judgement(Word.PASSED), Judgement(Word.OPEN), Judgement(Word.OVER)


def has_begun(trial: Trial, slot: SlotStatus, attempt: Attempt | None) -> bool:
    """Return whether the slot is wanted up, and its engine was started from the spec: from then on its time counts."""
    if not slot.verdict.up:
        return False
    is_running = slot.instance is not None and slot.instance.spec_hash == trial.spec_hash
    return is_running or _is_of(trial, attempt)


def judged(
    trial: Trial, slot: SlotStatus, proof: Proof | None, attempt: Attempt | None, running: float | None
) -> Judgement:
    """Return how a trial stands.

    ``proof`` is the last one of the slot's engine, ``attempt`` its starts since it was last ready. ``running`` is for
    how many seconds the spec has been tried, None where its time does not count: pulls and drains take their own.
    """
    if slot.spec_hash != trial.spec_hash:
        return _OVER
    if not slot.verdict.up or slot.condition(ConditionType.RUNNING).status is None:
        return _OPEN
    if is_up(slot) and (ask_of(slot.spec) is None or _speaks_for(proof, slot)):
        return _PASSED
    if attempt and _is_of(trial, attempt) and attempt.error:
        return _failed(slot, attempt.error)
    if slot.condition(ConditionType.SYNCED).reason == "Refused" or (running is not None and _is_broken(slot)):
        return _failed(slot, "it can't be started")
    if running is not None and running > slot.spec.start_deadline and not slot.is_ready:
        return _failed(slot, f"not ready within {show_duration(slot.spec.start_deadline)}")
    return _OPEN


def has_to_prove(slot: SlotStatus, proof: Proof | None) -> bool:
    """Return whether a slot on trial is up, and nothing shows yet whether its engine really answers."""
    if slot.trial is None or not is_up(slot) or ask_of(slot.spec) is None:
        return False
    return proof is None or proof.invocation != slot.run


def is_up(slot: SlotStatus) -> bool:
    """Return whether a slot is ready with what is wanted. What was changed outside hal0 since is not the spec's."""
    synced = slot.condition(ConditionType.SYNCED)
    return slot.is_ready and (synced.status is True or synced.reason == "Drifted")


def _failed(slot: SlotStatus, why: str) -> Judgement:
    return Judgement(Word.FAILED, slot.failure or why)


def _is_of(trial: Trial, attempt: Attempt | None) -> bool:
    return attempt is not None and attempt.spec_hash == trial.spec_hash


def _speaks_for(proof: Proof | None, slot: SlotStatus) -> bool:
    return proof is not None and proof.invocation == slot.run and not proof.is_refuted


def _is_broken(slot: SlotStatus) -> bool:
    return slot.state is SlotState.ERROR or slot.condition(ConditionType.STALLED).status is True
