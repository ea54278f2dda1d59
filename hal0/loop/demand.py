"""What requests want of slots: registered by the dispatcher, read by every pass. And the doors of engines that stop."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from hal0.core.engines import slot_of, stand_in_of
from hal0.core.schedule import Demand
from hal0.host.ports import USE, Clock
from hal0.loop.queue import WorkQueue

_USE_DELAY = 0.2
"""Seconds until a change of demand is seen in the Snapshot: a busy slot must not cost a pass for each request."""
_HOLD_DELAY = 1.0
"""Seconds until a slot is looked at whose engine turned out not to listen: it is not asked again before."""


@dataclass(slots=True)
class _Use:
    """The counts of one slot, changed in place: they move with every request. ``serving`` is at all of its engines.

    ``since`` holds while some wait.
    """

    last_used: float
    serving: int = 0
    waiting: int = 0
    keep: float | None = None
    since: float = 0.0


@dataclass(slots=True)
class _Engine:
    """How many requests are at one engine. It has its slot's counts at hand: a request looks nothing up twice."""

    use: _Use
    serving: int = 0
    drained: asyncio.Event | None = None


@dataclass
class Demands:
    """The demand of each slot that was ever asked for, or was found running.

    Requests wait for a slot, and are at an engine (``hal0.core.engines``): so a door closes, and an engine drains,
    while the slot's other one takes requests.
    """

    queue: WorkQueue
    clock: Clock
    _uses: dict[str, _Use] = field(default_factory=dict)
    _engines: dict[str, _Engine] = field(default_factory=dict)
    _closed: set[str] = field(default_factory=set)

    @property
    def all(self) -> Mapping[str, Demand]:
        """The demand of each slot as of now."""
        return {
            name: Demand(
                *(use.last_used, use.serving, use.waiting, use.keep, self.serving(stand_in_of(name))),
                since=use.since if use.waiting else None,
            )
            for name, use in self._uses.items()
        }

    def begin(self, slot: str, *, is_up: bool, keep: float | None = None) -> None:
        """Register a request for a slot. However many wait for one that is down, it is looked at once."""
        now = self.clock.now()
        use = self._uses.get(slot)
        if use is None:
            use = self._uses[slot] = _Use(now)
        if not use.serving and not use.waiting:
            self.queue.add(*((USE, now + _USE_DELAY) if is_up else (slot, 0.0)))
        self._wait(use)
        use.last_used, use.keep = now, keep

    def enter(self, engine: str) -> None:
        """Register a request that goes to an engine at once: ``begin`` and ``serve`` in one."""
        there = self._engines.get(engine) or self._engine(engine)
        use, now = there.use, self.clock.now()
        if not use.serving:
            self.queue.add(USE, now + _USE_DELAY)
        there.serving += 1
        use.serving += 1
        use.last_used, use.keep = now, None

    def serve(self, engine: str) -> None:
        """Note that a request that waited for a slot goes to an engine of it now."""
        there = self._engines.get(engine) or self._engine(engine)
        there.use.waiting -= 1
        there.serving += 1
        there.use.serving += 1
        if there.use.serving == 1:
            self.queue.add(USE, self.clock.now() + _USE_DELAY)

    def hold(self, engine: str) -> None:
        """Note that a request that was at an engine waits again: nothing listened there. The engine is looked at."""
        there = self._engines[engine]
        self._wait(there.use)
        self._leave(there)
        self._closed.add(engine)
        self.queue.add(engine, self.clock.now() + _HOLD_DELAY)

    def end(self, where: str, *, served: bool) -> None:
        """Note that a request has ended: ``where`` is the engine that it was at, or else the slot that it waited for.

        The last one at an engine whose door is closed is told of: its stop may wait for that.
        """
        there = self._engines[where] if served else None
        use = there.use if there else self._uses[where]
        use.last_used = self.clock.now()
        if there:
            self._leave(there)
        else:
            use.waiting -= 1
        is_unused = not use.serving and not use.waiting
        if is_unused or (there and not there.serving and where in self._closed):
            self.queue.add(USE, use.last_used + _USE_DELAY)

    def found_up(self, slot: str, *, anew: bool) -> None:
        """Begin the idle time of a slot: one that ran before this process, or one that came up just now, ``anew``."""
        use = self._uses.setdefault(slot, _Use(self.clock.now()))
        if anew:
            use.last_used = self.clock.now()

    def waiting(self, slot: str) -> int:
        """Return how many requests wait for a slot."""
        return self._uses[slot].waiting if slot in self._uses else 0

    def was_used(self, slot: str, *, since: float) -> bool:
        """Return whether requests were at a slot's engines after a moment, or are now."""
        use = self._uses.get(slot)
        return use is not None and (use.serving > 0 or use.last_used > since)

    def serving(self, engine: str) -> int:
        """Return how many requests are at an engine."""
        there = self._engines.get(engine)
        return there.serving if there else 0

    def is_open(self, engine: str) -> bool:
        """Return whether requests may go to an engine: not from before it is stopped until it was looked at again."""
        return engine not in self._closed

    def close(self, engines: Iterable[str]) -> None:
        """Send no further requests to engines that are about to be stopped; they wait."""
        self._closed.update(engines)

    def reopen(self, engines: Iterable[str]) -> None:
        """Send requests again to engines that have been looked at since."""
        self._closed.difference_update(engines)

    async def drain(self, engine: str, patience: float) -> None:
        """Wait until no request is at an engine, ``patience`` seconds at the longest."""
        there = self._engines.get(engine)
        if there is None or not there.serving:
            return
        there.drained = there.drained or asyncio.Event()
        with suppress(TimeoutError):
            async with asyncio.timeout(patience):
                await there.drained.wait()

    def _engine(self, engine: str) -> _Engine:
        """Begin to count the requests at an engine."""
        use = self._uses.setdefault(slot_of(engine), _Use(self.clock.now()))
        made = self._engines[engine] = _Engine(use)
        return made

    def _wait(self, use: _Use) -> None:
        if not use.waiting:
            use.since = self.clock.now()
        use.waiting += 1

    @staticmethod
    def _leave(there: _Engine) -> None:
        there.serving -= 1
        there.use.serving -= 1
        if not there.serving and there.drained:
            there.drained.set()
            there.drained = None
