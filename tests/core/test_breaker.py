from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from hal0.core.breaker import Breaker, BreakerPolicy, BreakerState, allows, begun, failed, retry_in, state, succeeded

POLICY = BreakerPolicy(failures=3, cooldown=30.0)
OPEN = Breaker(failures=3, opened_at=100.0, error="refused")


def after_failures(count: int, *, at: float = 100.0, policy: BreakerPolicy = POLICY) -> Breaker:
    breaker = Breaker()
    for number in range(1, count + 1):
        breaker = failed(breaker, policy, at, f"failure {number}")
    return breaker


def test_it_opens_after_so_many_failures_in_a_row() -> None:
    assert after_failures(2) == Breaker(failures=2, error="failure 2")
    assert allows(after_failures(2), POLICY, 100.0)
    assert after_failures(3) == Breaker(failures=3, opened_at=100.0, error="failure 3")
    assert not allows(after_failures(3), POLICY, 100.0)


@pytest.mark.parametrize("failures", [0, 1])
def test_the_least_policy_opens_at_the_first_failure(failures: int) -> None:
    policy = BreakerPolicy(failures=failures)
    assert state(after_failures(1, policy=policy), policy, 100.0) is BreakerState.OPEN


def test_a_success_in_between_begins_the_count_anew() -> None:
    assert succeeded() == Breaker()
    assert state(failed(succeeded(), POLICY, 100.0, "refused"), POLICY, 100.0) is BreakerState.CLOSED


@pytest.mark.parametrize(
    ("breaker", "now", "stands", "left"),
    [
        (Breaker(), 100.0, "closed", 0.0),
        (OPEN, 100.0, "open", 30.0),
        (OPEN, 129.0, "open", 1.0),
        (OPEN, 130.0, "half-open", 0.0),
        (OPEN, 1000.0, "half-open", 0.0),
        (begun(OPEN, POLICY, 140.0), 140.0, "half-open", 30.0),
        (begun(OPEN, POLICY, 140.0), 169.0, "half-open", 1.0),
        (begun(OPEN, POLICY, 140.0), 170.0, "half-open", 0.0),
    ],
)
def test_how_it_stands_and_when_it_may_be_asked(breaker: Breaker, now: float, stands: str, left: float) -> None:
    assert state(breaker, POLICY, now) == stands
    assert retry_in(breaker, POLICY, now) == left
    assert allows(breaker, POLICY, now) is (left == 0)


def test_a_trial_that_fails_opens_it_for_another_cooldown() -> None:
    again = failed(begun(OPEN, POLICY, 140.0), POLICY, 145.0, "still refused")
    assert again == Breaker(failures=4, opened_at=145.0, error="still refused")
    assert retry_in(again, POLICY, 145.0) == 30.0


def test_a_trial_that_is_not_allowed_is_not_noted() -> None:
    assert begun(Breaker(), POLICY, 100.0) == Breaker()
    assert begun(OPEN, POLICY, 129.0) == OPEN
    trial = begun(OPEN, POLICY, 140.0)
    assert begun(trial, POLICY, 150.0) == trial


def test_what_was_asked_before_it_opened_does_not_put_the_next_trial_off() -> None:
    assert failed(OPEN, POLICY, 120.0, "timed out") == Breaker(failures=4, opened_at=100.0, error="timed out")


class Breaking(RuleBasedStateMachine):
    """Many callers of one breaker, in whatever order their answers come."""

    def __init__(self) -> None:
        super().__init__()
        self.breaker = Breaker()
        self.now = 1000.0
        self.in_a_row = 0
        self.asking = 0
        self.trials: list[float] = []

    @rule(seconds=st.integers(0, 70))
    def time_passes(self, seconds: int) -> None:
        self.now += seconds

    @rule()
    def ask(self) -> None:
        if not allows(self.breaker, POLICY, self.now):
            return
        if state(self.breaker, POLICY, self.now) is not BreakerState.CLOSED:
            self.trials.append(self.now)
        self.breaker = begun(self.breaker, POLICY, self.now)
        self.asking += 1

    @precondition(lambda self: self.asking)
    @rule()
    def fail(self) -> None:
        self.asking -= 1
        self.in_a_row += 1
        self.breaker = failed(self.breaker, POLICY, self.now, f"failure {self.in_a_row}")
        assert self.breaker.error == f"failure {self.in_a_row}"

    @precondition(lambda self: self.asking)
    @rule()
    def succeed(self) -> None:
        self.asking -= 1
        self.in_a_row = 0
        self.trials.clear()
        self.breaker = succeeded()
        assert allows(self.breaker, POLICY, self.now)

    @precondition(lambda self: self.asking)
    @rule()
    def vanish(self) -> None:
        self.asking -= 1

    @invariant()
    def trials_are_a_cooldown_apart(self) -> None:
        assert all(later - earlier >= POLICY.cooldown for earlier, later in pairwise(self.trials))

    @invariant()
    def it_is_closed_until_so_many_failures_in_a_row(self) -> None:
        closed = state(self.breaker, POLICY, self.now) is BreakerState.CLOSED
        assert closed is (self.in_a_row < POLICY.failures)
        assert self.breaker.failures == self.in_a_row

    @invariant()
    def nobody_waits_for_longer_than_a_cooldown(self) -> None:
        left = retry_in(self.breaker, POLICY, self.now)
        assert 0 <= left <= POLICY.cooldown
        assert allows(self.breaker, POLICY, self.now) is (left == 0)
        assert allows(self.breaker, POLICY, self.now + left)


TestBreaking = Breaking.TestCase
TestBreaking.settings = settings(deadline=None)
