"""How long to leave a slot alone after a start that led nowhere."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace

FIRST = 10.0
CAP = 300.0
STALLED_AFTER = 5
_JITTER = 0.2
_MOST_DOUBLINGS = 16  # well above CAP; thousands of them are no float


@dataclass(frozen=True, slots=True)
class Attempt:
    """Starts of a slot in a row: ``at`` is when the last was, ``error`` why it failed, if known.

    ``failed``: the last was for an engine that had ended, or hung, by itself. ``settled``: the slot got ready since.
    Then only a failure of its engine goes on with the row.
    """

    spec_hash: str
    count: int
    at: float
    error: str = ""
    failed: bool = False
    settled: bool = False

    @property
    def is_stalled(self) -> bool:
        """Whether a person should look: further tries go on, at the longest interval."""
        return self.count >= STALLED_AFTER


def not_before(slot: str, attempt: Attempt) -> float:
    """Return the time of the next try: exponential, capped, with a jitter that is the slot's own."""
    delay = min(CAP, FIRST * 2.0 ** min(attempt.count - 1, _MOST_DOUBLINGS))
    share = zlib.crc32(f"{slot}/{attempt.count}".encode()) / 0xFFFFFFFF
    return attempt.at + delay * (1 + _JITTER * share)


def holds(attempt: Attempt, spec_hash: str, *, failed: bool) -> bool:
    """Return whether a start belongs to the row: it is of the same spec, and is for want of success so far."""
    return attempt.spec_hash == spec_hash and (failed or not attempt.settled)


def settled(attempt: Attempt, now: float) -> Attempt | None:
    """Return the attempt of a slot that is ready; None where its last start is not held against it any more.

    That is one for no failure, or of longer ago than any wait.
    """
    is_over = not attempt.failed or now - attempt.at >= CAP
    return None if is_over else replace(attempt, settled=True, error="")


def failed(before: Attempt | None, spec_hash: str, now: float, error: str) -> Attempt:
    """Return the attempt whose engine turned out ``now`` not to work: the wait for the next one begins here."""
    attempt = before if before and before.spec_hash == spec_hash else tried(None, spec_hash, now)
    return attempt if attempt.error else replace(attempt, at=now, error=error)


def tried(before: Attempt | None, spec_hash: str, now: float, error: str = "", *, failed: bool = False) -> Attempt:
    """Return the attempt after one more try. ``failed``: it was for an engine that had ended, or hung, by itself."""
    count = before.count if before and holds(before, spec_hash, failed=failed) else 0
    return Attempt(spec_hash, count + 1, now, error, failed=failed)
