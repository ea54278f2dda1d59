"""Proofs run beside the loop: a wedged engine takes its whole deadline. One at a time for a slot."""

from __future__ import annotations

import asyncio
from collections.abc import Container, Coroutine, Iterable
from dataclasses import dataclass, field

from hal0.core.judge import has_to_prove
from hal0.core.proof import Proof, Reply, ask_of
from hal0.core.replacement import Candidate
from hal0.core.spec import SlotSpec
from hal0.core.status import SlotStatus, Snapshot
from hal0.core.wedge import is_due, is_void
from hal0.host.ports import Clock, Completer
from hal0.host.tasks import end
from hal0.loop.demand import Demands
from hal0.loop.queue import WorkQueue

_NO_REQUEST = Reply(0, "its probe fails")
"""The proof of an engine that no cheap request is known for."""


@dataclass
class Prover:
    """Keeps the last proof of each engine, and asks for one where it is due. In memory only."""

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

    def follow(self, snapshot: Snapshot, busy: Container[str], candidates: Iterable[Candidate] = ()) -> None:
        """Drop proofs that are void, and begin those that are due; an engine that is ``busy`` is being changed.

        ``candidates`` are to replace others. The engine of a slot that its stand-in serves for is asked as one of them
        alone.
        """
        self._suspects &= snapshot.slots.keys()
        for engine, proof in list(self.proofs.items()):
            if self._is_void(snapshot, engine, proof):
                del self.proofs[engine]
        for candidate in candidates:
            self._begin(candidate.engine, busy, self._try(candidate))
        for name, slot in snapshot.slots.items():
            if slot.engine == name and self._is_due(slot, snapshot.at):
                self._begin(name, busy, self._prove(slot))

    async def close(self) -> None:
        """Give up the proofs under way."""
        await end(self._tasks.values())

    def _is_due(self, slot: SlotStatus, now: float) -> bool:
        name, proof = slot.name, self.proofs.get(slot.name)
        suspected = name in self._suspects
        return has_to_prove(slot, proof) or is_due(slot, proof, self.demands.serving(name), now, suspected=suspected)

    def _is_void(self, snapshot: Snapshot, engine: str, proof: Proof) -> bool:
        slot, phase = snapshot.slots.get(engine), snapshot.phases.get(engine)
        if slot and slot.engine == engine:
            return is_void(slot, proof, self.demands.serving(engine))
        return phase is None or phase.run != proof.invocation

    def _begin(self, engine: str, busy: Container[str], proving: Coroutine[None, None, None]) -> None:
        if engine in busy or engine in self._tasks:
            proving.close()
            return
        task = asyncio.create_task(proving, name=f"proof of {engine}")
        self._tasks[engine] = task
        task.add_done_callback(lambda _: self._tasks.pop(engine))

    async def _try(self, candidate: Candidate) -> None:
        """Ask an engine that is to replace another, and have it looked at with what came of it."""
        began = self.clock.now()
        reply = await self._ask(candidate.spec, is_healthy=True)
        self.queue.add(candidate.engine)
        if reply.error and self.demands.serving(candidate.engine):
            return  # it may have waited behind a request: it is asked again
        now = self.clock.now()
        self.proofs[candidate.engine] = Proof(
            candidate.run, not reply.error, now, now - began, reply.error, reply.status, suspected=True
        )

    async def _prove(self, slot: SlotStatus) -> None:
        """Ask the engine, and have the slot looked at with what came of it."""
        began, is_idle = self.clock.now(), slot.failing is None
        reply = await self._ask(slot.serves, is_healthy=is_idle)
        if reply.error and slot.trial:  # much hangs on it, and an engine's first answer may be its slowest
            reply = await self._ask(slot.serves, is_healthy=is_idle)
        now = self.clock.now()
        if reply.error and is_idle and self.demands.was_used(slot.name, since=began):
            if slot.trial:
                self.queue.add(slot.name)
            return  # it may have waited behind that request; a suspect is asked again, and who is on trial is at once
        self._suspects.discard(slot.name)
        self.proofs[slot.name] = Proof(
            slot.run, not reply.error, now, now - began, reply.error, reply.status, suspected=is_idle
        )
        self.queue.add(slot.name)

    async def _ask(self, spec: SlotSpec, *, is_healthy: bool) -> Reply:
        ask = ask_of(spec, is_healthy=is_healthy)
        return _NO_REQUEST if ask is None else await self.completer.complete(spec.port, ask)
