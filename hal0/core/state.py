"""SlotState: the legal edges as a table, and the shortest legal way from one state to another."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from enum import StrEnum
from functools import cache


class SlotState(StrEnum):
    """Where a slot is in its life. Also the value on the wire."""

    OFFLINE = "offline"
    PULLING = "pulling"
    STARTING = "starting"
    WARMING = "warming"
    READY = "ready"
    SERVING = "serving"
    IDLE = "idle"
    UNLOADING = "unloading"
    ERROR = "error"

    @property
    def is_dispatchable(self) -> bool:
        """Whether a request may be sent to the slot."""
        return self in {SlotState.READY, SlotState.SERVING, SlotState.IDLE}

    @property
    def is_loading(self) -> bool:
        """Whether the slot is on its way to be ready."""
        return self in {SlotState.PULLING, SlotState.STARTING, SlotState.WARMING}


_S = SlotState
# Of two ways of the same length, the one along the edges that stand first is told.
EDGES: Mapping[SlotState, tuple[SlotState, ...]] = {
    _S.OFFLINE: (_S.PULLING, _S.STARTING, _S.ERROR),
    _S.PULLING: (_S.STARTING, _S.OFFLINE, _S.ERROR),
    _S.STARTING: (_S.WARMING, _S.UNLOADING, _S.ERROR),
    _S.WARMING: (_S.READY, _S.UNLOADING, _S.ERROR),
    _S.READY: (_S.SERVING, _S.IDLE, _S.UNLOADING, _S.ERROR),
    _S.SERVING: (_S.READY, _S.UNLOADING, _S.ERROR),
    _S.IDLE: (_S.SERVING, _S.UNLOADING, _S.ERROR),
    _S.UNLOADING: (_S.OFFLINE, _S.ERROR),
    _S.ERROR: (_S.OFFLINE, _S.PULLING, _S.STARTING, _S.UNLOADING),
}


@cache
def way(start: SlotState, end: SlotState) -> tuple[SlotState, ...]:
    """Return the states passed from ``start`` (left out) to ``end`` along legal edges: the shortest way.

    An observation may come late and miss a state; the views still see every step of the life it went through.
    """
    ways: deque[tuple[SlotState, ...]] = deque([(start,)])
    while ways:
        path = ways.popleft()
        if path[-1] is end:
            return path[1:]
        ways.extend((*path, state) for state in EDGES[path[-1]] if state not in path)
    raise AssertionError(f"no way from {start} to {end}")  # the table is connected: a test holds it
