from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import names

from hal0.core.backoff import CAP, FIRST, STALLED_AFTER, Attempt, holds, not_before, settled, tried


def delay(slot: str, count: int) -> float:
    return not_before(slot, Attempt("hash", count, 0.0))


@pytest.mark.parametrize(
    ("count", "least"), [(1, FIRST), (2, 2 * FIRST), (3, 4 * FIRST), (4, 8 * FIRST), (10, CAP), (11, CAP), (5000, CAP)]
)
def test_the_delay_doubles_up_to_a_cap_with_a_fifth_of_jitter_at_the_most(count: int, least: float) -> None:
    assert least <= delay("chat", count) <= least * 1.2


@settings(deadline=None)
@given(names())
def test_delays_grow_until_they_are_capped(slot: str) -> None:
    delays = [delay(slot, count) for count in range(1, 20) if FIRST * 2 ** (count - 1) <= CAP]
    assert len(delays) > 3
    assert delays == sorted(set(delays))


@settings(deadline=None)
@given(names(), st.integers(1, 10**9))
def test_no_slot_is_left_alone_for_longer_than_the_cap_and_its_jitter(slot: str, count: int) -> None:
    assert 0 < delay(slot, count) <= CAP * 1.2


@settings(deadline=None)
@given(names(), st.integers(1, 50), st.floats(0, 1e9))
def test_the_next_try_depends_on_the_slot_and_the_attempt_alone(slot: str, count: int, at: float) -> None:
    attempt = Attempt("hash", count, at, "why")
    assert not_before(slot, attempt) == not_before(slot, replace(attempt, error="", spec_hash="other"))
    assert not_before(slot, attempt) == pytest.approx(at + delay(slot, count))


def test_slots_that_fail_together_are_not_tried_together() -> None:
    assert len({delay(f"slot-{number}", 3) for number in range(50)}) == 50


def test_attempts_count_up_and_remember_the_last() -> None:
    first = tried(None, "hash", 1.0, "no image")
    second = tried(first, "hash", 5.0)
    assert first == Attempt("hash", 1, 1.0, "no image")
    assert second == Attempt("hash", 2, 5.0, "")


def test_a_new_spec_begins_anew() -> None:
    assert tried(Attempt("old", 7, 1.0, "crash"), "new", 2.0) == Attempt("new", 1, 2.0)


def test_a_person_should_look_after_some_tries() -> None:
    stalled = [count for count in range(1, 10) if Attempt("hash", count, 0.0).is_stalled]
    assert stalled == list(range(STALLED_AFTER, 10))


def test_a_slot_that_got_ready_goes_on_with_its_row_only_for_a_failure() -> None:
    ready = settled(Attempt("hash", 3, 100.0, "crash", failed=True), 100.0 + CAP - 1)
    assert ready == Attempt("hash", 3, 100.0, failed=True, settled=True)
    assert holds(ready, "hash", failed=True)
    assert not holds(ready, "hash", failed=False)
    assert tried(ready, "hash", 200.0, failed=True) == Attempt("hash", 4, 200.0, failed=True)
    assert tried(ready, "hash", 200.0) == Attempt("hash", 1, 200.0)
    assert tried(ready, "other", 200.0, failed=True) == Attempt("other", 1, 200.0, failed=True)


def test_a_start_of_long_ago_is_not_held_against_a_slot_that_is_ready() -> None:
    assert settled(Attempt("hash", 9, 100.0, failed=True), 100.0 + CAP) is None


def test_a_start_that_was_for_no_failure_is_forgotten_when_the_slot_is_ready() -> None:
    assert settled(Attempt("hash", 1, 100.0), 101.0) is None
