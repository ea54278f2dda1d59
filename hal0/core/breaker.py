"""Whether to ask something that keeps failing: a circuit breaker of values and pure functions.

Times are seconds on one monotonic clock. Whoever asks follows three steps: ask only if it ``allows``, keep what
``begun`` returns while the answer is awaited, then keep what ``failed`` or ``succeeded`` returns.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum


class BreakerState(StrEnum):
    """How a breaker stands. Also the value on the wire."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


@dataclass(frozen=True, slots=True)
class BreakerPolicy:
    """How many ``failures`` in a row open a breaker, and how many seconds lie between trials of an open one."""

    failures: int = 5
    cooldown: float = 30.0


@dataclass(frozen=True, slots=True)
class Breaker:
    """What is known of one place that is asked.

    ``failures`` in a row and the ``error`` of the last; ``opened_at`` is None while it is closed, ``trial_at`` while
    no trial is under way.
    """

    failures: int = 0
    opened_at: float | None = None
    trial_at: float | None = None
    error: str = ""


def state(breaker: Breaker, policy: BreakerPolicy, now: float) -> BreakerState:
    """Return how a breaker stands; it is half-open from the end of its cooldown until a trial tells."""
    if breaker.opened_at is None:
        return BreakerState.CLOSED
    return BreakerState.OPEN if now < breaker.opened_at + policy.cooldown else BreakerState.HALF_OPEN


def allows(breaker: Breaker, policy: BreakerPolicy, now: float) -> bool:
    """Return whether to ask now."""
    return now >= _free_at(breaker, policy, now)


def retry_in(breaker: Breaker, policy: BreakerPolicy, now: float) -> float:
    """Return the seconds until it may be asked again: 0 where it ``allows`` that now."""
    return max(0.0, _free_at(breaker, policy, now) - now)


def begun(breaker: Breaker, policy: BreakerPolicy, now: float) -> Breaker:
    """Return the breaker once something was asked: an open one notes the trial, and allows no other for a cooldown.

    A trial that never reports back holds others up for that long, not for ever.
    """
    if breaker.opened_at is None or not allows(breaker, policy, now):
        return breaker
    return replace(breaker, trial_at=now)


def failed(breaker: Breaker, policy: BreakerPolicy, now: float, error: str) -> Breaker:
    """Return the breaker after a failure: open after so many in a row, and for another cooldown after a trial."""
    failures = breaker.failures + 1
    if breaker.opened_at is None:
        return Breaker(failures, now if failures >= policy.failures else None, None, error)
    # What was asked before it opened may fail later: that is no news, and does not put the next trial off.
    is_late = state(breaker, policy, now) is BreakerState.OPEN
    return Breaker(failures, breaker.opened_at if is_late else now, None, error)


def succeeded() -> Breaker:
    """Return the breaker after a success: closed, whatever it was."""
    return Breaker()


def _free_at(breaker: Breaker, policy: BreakerPolicy, now: float) -> float:
    if breaker.opened_at is None:
        return now
    return (breaker.opened_at if breaker.trial_at is None else breaker.trial_at) + policy.cooldown
