"""What requests want of slots: registered by the dispatcher, read by every pass."""

from __future__ import annotations

from dataclasses import dataclass, field

from hal0.core.schedule import Demand
from hal0.host.ports import USE, Clock
from hal0.loop.queue import WorkQueue

_USE_DELAY = 0.2
"""Seconds until a change of demand is seen in the Snapshot: a busy slot must not cost a pass for each request."""


@dataclass
class Demands:
    """The demand of each slot that was ever asked for, or was found running on demand."""

    queue: WorkQueue
    clock: Clock
    all: dict[str, Demand] = field(default_factory=dict)

    def begin(self, slot: str, *, is_up: bool) -> None:
        """Register a request for a slot. However many wait for one that is down, it is looked at once."""
        now = self.clock.now()
        in_flight = self.all[slot].in_flight if slot in self.all else 0
        self.all[slot] = Demand(now, in_flight + 1)
        if in_flight == 0:
            self.queue.add(*((USE, now + _USE_DELAY) if is_up else (slot, 0.0)))

    def end(self, slot: str) -> None:
        """Note that a request for a slot has ended."""
        now = self.clock.now()
        left = self.all[slot].in_flight - 1
        self.all[slot] = Demand(now, left)
        if left == 0:
            self.queue.add(USE, now + _USE_DELAY)

    def found_up(self, slot: str) -> None:
        """Begin the idle time of a slot that ran before this process: the start of a daemon must not stop it."""
        self.all.setdefault(slot, Demand(self.clock.now()))
