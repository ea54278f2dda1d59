"""The readiness gate: requests for a slot that is not ready wait here, all of them for one load.

Nothing is started from here. Demand is registered with the loop, and each pass of the loop says how things stand.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict, deque
from dataclasses import dataclass, field, replace

from hal0.core.conditions import ConditionType
from hal0.core.loads import retry_after
from hal0.core.schedule import Ground, Standing
from hal0.core.state import SlotState
from hal0.core.status import SlotStatus
from hal0.dispatch.envelope import Refusal
from hal0.loop.news import PassNews
from hal0.loop.reconcile import Reconciler

_NOT_LOADING = frozenset({SlotState.READY, SlotState.SERVING, SlotState.IDLE, SlotState.UNLOADING})
"""What breaks in one of these was no load: the next one may do better."""


@dataclass
class Flight:
    """One wait for one slot, however many requests share it. ``began`` is on the loop's clock."""

    began: float
    landed: asyncio.Future[Refusal | None]


@dataclass
class Gate:
    """Lets requests through to slots that are ready, and says why not."""

    reconciler: Reconciler
    _flights: dict[str, Flight] = field(default_factory=dict)
    _places: dict[str, deque[asyncio.Future[None]]] = field(default_factory=lambda: defaultdict(deque))
    _states: dict[str, SlotState] = field(default_factory=dict)
    """The last state of each slot that requests wait for, but for an error."""
    _given: Counter[str] = field(default_factory=Counter)
    """Places that were given to requests which have not gone to the engine yet."""

    async def watch(self) -> None:
        """Follow the loop's passes for ever, and end the waits that they decide."""
        with self.reconciler.feed.subscribe() as news:
            while True:
                if isinstance(await news.get(), PassNews):
                    self._look()

    def opened(self, name: str) -> SlotStatus | None:
        """Return a slot if a request may go to it this moment."""
        slot = self.reconciler.snapshot.slots.get(name)
        return slot if slot and slot.state.is_dispatchable and self.has_room(slot) else None

    def has_room(self, slot: SlotStatus) -> bool:
        """Return whether one more request may go to a slot that is up."""
        demands, engine = self.reconciler.demands, slot.engine
        going = demands.serving(engine) + self._given[slot.name]
        return demands.is_open(engine) and going < slot.serves.serving.concurrency

    async def wait(self, name: str, patience: float) -> SlotStatus:
        """Return a slot once a request may go to it. Raises ``Refusal`` with the reason it may not."""
        now = asyncio.get_running_loop().time
        deadline = now() + patience
        self._check_queue(self._status(name))
        while (slot := self.opened(name)) is None:
            status = self._status(name)
            left = deadline - now()
            if left <= 0:
                raise self._busy() if self._is_up(status) else self.loading(status)
            if self._is_up(status):
                began = self._now()
                await self._for_a_place(name, left)
                status = self._status(name)
                if self._broke(status, began):
                    raise self._failed(status)
            else:
                await self._for_the_slot(name, left)
        return slot

    def leave(self, slot: SlotStatus) -> None:
        """Let the next request go where the number of those at the engine is limited: one has left this slot's.

        A place at an engine that requests went to before is nobody's.
        """
        if self._places.get(slot.name):
            current = self.reconciler.snapshot.slots.get(slot.name)
            if current and current.engine == slot.engine:
                self._give(slot.name)

    def _give(self, name: str) -> None:
        """Give a place to the first who waits for one."""
        places = self._places[name]
        while places:
            place = places.popleft()
            if not place.done():
                self._given[name] += 1
                place.set_result(None)
                return

    async def _for_a_place(self, name: str, left: float) -> None:
        place = asyncio.get_running_loop().create_future()
        self._places[name].append(place)
        try:
            await asyncio.wait({place}, timeout=left)
        except asyncio.CancelledError:
            if place.done():
                self._given[name] -= 1
                self._give(name)
            raise
        finally:
            place.cancel()
        if not place.cancelled():
            self._given[name] -= 1

    async def _for_the_slot(self, name: str, left: float) -> None:
        flight = self._flights.get(name)
        if flight is None:
            landed: asyncio.Future[Refusal | None] = asyncio.get_running_loop().create_future()
            flight = self._flights[name] = Flight(self._now(), landed)
            self._note(name)
        await asyncio.wait({flight.landed}, timeout=left)
        if flight.landed.done() and (refusal := flight.landed.result()):
            raise replace(refusal)

    def _note(self, name: str) -> None:
        slot = self.reconciler.snapshot.slots.get(name)
        if slot and slot.state is not SlotState.ERROR:
            self._states[name] = slot.state

    def _look(self) -> None:
        landed = {name for name, flight in [*self._flights.items()] if self._lands(name, flight)}
        for name, places in self._places.items():
            self._note(name)
            # Who was here before the slot closed goes first: its place is given when they have gone.
            while places and name not in landed and (self._is_down(name) or self.opened(name)):
                self._give(name)

    def _lands(self, name: str, flight: Flight) -> bool:
        """End a wait that this pass decided, and return whether it did."""
        slot = self.reconciler.snapshot.slots.get(name)
        refusal = self._failure(slot, flight) if slot else None
        self._note(name)
        is_over = self._is_gone(name) or not self.reconciler.demands.waiting(name)
        if not (refusal or is_over or self.opened(name)):
            return False
        del self._flights[name]
        if not flight.landed.done():
            flight.landed.set_result(refusal)
        return True

    def _is_down(self, name: str) -> bool:
        """Return whether those who wait for a place at a slot have to hear of it."""
        return self._is_gone(name) or self.reconciler.snapshot.slots[name].state is SlotState.ERROR

    def _is_gone(self, name: str) -> bool:
        slot = self.reconciler.snapshot.slots.get(name)
        return slot is None or not slot.may_answer

    def _failure(self, slot: SlotStatus, flight: Flight) -> Refusal | None:
        """Return the failure of a load: there is no room, the slot needs a person, or broke since this wait began."""
        if slot.verdict.standing is Standing.REFUSED and not slot.state.is_dispatchable:
            return _no_room(slot)
        stalled = slot.condition(ConditionType.STALLED).status
        broke = self._broke(slot, flight.began)
        if not (stalled or broke) or slot.state.is_dispatchable:
            return None
        return self._failed(slot)

    def _broke(self, slot: SlotStatus, began: float) -> bool:
        """Return whether a load failed since a wait began. What was up, or being stopped, is healed and waited for."""
        return slot.state is SlotState.ERROR and slot.since >= began and self._states.get(slot.name) not in _NOT_LOADING

    def _failed(self, slot: SlotStatus) -> Refusal:
        lines = list(self.reconciler.last_words.of(slot.name))
        message = f"slot {slot.name} could not be loaded: {slot.message or 'it does not get ready'}"
        return Refusal(502, "slot.load_failed", message, extra={"last_lines": lines})

    def _status(self, name: str) -> SlotStatus:
        slot = self.reconciler.snapshot.slots.get(name)
        if slot is None:
            raise Refusal(404, "model.not_found", f"slot {name} was removed meanwhile", param="model")
        if not slot.may_answer:
            message = f"slot {name} is not up, and is not to be: {slot.verdict.why}"
            raise Refusal(503, "model.not_loaded", message, param="model")
        return slot

    def _is_up(self, slot: SlotStatus) -> bool:
        return slot.state.is_dispatchable and self.reconciler.demands.is_open(slot.engine)

    def _check_queue(self, slot: SlotStatus) -> None:
        waiting = self.reconciler.demands.waiting(slot.name)
        if waiting > slot.spec.serving.queue:
            message = f"{waiting - 1} requests wait for slot {slot.name} already: its queue is full"
            raise Refusal(429, "slot.busy", message, retry_after=1 if self._is_up(slot) else self._retry_after(slot))

    @staticmethod
    def _busy() -> Refusal:
        return Refusal(429, "slot.busy", "the slot is busy with as many requests as it takes", retry_after=1)

    def loading(self, slot: SlotStatus) -> Refusal:
        """Return what a client is told that has waited for a slot for as long as it may."""
        if slot.verdict.standing is Standing.REFUSED and not slot.state.is_dispatchable:
            return _no_room(slot)
        loads, now = self.reconciler.publisher.loads, self._now()
        loading = {
            "state": slot.state.value,
            "elapsed": round(loads.elapsed(slot.name, now), 1),
            "eta": round(loads.expected(slot.name, now), 1),
        }
        state = "loading" if slot.state.is_dispatchable else slot.state.value  # up, and its engine says otherwise
        waits = slot.verdict.standing is Standing.WAITS and not slot.state.is_dispatchable
        why = slot.verdict.why if waits else slot.message or "it will be ready soon"
        message, again = f"slot {slot.name} is {state}: {why}", self._retry_after(slot)
        if waits and slot.verdict.ground is Ground.IMAGE:
            return Refusal(503, "gpu.image_mode", message, retry_after=again, extra={"loading": loading})
        return Refusal(503, "slot.loading", message, retry_after=again, extra={"loading": loading})

    def _retry_after(self, slot: SlotStatus) -> int:
        loads = self.reconciler.publisher.loads
        return retry_after(loads.of(slot.name), loads.elapsed(slot.name, self._now()))

    def _now(self) -> float:
        return self.reconciler.clock.now()


def _no_room(slot: SlotStatus) -> Refusal:
    """Return what a client is told of a slot that can't be up beside others that will not go."""
    message = f"there is no room for slot {slot.name}: {slot.verdict.why}"
    if slot.verdict.ground is Ground.IMAGE:
        return Refusal(503, "gpu.image_mode", message)
    return Refusal(503, "slot.no_room", message)
