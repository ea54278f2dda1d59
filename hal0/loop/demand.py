"""What requests want of slots: registered by the dispatcher, read by every pass. And the doors of slots that stop."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from hal0.core.schedule import Demand
from hal0.host.ports import USE, Clock
from hal0.loop.queue import WorkQueue

_USE_DELAY = 0.2
"""Seconds until a change of demand is seen in the Snapshot: a busy slot must not cost a pass for each request."""
_HOLD_DELAY = 1.0
"""Seconds until a slot is looked at whose engine turned out not to listen: it is not asked again before."""


@dataclass(slots=True)
class _Use:
    """The counts of one slot, changed in place: they move with every request."""

    last_used: float
    serving: int = 0
    waiting: int = 0
    keep: float | None = None
    drained: asyncio.Event | None = None


@dataclass
class Demands:
    """The demand of each slot that was ever asked for, or was found running on demand."""

    queue: WorkQueue
    clock: Clock
    _uses: dict[str, _Use] = field(default_factory=dict)
    _closed: set[str] = field(default_factory=set)

    @property
    def all(self) -> Mapping[str, Demand]:
        """The demand of each slot as of now."""
        return {name: Demand(use.last_used, use.serving, use.waiting, use.keep) for name, use in self._uses.items()}

    def begin(self, slot: str, *, is_up: bool, keep: float | None = None) -> None:
        """Register a request for a slot. However many wait for one that is down, it is looked at once."""
        now = self.clock.now()
        use = self._uses.get(slot)
        if use is None:
            use = self._uses[slot] = _Use(now)
        if not use.serving and not use.waiting:
            self.queue.add(*((USE, now + _USE_DELAY) if is_up else (slot, 0.0)))
        use.waiting += 1
        use.last_used, use.keep = now, keep

    def enter(self, slot: str) -> None:
        """Register a request that goes to a slot's engine at once: ``begin`` and ``serve`` in one."""
        use = self._uses.get(slot)
        if use is None or not (use.serving or use.waiting):
            self.begin(slot, is_up=True)
            self.serve(slot)
            return
        use.serving += 1
        use.last_used, use.keep = self.clock.now(), None

    def serve(self, slot: str) -> None:
        """Note that a request for a slot goes to its engine now."""
        use = self._uses[slot]
        use.waiting -= 1
        use.serving += 1
        if use.serving == 1:
            self.queue.add(USE, self.clock.now() + _USE_DELAY)

    def hold(self, slot: str) -> None:
        """Note that a request that was at the engine waits again: nothing listened there. The slot is looked at."""
        use = self._uses[slot]
        use.waiting += 1
        self._leave(use)
        self._closed.add(slot)
        self.queue.add(slot, self.clock.now() + _HOLD_DELAY)

    def end(self, slot: str, *, served: bool) -> None:
        """Note that a request for a slot has ended, at the engine or while it waited."""
        use = self._uses[slot]
        use.last_used = self.clock.now()
        if served:
            self._leave(use)
        else:
            use.waiting -= 1
        if not use.serving and not use.waiting:
            self.queue.add(USE, use.last_used + _USE_DELAY)

    def found_up(self, slot: str) -> None:
        """Begin the idle time of a slot that ran before this process: the start of a daemon must not stop it."""
        self._uses.setdefault(slot, _Use(self.clock.now()))

    def waiting(self, slot: str) -> int:
        """Return how many requests wait for a slot."""
        return self._uses[slot].waiting if slot in self._uses else 0

    def serving(self, slot: str) -> int:
        """Return how many requests are at a slot's engine."""
        return self._uses[slot].serving if slot in self._uses else 0

    def is_open(self, slot: str) -> bool:
        """Return whether requests may go to a slot: not from before it is stopped until it was looked at again."""
        return slot not in self._closed

    def close(self, slots: Iterable[str]) -> None:
        """Send no further requests to slots that are about to be stopped; they wait."""
        self._closed.update(slots)

    def reopen(self, slots: Iterable[str]) -> None:
        """Send requests again to slots that have been looked at since."""
        self._closed.difference_update(slots)

    async def drain(self, slot: str, patience: float) -> None:
        """Wait until no request is at a slot's engine, ``patience`` seconds at the longest."""
        use = self._uses.get(slot)
        if use is None or not use.serving:
            return
        use.drained = use.drained or asyncio.Event()
        with suppress(TimeoutError):
            async with asyncio.timeout(patience):
                await use.drained.wait()

    @staticmethod
    def _leave(use: _Use) -> None:
        use.serving -= 1
        if not use.serving and use.drained:
            use.drained.set()
            use.drained = None
