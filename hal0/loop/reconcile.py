"""The heart: load, observe, plan, act, derive the status, publish. Level-triggered: an event only says where to look.

A pass is quick: it looks, plans, and hands the steps to a batch that runs beside it. A slot whose batch is under way is
left out of further batches, so that a slow stop of one slot holds up no other.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from hal0.core.arbiter import overcommitted
from hal0.core.backoff import Attempt, failed, settled
from hal0.core.conditions import ConditionType
from hal0.core.engines import stand_in_of
from hal0.core.facts import Known
from hal0.core.observed import Observed, ProbeResult
from hal0.core.override import Override, expired, spent
from hal0.core.plan import plan
from hal0.core.reasons import is_as_declared
from hal0.core.rebuild import is_seen
from hal0.core.replace import phases, replacements
from hal0.core.replacement import Candidate
from hal0.core.schedule import Standing, Verdict
from hal0.core.spec import Desired, SlotSpec
from hal0.core.status import Snapshot
from hal0.core.steps import Plan
from hal0.core.world import World
from hal0.host.library import Library
from hal0.host.ports import EVERYTHING, MANIFESTS, USE, Clock
from hal0.host.store import Store
from hal0.host.tasks import end
from hal0.loop.act import Actor
from hal0.loop.batching import Batches
from hal0.loop.counts import Counts
from hal0.loop.demand import Demands
from hal0.loop.desire import Source
from hal0.loop.hand import lapse
from hal0.loop.history import Asked, History
from hal0.loop.lastwords import LastWords
from hal0.loop.lessons import Lessons
from hal0.loop.looks import next_looks, replacement_looks
from hal0.loop.news import Feed, PassNews
from hal0.loop.observe import Observer, is_active
from hal0.loop.prove import Prover
from hal0.loop.publish import Publisher
from hal0.loop.queue import WorkQueue
from hal0.loop.rebuild import hold
from hal0.loop.recorder import Recorder
from hal0.loop.requests import Requests
from hal0.loop.trials import Trials

T = TypeVar("T")
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Leave:
    """What the operator allows a pass to do: touch all slots or a few, and remove most of them or not.

    ``asked``: it is the first pass of an apply, and who asked for that.
    """

    limit: frozenset[str] | None = None
    prune_all: bool = False
    asked: Asked | None = None


@dataclass
class Reconciler:
    """Makes the host what the manifests say, one pass at a time."""

    source: Source
    observer: Observer
    actor: Actor
    store: Store
    clock: Clock
    queue: WorkQueue
    feed: Feed
    publisher: Publisher
    demands: Demands
    last_words: LastWords
    lessons: Lessons
    prover: Prover
    leave: Leave = field(default_factory=Leave)
    desired: Desired = field(default_factory=lambda: Desired({}))
    attempts: dict[str, Attempt] = field(default_factory=dict)
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    counts: Counts = field(default_factory=Counts)
    requests: Requests = field(default_factory=Requests)
    library: Library = field(default_factory=Library)
    history: History = field(init=False)
    trials: Trials = field(init=False)
    batches: Batches = field(init=False)
    _made_of: tuple[object, ...] = ()
    _specs: Mapping[str, SlotSpec] = field(default_factory=dict)
    _candidates: tuple[Candidate, ...] = ()
    _kept: set[asyncio.Task[Any]] = field(default_factory=set)
    _passes: asyncio.Lock = field(default_factory=asyncio.Lock)

    def __post_init__(self) -> None:
        self.history = History(self.store.ledger, self.clock)
        self.trials = Trials(self.source, self.store, self.clock, self.queue, self.prover.proofs)
        recorder = Recorder(self.store, self.history, self.requests, self.clock)
        beside = (self.actor, self.store, self.queue, self.clock, self.demands, self.counts, recorder, self.attempts)
        self.batches = Batches(*beside)

    @property
    def snapshot(self) -> Snapshot:
        """The picture that the last pass published."""
        return self.publisher.snapshot

    async def run(self, keys: frozenset[str], leave: Leave | None = None) -> Plan:
        """Make one pass over what the keys name, and return the plan that it began to carry out."""
        async with self._passes:
            with self.counts.timed(self.clock):
                current = await self._survey(keys, leave or self.leave)
                self.batches.begin(current, self.desired, self._specs)
                self._close_doors(current)
                self.prover.follow(self.snapshot, self.batches.touched, self._candidates)
            self.begun.set()
            return current

    async def survey(self, leave: Leave | None = None) -> Plan:
        """Load, look, plan and publish, and change nothing on the host."""
        async with self._passes:
            return await self._survey(frozenset({MANIFESTS}), leave or self.leave)

    async def _survey(self, keys: frozenset[str], leave: Leave) -> Plan:
        self._lapse()
        if MANIFESTS in keys or not self.snapshot.is_ready or self._made_of != self._remembered:
            await self._load()
        if leave.asked:
            self._take_up(leave.asked, leave.limit)
        unknown = self.desired.slots.keys() - self.store.specs.keys()
        observed = await self._observe(keys)
        self._drop(spent(self.store.overrides.rows, self.desired, self.store.specs, observed))
        world, current = self._planned(observed, leave)
        if hold(self.store, world, current, unknown, self.clock.wall()):
            world, current = self._planned(observed, leave)
        self._specs, self._candidates = world.specs, world.candidates
        rejected = self._publish(world, current)
        return current.without(rejected).limited(leave.limit)

    def _planned(self, observed: Observed, leave: Leave) -> tuple[World, Plan]:
        world = self.world(observed)
        self._follow(world)
        return world, plan(world, prune_all=leave.prune_all)

    def _take_up(self, asked: Asked, limit: frozenset[str] | None) -> None:
        """Begin what a person asked for. Who has specs tried means now: a failed start is tried again at once."""
        self.history.begin(asked, self.desired)
        if asked.atomic:
            for name in self.trials.begin(self.desired, asked.who, limit):
                self.attempts.pop(name, None)
                self.attempts.pop(stand_in_of(name), None)

    @property
    def _remembered(self) -> tuple[object, ...]:
        """What the store has that goes into ``desired`` beside the manifests."""
        return self.store.overrides.rows, self.store.trials.rejections

    async def _load(self) -> None:
        self._made_of = self._remembered
        desired = await self.source.load()
        if not desired.problems:  # else a slot may be among them only because nothing is removed now
            self.store.drop_deletions(desired.slots)
            self.actor.transfers.keep(model.download for model in desired.registry.values())
        if desired is not self.desired:
            self.store.set_generation(desired.generation, desired.content)
            self.desired = desired
        self.history.archive(desired, self.source.texts)

    def _lapse(self) -> None:
        """Forget and tell of the overrides that have had their time."""
        if over := expired(self.store.overrides.rows, self.clock.wall()):
            self._drop(over)
            self.store.ledger.add_acts([lapse(override, self.clock.wall()) for override in over])

    def _drop(self, over: tuple[Override, ...]) -> None:
        for override in over:
            _log.info("slot %s: override %s %s %s is over", *override.key, override.said, override.by)
        self.store.overrides.change(drop=[override.key for override in over])

    @asynccontextmanager
    async def between_passes(self) -> AsyncIterator[None]:
        """Hold passes up while files change that belong together: none of them may see the half."""
        async with self._passes:
            yield

    def knows(self, slot: str) -> bool:
        """Return whether a slot has a definition, or the picture that clients are shown still has it."""
        return slot in self.store.specs or slot in self.snapshot.slots

    def is_busy_with(self, slot: str) -> bool:
        """Return whether a batch works on a slot, or did since it was looked at."""
        return bool({slot, stand_in_of(slot)} & self.batches.touched)

    def keep(self, going_on: Coroutine[None, None, T]) -> asyncio.Task[T]:
        """Begin what is to go on although whoever asked for it goes away."""
        task = asyncio.create_task(going_on)
        self._kept.add(task)
        task.add_done_callback(self._kept.discard)
        return task

    async def drop_kept(self) -> None:
        """Give up what goes on by itself: hal0 ends."""
        await end(self._kept)

    def world(self, observed: Observed, desired: Desired | None = None) -> World:
        """Return everything that a plan is made of, as of now. ``desired`` may be what is not in force yet."""
        wanted, store = desired or self.desired, self.store
        world = World(
            desired=wanted,
            observed=observed,
            owned=self.store.specs,
            started=self.store.started,
            attempts=self.attempts,
            demand=self.demands.all,
            overrides=self.store.overrides.rows,
            now=self.clock.now(),
            deletions=self.store.deletions,
            claims=self.lessons.claims({name: slot.spec for name, slot in wanted.slots.items()}),
            held=self.lessons.claims({**store.specs, **store.stand_ins}),
            busy=self.batches.touched,
            stopping=frozenset(self.batches.stopping),
            stand_ins=store.stand_ins,
            pulling=self.actor.transfers.waiting,
        )
        world = replace(world, phases=phases(world, self.snapshot.phases))
        return replace(world, replacing=replacements(world, lambda spec: self.source.rendered(spec, wanted)))

    def _follow(self, world: World) -> None:
        """Take from the engines that are replaced what is to be remembered: what is in place, and tries that failed."""
        for found in world.replacing.values():
            is_there = found.key not in world.busy and is_as_declared(found.stand_in, world.observed.slot(found.key))
            if is_there and self.store.applied_to(found.key) != found.stand_in.spec:
                self.store.remember(found.stand_in.spec)
                self.queue.add(found.key)
            if found.failure:
                spec_hash, lines = world.desired.slots[found.slot].spec_hash, self.last_words.of(found.key)
                error = "; last lines: ".join(filter(None, (found.failure, " | ".join(lines))))
                self.attempts[found.key] = failed(self.attempts.get(found.key), spec_hash, world.now, error)

    async def overcommitted(self, desired: Desired) -> dict[str, str]:
        """Return the slots that should always be up and for which there is no room beside the others, and why.

        ``desired`` may be what is not in force yet. The host is looked at for it, and nothing is changed.
        """
        async with self._passes:
            observed = await self._look(desired, None, self.clock.now())
            await self.lessons.learn(desired, self.store.specs, observed)
            return overcommitted(self.world(observed, desired))

    async def _observe(self, keys: frozenset[str]) -> Observed:
        now = self.clock.now()
        if keys == {USE}:
            return self.observer.again(now)
        everything = bool(keys & {EVERYTHING, MANIFESTS}) or not self.snapshot.is_ready
        self.batches.unseen = set() if everything else self.batches.unseen - keys
        only = None if everything else keys - {USE}
        observed = await self._look(self.desired, only, now)
        if self.source.recall(self.desired, observed):
            await self._load()
            observed = await self._look(self.desired, only, now)
        self._remember(observed)
        self.counts.look(observed)
        await self.last_words.update({**self.desired.slots, **self.store.stand_ins}, observed)
        await self.lessons.learn(self.desired, self.store.specs, observed)
        return observed

    async def _look(self, desired: Desired, only: frozenset[str] | None, now: float) -> Observed:
        store = self.store
        return await self.observer.look(desired, store.specs, store.stand_ins, only=only, now=now)

    def _remember(self, observed: Observed) -> None:
        """Record what is found in place as declared: after a crash between a write and its record, or a lost store."""
        for name, slot in self.desired.slots.items():
            seen = observed.slot(name)
            if name in self.batches.busy or not is_as_declared(slot, seen):
                continue
            if self.store.applied_to(name) != slot.spec and is_seen(seen):
                self.store.remember(slot.spec)
            if is_active(seen):
                self.store.note_start(name)
                before = self.snapshot.slots.get(name)
                was_up = before is not None and before.state.is_dispatchable
                self.demands.found_up(name, anew=not was_up and seen.probe == Known(ProbeResult.UP))

    def _close_doors(self, current: Plan) -> None:
        """Send no further requests to slots that have to make room and still answer some; a look opens them again."""
        verdicts = current.placement.verdicts
        going = [change.slot for change in current.changes if _is_to_drain(verdicts.get(change.slot))]
        self.demands.close([*going, *map(stand_in_of, going)])

    def _publish(self, world: World, current: Plan) -> frozenset[str]:
        """Put the new picture in place, and do what follows from it; return the slots whose spec was rejected."""
        snapshot = self.publisher.publish(world, current, self.last_words)
        self.history.note(snapshot, self.leave.limit)
        for name, slot in snapshot.slots.items():
            if not slot.is_ready:
                continue
            self.requests.is_ready(name)
            if slot.condition(ConditionType.SYNCED).status is not False:
                self._settle(name)
        rejected = self.trials.follow(snapshot, self.attempts, self.batches.touched)
        self._move_doors(world, snapshot)
        for key, due in (*next_looks(world, current, snapshot), *replacement_looks(world)):
            self.queue.add(key, due)
        self.feed.publish(PassNews(len(current.changes)))
        return rejected

    def _move_doors(self, world: World, snapshot: Snapshot) -> None:
        """Open the doors of slots that have been looked at, and close those of engines that are yet to be proved."""
        fresh = snapshot.slots if world.observed.fresh is None else world.observed.fresh
        self.demands.reopen(set(fresh) - self.batches.touched)
        self.demands.close(self.trials.unproved(snapshot))

    def _settle(self, name: str) -> None:
        """Note that a slot got ready; an engine that ends soon after, time and again, is backed off all the same."""
        self.attempts.pop(stand_in_of(name), None)
        before = self.attempts.pop(name, None)
        if before and (after := settled(before, self.clock.now())):
            self.attempts[name] = after


def _is_to_drain(verdict: Verdict | None) -> bool:
    return verdict is not None and verdict.standing is Standing.DRAINS
