"""Everything of one hal0 on one host, put together: the only place that knows which adapter stands behind a port."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hal0.core.spec import RuntimeName
from hal0.errors import UsageError
from hal0.host.clock import SystemClock
from hal0.host.completer import HttpCompleter
from hal0.host.fetcher import HttpFetcher
from hal0.host.hardware import HostHardware
from hal0.host.manifests import ManifestRoot
from hal0.host.ports import Clock, Prober, Runtime
from hal0.host.probe import HttpProber
from hal0.host.scope import Scope
from hal0.host.store import Store
from hal0.loop.act import Actor
from hal0.loop.demand import Demands
from hal0.loop.desire import Source, host_facts
from hal0.loop.lastwords import LastWords
from hal0.loop.lessons import Lessons
from hal0.loop.loads import Loads
from hal0.loop.news import Feed
from hal0.loop.observe import Observer
from hal0.loop.prove import Prover
from hal0.loop.publish import Publisher
from hal0.loop.queue import WorkQueue
from hal0.loop.reconcile import Reconciler
from hal0.loop.transfers import Transfers

RuntimeChoice = Literal["auto", "systemd", "process"]


@dataclass(frozen=True, slots=True)
class Settings:
    """What the command line says: where the manifests are, whose systemd, and which runtime."""

    root: Path
    scope: Scope
    runtime: RuntimeChoice = "auto"

    @property
    def runtime_name(self) -> RuntimeName:
        """The runtime: systemd where it runs and podman is there, else supervised processes."""
        if self.runtime != "auto":
            return self.runtime
        booted = Path("/run/systemd/system").is_dir() and shutil.which("podman") is not None
        return "systemd" if booted else "process"

    @property
    def definitions(self) -> Path:
        """The folder that holds slots' definitions."""
        return self.scope.unit_dir if self.runtime_name == "systemd" else self.scope.state_dir / "slots"


def make_runtime(settings: Settings) -> Runtime:
    """Return the adapter of a runtime. Imports are here: the CLI must not pay for D-Bus and podman."""
    if settings.runtime_name == "systemd":
        from hal0.host.systemd_runtime import SystemdRuntime

        return SystemdRuntime(settings.scope)
    from hal0.host.process import ProcessRuntime

    return ProcessRuntime(settings.scope.state_dir)


def make_source(settings: Settings, store: Store) -> Source:
    """Return the manifests of the root, resolved for this host."""
    if not settings.root.exists():
        hint = "name the folder that holds your manifests"
        raise UsageError(f"there is no {settings.root}", hint=hint)
    facts = host_facts(settings.runtime_name, settings.scope.state_dir, rootless=settings.scope.is_user)
    return Source(ManifestRoot(settings.root.resolve()), facts, store)


def make_hardware(settings: Settings, clock: Clock) -> HostHardware:
    """Return the adapter of this machine's hardware."""
    return HostHardware(clock, is_own_group=settings.runtime_name == "process")


def make_reconciler(settings: Settings, store: Store, runtime: Runtime, prober: Prober) -> Reconciler:
    """Return a reconciler over real adapters."""
    queue, feed, clock = WorkQueue(), Feed(), SystemClock()
    source = make_source(settings, store)

    def look(slots: frozenset[str]) -> None:
        for slot in slots:
            queue.add(slot)

    transfers, demands = Transfers(runtime, HttpFetcher(), clock, feed, store.digests, look), Demands(queue, clock)
    prover = Prover(HttpCompleter(), demands, clock, queue)
    return Reconciler(
        source=source,
        observer=Observer(runtime, prober, make_hardware(settings, clock), prover.proofs, digests=store.digests),
        actor=Actor(runtime, store, transfers, demands, feed),
        store=store,
        clock=clock,
        queue=queue,
        feed=feed,
        publisher=Publisher(source, store, clock, feed, Loads(store)),
        demands=demands,
        last_words=LastWords(runtime),
        lessons=Lessons(store.measured),
        prover=prover,
    )


@contextmanager
def open_store(settings: Settings, *, read_only: bool = False) -> Iterator[Store]:
    """Open the store of a scope."""
    store = Store(settings.scope.state_dir / "hal0.db", read_only=read_only)
    try:
        yield store
    finally:
        store.close()


@asynccontextmanager
async def open_host(settings: Settings) -> AsyncIterator[tuple[Runtime, Prober]]:
    """Connect to the host, and let go of it."""
    runtime, prober = make_runtime(settings), HttpProber()
    try:
        yield runtime, prober
    finally:
        await prober.close()
        await runtime.close()
