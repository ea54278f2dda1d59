"""How long each slot takes to load: measured as its states move, and read from the store after a restart."""

from __future__ import annotations

from dataclasses import dataclass, field

from hal0.core import loads
from hal0.core.loads import Load, Move
from hal0.core.state import SlotState
from hal0.host.store import Store

_KEPT = 20
_HISTORY = 500  # transitions: some twenty loads of a slot that also goes to idle and back


@dataclass
class Loads:
    """The last load times of each slot, and the loads under way. ``now`` is on the loop's monotonic clock.

    The store's instants are on another clock: only durations are taken from it. A load that was under way when hal0
    was started is timed from where hal0 first sees it move, and its length is not kept.
    """

    store: Store
    _times: dict[str, tuple[float, ...]] = field(default_factory=dict)
    _under_way: dict[str, Load] = field(default_factory=dict)

    def note(self, slot: str, before: SlotState, after: SlotState, now: float) -> float | None:
        """Take one step of a slot's life; return the seconds of the load that it completed, if any is to be counted.

        Give it each step before the store has it: the history that is read at a slot's first step ends there.
        """
        times, move = self.of(slot), Move(before, after, now)
        load = self._under_way.pop(slot, None)
        seconds = loads.load_length(load, move)
        if seconds is not None:
            self._times[slot] = (*times, seconds)[-_KEPT:]
        if going := loads.load_under_way(load, move):
            self._under_way[slot] = going
        return seconds

    def of(self, slot: str) -> tuple[float, ...]:
        """Return the seconds of a slot's last loads, oldest first."""
        if slot not in self._times:
            moved = reversed(self.store.ledger.transitions(slot, limit=_HISTORY))
            self._times[slot] = loads.load_times(Move(one.before, one.after, one.at) for one in moved)[-_KEPT:]
        return self._times[slot]

    def started(self, slot: str) -> float | None:
        """Return when the load that is under way began; after an image pull, when that ended. None: no load."""
        load = self._under_way.get(slot)
        return load.began if load else None

    def elapsed(self, slot: str, now: float) -> float:
        """Return for how many seconds a slot has been loading: 0 where it is not."""
        began = self.started(slot)
        return 0.0 if began is None else max(0.0, now - began)

    def expected(self, slot: str, now: float) -> float:
        """Return the seconds until a slot has loaded, at least 1: of the load under way, or of one begun now."""
        return loads.expected(self.of(slot), self.elapsed(slot, now))
