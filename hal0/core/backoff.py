"""How long to leave a slot alone after a start that led nowhere."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

FIRST = 10.0
CAP = 300.0
STALLED_AFTER = 5
_JITTER = 0.2
_MOST_DOUBLINGS = 16  # well above CAP; thousands of them are no float


@dataclass(frozen=True, slots=True)
class Attempt:
    """Starts of a slot since it was last ready: ``at`` is when the last was, ``error`` why it failed, if known."""

    spec_hash: str
    count: int
    at: float
    error: str = ""

    @property
    def is_stalled(self) -> bool:
        """Whether a person should look: further tries go on, at the longest interval."""
        return self.count >= STALLED_AFTER


def not_before(slot: str, attempt: Attempt) -> float:
    """Return the time of the next try: exponential, capped, with a jitter that is the slot's own."""
    delay = min(CAP, FIRST * 2.0 ** min(attempt.count - 1, _MOST_DOUBLINGS))
    share = zlib.crc32(f"{slot}/{attempt.count}".encode()) / 0xFFFFFFFF
    return attempt.at + delay * (1 + _JITTER * share)


def tried(before: Attempt | None, spec_hash: str, now: float, error: str = "") -> Attempt:
    """Return the attempt after one more try; a new spec begins anew."""
    count = before.count if before and before.spec_hash == spec_hash else 0
    return Attempt(spec_hash, count + 1, now, error)
