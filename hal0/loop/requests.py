"""Which requests slots were woken by, and which were refused: in memory, for `hal0 why`.

A flood of refusals must cost little, so only the last of each slot are kept.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

_KEPT = 20


@dataclass(frozen=True, slots=True)
class RefusedRequest:
    """A request that got an error of hal0's own. ``at`` is since the epoch, ``status`` what the client got."""

    at: float
    request: str
    model: str
    code: str
    status: int


@dataclass
class Requests:
    """What requests had to do with slots that were not ready."""

    _wakers: dict[str, str] = field(default_factory=dict)
    _refused: dict[str, deque[RefusedRequest]] = field(default_factory=dict)

    def woke(self, slot: str, request: str) -> None:
        """Note that a request wants a slot that is not ready; the first one of many is its waker."""
        self._wakers.setdefault(slot, request)

    def waker(self, slot: str) -> str:
        """Return the id of the request that a slot was wanted by first since it was last ready; empty for none."""
        return self._wakers.get(slot, "")

    def is_ready(self, slot: str) -> None:
        """Note that a slot is ready: whoever waits for it next is its next waker."""
        self._wakers.pop(slot, None)

    def refused(self, slot: str, refusal: RefusedRequest) -> None:
        """Note a request for a slot that got an error of hal0's."""
        self._refused.setdefault(slot, deque(maxlen=_KEPT)).append(refusal)

    def refusals(self, slot: str) -> list[RefusedRequest]:
        """Return the last refusals of a slot, newest first."""
        return list(reversed(self._refused.get(slot, ())))
