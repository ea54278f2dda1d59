"""How long a slot takes to load its model, and how long a load that is under way will go on.

Durations are in seconds. Instants are on the clock of whoever noted them: only moves of one clock go together.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import NamedTuple

from hal0.core.state import SlotState

_LOADING = frozenset(state for state in SlotState if state.is_loading)
_LOADED = frozenset(state for state in SlotState if state.is_dispatchable)
_SHORTEST = 0.1  # what begins and ends in one look was over before: it tells nothing
_LONGEST = 3600.0  # nobody waits for that: hal0 was away meanwhile, or the clock was set
_RECENT = 5
_UNKNOWN = 10.0
_UNKNOWN_SHARE = 0.5  # without a history, a load may well go on for half as long as it has
_OVERDUE_SHARE = 0.1
_LEAST = 1.0
_LONGEST_RETRY = 60


class Move(NamedTuple):
    """One step of a slot's life. The states are those of ``SlotState``; any other one counts as at rest."""

    before: str
    after: str
    at: float


@dataclass(frozen=True, slots=True)
class Load:
    """A load under way. ``typical``: it was seen from its beginning and needed no pull, so its length is telling."""

    began: float
    typical: bool


def load_under_way(load: Load | None, move: Move) -> Load | None:
    """Return the load that is under way after a move, of the one before it; None where the slot loads nothing.

    The end of a pull begins the load anew: it is from there that loads compare.
    """
    if move.after not in _LOADING:
        return None
    begins = move.before not in _LOADING
    pulls = SlotState.PULLING in {move.before, move.after}
    if load is None or begins or pulls:
        return Load(move.at, typical=begins and not pulls)
    return load


def load_length(load: Load | None, move: Move) -> float | None:
    """Return the seconds of the load that a move completes; None where it completes none, or none that is typical."""
    if load is None or not load.typical or move.before not in _LOADING or move.after not in _LOADED:
        return None
    seconds = move.at - load.began
    return seconds if _SHORTEST <= seconds <= _LONGEST else None


def load_times(moves: Iterable[Move]) -> tuple[float, ...]:
    """Return the seconds of each typical load among a slot's moves; both oldest first.

    A load goes from where the slot leaves rest to where it may be dispatched to. Left out are loads that failed or
    were stopped, that pulled an image, or that nobody saw begin.
    """
    times: list[float] = []
    load: Load | None = None
    for move in moves:
        seconds = load_length(load, move)
        if seconds is not None:
            times.append(seconds)
        load = load_under_way(load, move)
    return tuple(times)


def expected(times: Sequence[float], elapsed: float) -> float:
    """Return the seconds, at least 1, that a load will go on after ``elapsed`` of them.

    ``times`` are the seconds of earlier loads, oldest first: the median of the last few counts. The guess grows with
    ``elapsed`` for a load that is overdue, and for one without a history.
    """
    elapsed = max(0.0, elapsed)
    if not times:
        return max(_UNKNOWN, elapsed * _UNKNOWN_SHARE)
    left = median(times[-_RECENT:]) - elapsed
    return max(_LEAST, left if left > 0 else elapsed * _OVERDUE_SHARE)


def retry_after(times: Sequence[float], elapsed: float) -> int:
    """Return after how many whole seconds, 1 to 60, a client should ask again; arguments as for ``expected``."""
    return math.ceil(min(expected(times, elapsed), _LONGEST_RETRY))
