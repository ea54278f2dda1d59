"""The running loop: events fill the queue, the queue drives the reconciler."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from hal0.core.lock import LOCK_NAME
from hal0.errors import Hal0Error
from hal0.host.lock import host_lock
from hal0.host.manifests import is_of_root
from hal0.host.notify import notify, watchdog_interval
from hal0.host.ports import EVERYTHING, MANIFESTS, Runtime
from hal0.host.tasks import end
from hal0.host.watch import settled_changes
from hal0.loop.assembly import Settings, make_reconciler, open_host, open_store
from hal0.loop.queue import WorkQueue
from hal0.loop.reconcile import Leave, Reconciler

_log = logging.getLogger(__name__)
_AFTER_A_FAULT = 5.0
_SETTLE = 0.05
"""Seconds between passes at the least: one act on a unit sends a burst of signals."""
_STOP_PATIENCE = 30.0
_GARBAGE = 20_000


@asynccontextmanager
async def running(
    settings: Settings,
    *,
    leave: Leave | None = None,
    patience: float = 0.0,
    told: Callable[[str], object] | None = None,
    stop_children: bool = False,
) -> AsyncIterator[Reconciler]:
    """Run the loop on this host for as long as the context lasts: under the host's lock, watching everything.

    The lock is waited for ``patience`` seconds at the most, and ``told`` is as ``host_lock`` has it.
    ``stop_children``: at the end, stop the slots of the process runtime. Those of systemd run on in any case.
    """
    with host_lock(settings.scope.state_dir, patience=patience, told=told), open_store(settings) as store:
        async with open_host(settings) as (runtime, prober):
            reconciler = make_reconciler(settings, store, runtime, prober)
            reconciler.leave = leave or reconciler.leave
            gc.freeze()  # what is loaded by now stays, and need not be looked through for garbage
            gc.set_threshold(_GARBAGE)  # requests leave little behind that only a search would find
            gc.enable()
            try:
                async with _tasks(settings, reconciler, runtime):
                    yield reconciler
            finally:
                await _wind_up(reconciler, runtime, stop_children=stop_children)


async def _wind_up(reconciler: Reconciler, runtime: Runtime, *, stop_children: bool) -> None:
    """End what is under way: transfers and proofs are given up, batches come to their end."""
    await reconciler.drop_kept()
    await reconciler.actor.transfers.close()
    await reconciler.prover.close()
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(reconciler.batches.settle(), _STOP_PATIENCE)
    if stop_children:
        await runtime.stop_all()


@asynccontextmanager
async def _tasks(settings: Settings, reconciler: Reconciler, runtime: Runtime) -> AsyncIterator[None]:
    tasks = [
        asyncio.create_task(drive(reconciler), name="drive"),
        asyncio.create_task(_runtime_events(runtime, reconciler.queue), name="runtime events"),
        asyncio.create_task(_manifest_events(settings.root, reconciler.queue), name="manifest events"),
        asyncio.create_task(_lock_events(settings.root, reconciler.queue), name="lock events"),
        asyncio.create_task(_definition_events(settings.definitions, reconciler.queue), name="definition events"),
        asyncio.create_task(_watchdog(reconciler), name="watchdog"),
    ]
    try:
        yield
    finally:
        await end(tasks)


async def drive(reconciler: Reconciler) -> None:
    """Make passes for ever, once somebody has made the first. One that breaks is logged and made again."""
    queue, clock = reconciler.queue, reconciler.clock
    await reconciler.begun.wait()
    while True:
        await asyncio.sleep(_SETTLE)
        await queue.wait(clock.now())
        keys = queue.take(clock.now())
        if not keys:
            continue
        try:
            await reconciler.run(keys)
        except Hal0Error as error:
            _log.warning("a pass failed, the next is in %.0f s: %s", _AFTER_A_FAULT, error)
            queue.add(MANIFESTS, clock.now() + _AFTER_A_FAULT)
        except Exception:  # noqa: BLE001  (a fault of ours must not take the slots' keeper down)
            _log.exception("a pass broke, the next is in %.0f s", _AFTER_A_FAULT)
            queue.add(MANIFESTS, clock.now() + _AFTER_A_FAULT)


async def _runtime_events(runtime: Runtime, queue: WorkQueue) -> None:
    async for key in runtime.events():
        queue.add(key)


async def _manifest_events(root: Path, queue: WorkQueue) -> None:
    async for _ in settled_changes(root, lambda path: is_of_root(path) or path.name == root.name):
        queue.add(MANIFESTS)


async def _lock_events(root: Path, queue: WorkQueue) -> None:
    """Notice the lock beside a root that is one file, of which nothing else is watched."""
    if root.is_file():
        async for _ in settled_changes(root.parent / LOCK_NAME, lambda path: path.name == LOCK_NAME):
            queue.add(MANIFESTS)


async def _definition_events(folder: Path, queue: WorkQueue) -> None:
    """Notice hand-edited definitions: no D-Bus signal tells of them."""
    async for _ in settled_changes(folder, lambda path: "hal0-slot@" in str(path) or path.suffix == ".toml"):
        queue.add(EVERYTHING)


async def _watchdog(reconciler: Reconciler) -> None:
    """Tell systemd that passes are made; a loop that hangs is silent, and is restarted."""
    interval = watchdog_interval()
    while interval is not None:
        await asyncio.sleep(interval)
        age = reconciler.clock.now() - reconciler.snapshot.at
        if age < 2 * reconciler.desired.host.resync + interval:
            notify("WATCHDOG=1", f"STATUS={summary(reconciler)}")


def summary(reconciler: Reconciler) -> str:
    """Return the daemon's state in a line."""
    slots = reconciler.snapshot.slots.values()
    ready = sum(slot.is_ready for slot in slots)
    return f"{ready} of {len(slots)} slots ready, generation {reconciler.snapshot.generation}"
