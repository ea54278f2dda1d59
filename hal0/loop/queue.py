"""Work to look at: a set of keys, each with the time from which it is due. A key that is added again comes once."""

from __future__ import annotations

import asyncio
from contextlib import suppress


class WorkQueue:
    """Keys with not-before times. An earlier time for a waiting key wins; nothing is ever looked at twice for it."""

    def __init__(self) -> None:
        self._due: dict[str, float] = {}
        self._added = asyncio.Event()

    def add(self, key: str, due: float = 0.0) -> None:
        """Make a key due at a time (at once, by default)."""
        if due < self._due.get(key, float("inf")):
            self._due[key] = due
            self._added.set()

    def take(self, now: float) -> frozenset[str]:
        """Remove and return every key that is due."""
        due = frozenset(key for key, at in self._due.items() if at <= now)
        for key in due:
            del self._due[key]
        return due

    def next_due(self) -> float | None:
        """Return when the next key is due, or None where there is none."""
        return min(self._due.values(), default=None)

    async def wait(self, now: float) -> None:
        """Wait until a key may be due: by time, or because one was added."""
        self._added.clear()
        due = self.next_due()
        timeout = None if due is None else max(0.0, due - now)
        if timeout == 0:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):  # wait_for loses a cancellation that comes with the event
                await self._added.wait()
