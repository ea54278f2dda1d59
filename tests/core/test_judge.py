from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from worlds import desired, slots

from hal0.core.backoff import Attempt
from hal0.core.conditions import Condition, ConditionType
from hal0.core.judge import Word, has_begun, has_to_prove, is_up, judged
from hal0.core.observed import Instance
from hal0.core.proof import Proof
from hal0.core.schedule import Verdict
from hal0.core.state import SlotState
from hal0.core.status import SlotStatus
from hal0.core.trial import Rejection, Trial

SPEC = desired(slots("chat")).slots["chat"].spec
MUTE = replace(SPEC, type=desired(slots("chat", type="tts")).slots["chat"].spec.type)
TRIAL = Trial("chat", "new", "eve", 0.0)
LIMIT = SPEC.start_deadline
BOOL = st.sampled_from([True, False, None])
SYNCED = [(True, "InSync"), (False, "ChangePending"), (False, "Drifted"), (False, "Refused"), (None, "Unknown")]


def status(
    ready: bool | None = True,
    synced: tuple[bool | None, str] = (True, "InSync"),
    running: bool | None = True,
    state: SlotState = SlotState.READY,
    *,
    stalled: bool = False,
    up: bool = True,
    mute: bool = False,
    spec_hash: str = "new",
    runs: str | None = "new",
) -> SlotStatus:
    """Return a slot on trial, of which conditions say this; ``runs`` is the spec that its container is of."""
    conditions = (
        Condition(ConditionType.ACCEPTED, status=True, reason="OnTrial"),
        Condition(ConditionType.SYNCED, *synced),
        Condition(ConditionType.RUNNING, status=running, reason="x"),
        Condition(ConditionType.READY, status=ready, reason="x"),
        Condition(ConditionType.RECONCILING, status=True, reason="x"),
        Condition(ConditionType.STALLED, status=stalled, reason="x", message="it stalled" if stalled else ""),
    )
    spec = MUTE if mute else SPEC
    return SlotStatus(
        *("chat", state, 0.0, conditions, spec, spec, "chat", spec_hash),
        instance=(runs and Instance("id", True, "chat", runs, "image", ())) or None,
        run="r1",
        verdict=Verdict(up=up, why="x"),
        trial=TRIAL,
    )


STATUSES = st.builds(
    status,
    BOOL,
    st.sampled_from(SYNCED),
    BOOL,
    st.sampled_from(SlotState),
    stalled=st.booleans(),
    up=st.booleans(),
    mute=st.booleans(),
    spec_hash=st.sampled_from(["new", "new", "other"]),
    runs=st.sampled_from(["new", "old", None]),
)
PROOFS = st.none() | st.builds(
    Proof,
    st.sampled_from(["r1", "r0"]),
    st.booleans(),
    st.just(1.0),
    st.just(0.1),
    status=st.sampled_from([0, 200, 400, 500]),
)
ATTEMPTS = st.none() | st.builds(
    Attempt, st.sampled_from(["new", "old"]), st.integers(1, 9), st.just(0.0), st.sampled_from(["", "no such image"])
)
RUNNING = st.none() | st.floats(0, 2 * LIMIT)


@given(STATUSES, PROOFS, ATTEMPTS, RUNNING)
def test_only_a_slot_that_is_up_and_answered_in_this_run_passes(
    slot: SlotStatus, proof: Proof | None, attempt: Attempt | None, running: float | None
) -> None:
    found = judged(TRIAL, slot, proof, attempt, running)
    is_proved = slot.spec is MUTE or (proof is not None and proof.invocation == slot.run and not proof.is_refuted)
    is_wanted = slot.verdict.up and slot.spec_hash == TRIAL.spec_hash
    is_seen = slot.condition(ConditionType.RUNNING).status is not None
    assert (found.word is Word.PASSED) == (is_wanted and is_seen and is_up(slot) and is_proved)


@given(STATUSES, PROOFS, ATTEMPTS, RUNNING)
def test_nothing_fails_that_is_not_wanted_not_seen_or_another(
    slot: SlotStatus, proof: Proof | None, attempt: Attempt | None, running: float | None
) -> None:
    found = judged(TRIAL, slot, proof, attempt, running)
    assert (found.word is Word.OVER) == (slot.spec_hash != TRIAL.spec_hash)
    assert bool(found.why) == (found.word is Word.FAILED)
    if found.word is Word.FAILED:
        assert slot.verdict.up
        assert slot.condition(ConditionType.RUNNING).status is not None


@given(STATUSES, PROOFS, ATTEMPTS, st.floats(0, 2 * LIMIT), st.floats(0, LIMIT))
def test_what_failed_does_not_come_good_by_time_alone(
    slot: SlotStatus, proof: Proof | None, attempt: Attempt | None, running: float, more: float
) -> None:
    now, later = (judged(TRIAL, slot, proof, attempt, at).word for at in (running, running + more))
    assert now is later or (now, later) == (Word.OPEN, Word.FAILED)
    if now is not later:
        assert running <= LIMIT < running + more
        assert not slot.is_ready


@given(STATUSES, PROOFS)
def test_who_has_to_prove_itself_is_decided_by_any_answer_of_this_run(slot: SlotStatus, proof: Proof | None) -> None:
    assert not (has_to_prove(slot, proof) and proof and proof.invocation == slot.run)
    if slot.verdict.up and slot.spec_hash == "new" and slot.condition(ConditionType.RUNNING).status is not None:
        stuck = judged(TRIAL, slot, proof, None, None).word is Word.OPEN and is_up(slot)
        if stuck and slot.state is not SlotState.ERROR and not (proof and proof.is_refuted):
            assert has_to_prove(slot, proof)


@given(STATUSES, ATTEMPTS)
def test_time_counts_from_a_start_of_the_spec(slot: SlotStatus, attempt: Attempt | None) -> None:
    is_of = (slot.instance is not None and slot.instance.spec_hash == "new") or (
        attempt is not None and attempt.spec_hash == "new"
    )
    assert has_begun(TRIAL, slot, attempt) == (slot.verdict.up and is_of)


def test_the_old_engine_in_error_says_nothing_of_the_new_spec() -> None:
    old = status(False, (False, "ChangePending"), state=SlotState.ERROR, stalled=True, runs="old")
    assert judged(TRIAL, old, None, Attempt("old", 5, 0.0, "it crashed"), None).word is Word.OPEN


def test_a_failed_pull_fails_while_the_old_engine_serves() -> None:
    old = status(True, (False, "ChangePending"), runs="old")
    found = judged(TRIAL, old, None, Attempt("new", 1, 0.0, "no such image"), None)
    assert (found.word, found.why) == (Word.FAILED, "no such image")


def test_what_is_refused_fails_before_any_start() -> None:
    refused = status(False, (False, "Refused"), stalled=True, runs=None)
    assert judged(TRIAL, refused, None, None, None).why == "it stalled"


def test_a_rejection_says_what_when_why_and_what_next() -> None:
    found = Rejection("chat", "3c8521b74acf0f27", "it crashed", 0.0)
    said = "spec 3c8521b7 was rejected at 1970-01-01 00:00:00 UTC: it crashed; hal0 slot retry chat tries it again"
    assert str(found).startswith(said)
    assert found.told("3c8521b74acf0f27").startswith("kept down: spec 3c85")
    assert found.told("another").startswith("rolled back: spec 3c85")
