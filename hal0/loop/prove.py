"""Proofs run beside the loop: a wedged engine takes its whole deadline. One at a time for a slot."""

from __future__ import annotations

import asyncio
from collections.abc import Container
from dataclasses import dataclass, field

from hal0.core.proof import Proof, Reply, ask_of
from hal0.core.status import SlotStatus, Snapshot
from hal0.core.wedge import is_due, is_void
from hal0.host.ports import Clock, Completer
from hal0.loop.demand import Demands
from hal0.loop.queue import WorkQueue

_NO_REQUEST = Reply(0, "its probe fails")
"""The proof of an engine that no cheap request is known for."""


@dataclass
class Prover:
    """Keeps the last proof of each slot's engine, and asks for one where it is due. In memory only."""

    completer: Completer
    demands: Demands
    clock: Clock
    queue: WorkQueue
    proofs: dict[str, Proof] = field(default_factory=dict)
    _suspects: set[str] = field(default_factory=set)
    _tasks: dict[str, asyncio.Task[None]] = field(default_factory=dict)

    def suspect(self, slot: str) -> None:
        """Note that a request ended at a slot's engine without a byte: it is asked once no other is there."""
        self._suspects.add(slot)
        self.queue.add(slot)

    def follow(self, snapshot: Snapshot, busy: Container[str]) -> None:
        """Drop proofs that are void, and begin those that are due; a slot that is ``busy`` is being changed."""
        self._suspects &= snapshot.slots.keys()
        for name, proof in list(self.proofs.items()):
            slot = snapshot.slots.get(name)
            if slot is None or is_void(slot, proof, self.demands.serving(name)):
                del self.proofs[name]
        for name, slot in snapshot.slots.items():
            if name not in busy and name not in self._tasks and self._is_due(slot, snapshot.at):
                self._begin(slot)

    async def close(self) -> None:
        """Give up the proofs under way."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _is_due(self, slot: SlotStatus, now: float) -> bool:
        name = slot.name
        return is_due(slot, self.proofs.get(name), self.demands.serving(name), now, suspected=name in self._suspects)

    def _begin(self, slot: SlotStatus) -> None:
        task = asyncio.create_task(self._prove(slot), name=f"proof of {slot.name}")
        self._tasks[slot.name] = task
        task.add_done_callback(lambda _: self._tasks.pop(slot.name))

    async def _prove(self, slot: SlotStatus) -> None:
        """Ask the engine, and have the slot looked at with what came of it."""
        began, is_idle = self.clock.now(), slot.failing is None
        reply = await self._ask(slot)
        now = self.clock.now()
        if reply.error and is_idle and self.demands.was_used(slot.name, since=began):
            return  # it may have waited behind that request; a suspect is asked again
        self._suspects.discard(slot.name)
        self.proofs[slot.name] = Proof(
            slot.run, not reply.error, now, now - began, reply.error, reply.status, suspected=is_idle
        )
        self.queue.add(slot.name)

    async def _ask(self, slot: SlotStatus) -> Reply:
        ask = ask_of(slot.serves, is_healthy=slot.failing is None)
        return _NO_REQUEST if ask is None else await self.completer.complete(slot.serves.port, ask)
