"""One request's stay at a slot: the loop's counts of demand follow it, whatever way it ends."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from hal0.core.status import SlotStatus
from hal0.dispatch.gate import Gate
from hal0.loop.demand import Demands


class Visit:
    """Demand for a slot, from the request's coming to its end. ``keep`` is for how many seconds it wants it kept."""

    def __init__(self, demands: Demands, gate: Gate, slot: SlotStatus, keep: float | None) -> None:
        self._demands = demands
        self._gate = gate
        self._name = slot.name
        self._at: SlotStatus | None = None
        self._goes_on = False
        demands.begin(slot.name, is_up=slot.state.is_dispatchable, keep=keep)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._goes_on:
            self.end()

    def serve(self, slot: SlotStatus) -> None:
        """Go to the engine that the slot has now."""
        self._demands.serve(slot.engine)
        self._at = slot

    def hold(self) -> None:
        """Come back from an engine that was not ready, and wait."""
        if self._at:
            self._demands.hold(self._at.engine)
            self._gate.leave(self._at)
            self._at = None

    def keep_on(self) -> None:
        """Stay when the request is over: its engine is not done with it. ``end`` follows."""
        self._goes_on = True

    def end(self) -> None:
        """Leave."""
        if self._at:
            self._demands.end(self._at.engine, served=True)
            self._gate.leave(self._at)
        else:
            self._demands.end(self._name, served=False)
