"""Batches: what a pass found to do, carried out beside the passes, and what came of it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from hal0.core.backoff import Attempt, tried
from hal0.core.batches import batches
from hal0.core.engines import is_stand_in, slot_of
from hal0.core.schedule import Standing
from hal0.core.spec import Desired, SlotSpec
from hal0.core.steps import Action, Change, Plan, StepKind, faults
from hal0.host.ports import Clock
from hal0.host.store import Store
from hal0.loop.act import Actor, Halt
from hal0.loop.counts import Counts
from hal0.loop.demand import Demands
from hal0.loop.queue import WorkQueue
from hal0.loop.recorder import Recorder


@dataclass
class Batches:
    """The batches that are under way. ``attempts`` are the tries of each engine, which they add to.

    ``busy`` engines are in a batch, ``stopping`` those that it only stops, and ``unseen`` those that were in one and
    have not been looked at since.
    """

    actor: Actor
    store: Store
    queue: WorkQueue
    clock: Clock
    demands: Demands
    counts: Counts
    recorder: Recorder
    attempts: dict[str, Attempt]
    busy: set[str] = field(default_factory=set)
    stopping: set[str] = field(default_factory=set)
    unseen: set[str] = field(default_factory=set)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def touched(self) -> frozenset[str]:
        """The engines that a batch works on, or did since they were looked at."""
        return frozenset(self.busy | self.unseen)

    @property
    def is_busy(self) -> bool:
        """Whether a batch is under way, or its slots have not been looked at since."""
        return bool(self._tasks or self.unseen)

    async def settle(self) -> None:
        """Wait until no batch is under way."""
        while self._tasks:
            await asyncio.gather(*self._tasks)

    def begin(self, current: Plan, desired: Desired, specs: Mapping[str, SlotSpec]) -> None:
        """Begin what can be begun of a plan. ``specs`` is what each engine is to have, by its key."""
        changes = tuple(change for change in current.changes if change.steps and not self._is_held_up(change, specs))
        if not changes:
            return
        begun = replace(current, changes=changes)
        if mistakes := "; ".join(faults(begun)):
            raise AssertionError(f"the planner made a mistake: {mistakes}")
        self.recorder.record([change for change in changes if not change.awaits], begun.placement, desired)
        self.busy |= {change.slot for change in changes}
        self.stopping |= {change.slot for change in changes if change.stops and not change.has(StepKind.START)}
        self.demands.close(change.slot for change in changes if change.stops and not change.awaits)
        for batch in batches(begun, {change.slot: self._ports(change.slot, specs) for change in changes}):
            task = asyncio.create_task(self._batch(batch, desired, specs))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _is_held_up(self, change: Change, specs: Mapping[str, SlotSpec]) -> bool:
        """Return whether a batch works on a slot, or did since the look; or has its port; or it waits for files."""
        if change.slot in self.touched:
            return True
        if change.awaits and self.actor.transfers.is_waiting(change.slot, change.awaits):
            return True
        held = frozenset[int]().union(*(self._ports(engine, specs) for engine in self.busy))
        return bool(held & self._ports(change.slot, specs))

    def _ports(self, engine: str, specs: Mapping[str, SlotSpec]) -> frozenset[int]:
        """Return the port that an engine was last given, and the one that it is to have."""
        found = (self.store.applied_to(engine), specs.get(engine))
        return frozenset(spec.port for spec in found if spec)

    async def _batch(self, batch: Plan, desired: Desired, specs: Mapping[str, SlotSpec]) -> None:
        engines, started = {change.slot for change in batch.changes}, self.store.started
        try:
            halted = await self.actor.act(batch, specs)
            self._count_attempts(batch, halted, desired)
            self._count_done(batch, halted, started)
        finally:
            self.busy -= engines
            self.stopping -= engines
            self.unseen |= engines
            for engine in engines:
                self.queue.add(engine)

    def _count_attempts(self, batch: Plan, halted: Mapping[str, Halt], desired: Desired) -> None:
        """Note how a batch went for what was desired when it began: a newer spec has not been tried."""
        for change in batch.changes:
            slot, halt = desired.slots.get(slot_of(change.slot)), halted.get(change.slot)
            # A stand-in goes when it has done its part, or failed: that must not be forgotten with it.
            if change.action is Action.DELETE and not halt and not is_stand_in(change.slot):
                self.attempts.pop(change.slot, None)
            if (halt and halt.waits) or not (halt or change.has(StepKind.START)):
                continue
            error, spec_hash = halt.message if halt else "", slot.spec_hash if slot else ""
            before = self.attempts.get(change.slot)
            self.attempts[change.slot] = tried(before, spec_hash, self.clock.now(), error, failed=change.is_fault)

    def _count_done(self, batch: Plan, halted: Mapping[str, Halt], started: frozenset[str]) -> None:
        """Count who of ``started`` was started again, and note when all of a batch was carried out."""
        for change in batch.changes:
            if change.slot in started and change.slot not in halted and change.has(StepKind.START):
                self.counts.restarted(change)
            verdict = batch.placement.verdicts.get(change.slot)
            if verdict and verdict.standing is Standing.EVICTED and verdict.ground and change.slot not in halted:
                self.counts.evictions[change.slot, verdict.ground] += 1
        if not halted:
            self.store.note_apply(self.clock.wall())
