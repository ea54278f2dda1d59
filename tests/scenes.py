"""A whole hal0 over a host in memory: manifests as texts, a real store, and time that passes when it is told to."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from fakes import FakeClock, FakeCompleter, FakeFetcher, FakeHardware, FakeHost, FakeProber, FakeRuntime
from worlds import FACTS, SEEDS, TEMPLATES

from hal0.core.documents import Document, ManifestError, parse_file
from hal0.core.lock import LOCK_NAME
from hal0.core.state import SlotState
from hal0.core.status import SlotStatus
from hal0.core.steps import Plan
from hal0.core.validate import validate
from hal0.host.lockfile import lock_among
from hal0.host.manifests import ManifestRoot, ManifestSet
from hal0.host.ports import MANIFESTS
from hal0.host.store import Store
from hal0.loop.act import Actor
from hal0.loop.demand import Demands
from hal0.loop.desire import Source
from hal0.loop.lastwords import LastWords
from hal0.loop.lessons import Lessons
from hal0.loop.loads import Loads
from hal0.loop.news import Feed
from hal0.loop.observe import Observer
from hal0.loop.prove import Prover
from hal0.loop.publish import Publisher
from hal0.loop.queue import WorkQueue
from hal0.loop.reconcile import Leave, Reconciler
from hal0.loop.transfers import Transfers

MODEL = {"model.yaml": "kind: Model\nname: m\npath: m.gguf\n"}
_MOST_PASSES = 30
_TURNS = 25


def slot(name: str, **settings: object) -> dict[str, str]:
    """Return the manifest file of one slot."""
    extra = "".join(f"{key}: {value}\n" for key, value in settings.items())
    return {f"{name}.yaml": f"kind: Slot\nname: {name}\nmodel: m\n{extra}"}


def slots(*names: str) -> dict[str, str]:
    """Return the manifest files of some slots, and of the model that they serve."""
    return MODEL | {file: text for name in names for file, text in slot(name).items()}


_parse = functools.cache(parse_file)


@dataclass
class Manifests(ManifestRoot):
    """A manifest root in memory: file names and texts. ``fault`` is what reading it runs into."""

    path: Path = Path("/manifests")
    files: dict[str, str] = field(default_factory=dict)
    fault: str = ""
    revision: str = "abc"

    async def load(self) -> ManifestSet:
        if self.fault:
            return ManifestSet(errors=(ManifestError(str(self.path), 0, self.fault),))
        documents: list[Document] = []
        errors: list[ManifestError] = []
        own = {file: text for file, text in self.files.items() if file != LOCK_NAME}
        for file, text in sorted(own.items()):
            found, wrong = _parse(f"{self.path}/{file}", text)
            documents += found
            errors += wrong
        good, invalid = validate(documents)
        made = ManifestSet(tuple(good), (*errors, *invalid), self.revision, len(own), own)
        return made.locked(lock_among(self.path, self.files))


@dataclass
class Scene:
    """One hal0 on one host. ``declare`` what is wanted, then let it ``settle`` or let time ``pass_``."""

    folder: Path
    host: FakeHost = field(default_factory=FakeHost)
    clock: FakeClock = field(default_factory=FakeClock)
    prober: FakeProber = field(default_factory=FakeProber)
    hardware: FakeHardware = field(default_factory=FakeHardware)
    completer: FakeCompleter = field(default_factory=FakeCompleter)
    fetcher: FakeFetcher = field(default_factory=FakeFetcher)
    manifests: Manifests = field(default_factory=Manifests)
    passes: int = 0

    def __post_init__(self) -> None:
        models = self.folder / "models"
        models.mkdir(exist_ok=True)
        (models / "m.gguf").touch()
        self.facts = replace(FACTS, model_dir=str(models))
        self.runtime = FakeRuntime(self.host)
        self.store = Store(self.folder / "hal0.db")
        self.reconciler = self.make()

    def make(self) -> Reconciler:
        """Put a reconciler together, as ``hal0.loop.assembly`` does."""
        queue, feed = WorkQueue(), Feed()
        demands = Demands(queue, self.clock)
        source = Source(self.manifests, self.facts, self.store, TEMPLATES, SEEDS)

        def look(names: frozenset[str]) -> None:
            for name in names:
                queue.add(name)

        transfers = Transfers(self.runtime, self.fetcher, self.clock, feed, self.store.digests, look)
        prover = Prover(self.completer, demands, self.clock, queue)
        queue.add(MANIFESTS)
        return Reconciler(
            source=source,
            observer=Observer(self.runtime, self.prober, self.hardware, prover.proofs, digests=self.store.digests),
            actor=Actor(self.runtime, self.store, transfers, demands, feed),
            store=self.store,
            clock=self.clock,
            queue=queue,
            feed=feed,
            publisher=Publisher(source, self.store, self.clock, feed, Loads(self.store)),
            demands=demands,
            last_words=LastWords(self.runtime),
            lessons=Lessons(self.store.measured),
            prover=prover,
        )

    def restart(self) -> None:
        """Begin a new hal0 over the same host and the same files; the old one is gone without a word."""
        self.store.close()
        self.runtime = FakeRuntime(self.host)
        self.store = Store(self.folder / "hal0.db")
        self.reconciler = self.make()

    def declare(self, *files: dict[str, str]) -> None:
        """Put manifests in the place of all that were there."""
        self.manifests.files = {name: text for part in files for name, text in part.items()}
        self.reconciler.queue.add(MANIFESTS)

    def demand(self, name: str) -> None:
        """Have a request ask for a slot."""
        slot = self.reconciler.snapshot.slots.get(name)
        self.reconciler.demands.begin(name, is_up=slot is not None and slot.state.is_dispatchable)

    def look(self, *names: str) -> None:
        """Say that something happened to slots."""
        for name in names:
            self.reconciler.queue.add(name)

    def slot(self, name: str) -> SlotStatus:
        return self.reconciler.snapshot.slots[name]

    def states(self) -> dict[str, SlotState]:
        return {name: found.state for name, found in self.reconciler.snapshot.slots.items()}

    async def settle(self) -> None:
        """Make passes until none is due at this moment. A loop that would spin fails the test."""
        for _ in range(_MOST_PASSES):
            await calm()
            keys = self.reconciler.queue.take(self.clock.now())
            if not keys:
                return
            self.passes += 1
            await self.reconciler.run(keys)
        raise AssertionError(f"{_MOST_PASSES} passes at one moment, and more to come: the loop spins")

    async def pass_(self, seconds: float) -> None:
        """Let time pass, and make each pass when it is due."""
        await self.settle()
        end = self.clock.now() + seconds
        while (due := self.reconciler.queue.next_due()) is not None and due <= end:
            self.clock.time = max(due, self.clock.time)
            await self.settle()
        self.clock.time = end

    async def until(self, what: Callable[[], object], *, within: float = 3600.0) -> None:
        """Let time pass until something is so."""
        end = self.clock.now() + within
        await self.settle()
        while not what():
            due = self.reconciler.queue.next_due()
            if due is None or due > end:
                raise AssertionError(f"not within {within:.0f} s; states: {self.states()}")
            self.clock.time = max(due, self.clock.time)
            await self.settle()

    async def plan(self) -> Plan:
        """Read, look and plan, and change nothing."""
        return await self.reconciler.survey()

    async def make_pass(self, leave: Leave | None = None) -> Plan:
        """Make one whole pass, with an operator's leave."""
        return await self.reconciler.run(frozenset({MANIFESTS}), leave)

    @asynccontextmanager
    async def driven(self, *, flowing: bool = False) -> AsyncIterator[None]:
        """Make passes beside what the test does; with ``flowing``, time passes too, from one due moment to the next."""

        async def drive() -> None:
            while True:
                await self.settle()
                due = self.reconciler.queue.next_due()
                if flowing and due is not None:
                    self.clock.time = max(due, self.clock.time)
                await asyncio.sleep(0)

        task = asyncio.create_task(drive())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def close(self) -> None:
        await self.reconciler.drop_kept()
        await self.reconciler.actor.transfers.close()
        await self.reconciler.prover.close()
        self.store.close()


async def calm() -> None:
    """Let everything run that can run now: what is in memory needs a few turns of the event loop."""
    for _ in range(_TURNS):
        await asyncio.sleep(0)


@asynccontextmanager
async def scene(folder: Path) -> AsyncIterator[Scene]:
    """Return a scene, and close it after the test."""
    made = Scene(folder)
    try:
        yield made
    finally:
        await made.close()
