"""``hal0 serve``: the daemon."""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import signal
import sys
from pathlib import Path

from hal0.cli.local import settings
from hal0.core.status import SlotStatus
from hal0.host.notify import notify
from hal0.host.ports import MANIFESTS
from hal0.loop.assembly import Settings
from hal0.loop.daemon import running, summary
from hal0.loop.reconcile import Reconciler
from hal0.web.app import serving

_FILES = 65536


def serve(path: Path | None, *, listen: str | None, runtime: str, scope: str | None) -> int:
    """Run until SIGTERM or SIGINT."""
    _log_plainly()
    _allow_connections()
    return asyncio.run(_serve(settings(path, runtime, scope), listen))


def _allow_connections() -> None:
    """Open as many files as the system lets this process: each request may hold two, and 1,024 is a common limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES if hard == resource.RLIM_INFINITY else min(hard, _FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _log_plainly() -> None:
    """Log to stderr; the journal stamps lines itself."""
    stamped = "%(asctime)s %(levelname)s %(message)s"
    plain = "%(levelname)s %(message)s"
    logging.getLogger("watchfiles").setLevel(logging.WARNING)
    logging.basicConfig(
        level=logging.INFO, format=plain if "JOURNAL_STREAM" in os.environ else stamped, stream=sys.stderr
    )


async def _serve(found: Settings, listen: str | None) -> int:
    stop = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, stop.set)
    async with running(found, stop_children=True) as reconciler:
        await reconciler.run(frozenset({MANIFESTS}))
        address = listen or reconciler.desired.host.listen
        async with serving(reconciler, listen=address, socket=found.scope.run_dir / "hal0.sock"):
            notify("READY=1", f"STATUS={summary(reconciler)}")
            greeter = asyncio.create_task(_greet(reconciler, found, address))
            await stop.wait()
            greeter.cancel()
            notify("STOPPING=1")
            logging.getLogger(__name__).info("stopping")
    return 0


async def _greet(reconciler: Reconciler, found: Settings, address: str) -> None:
    """Tell a person what is served and, once a slot is ready, how to ask it."""
    logging.getLogger(__name__).info(
        "serving %s with the %s runtime on http://%s", found.root, found.runtime_name, address
    )
    with reconciler.feed.subscribe() as news:
        while not (ready := [slot for slot in reconciler.snapshot.slots.values() if slot.is_ready]):
            await news.get()
    if sys.stdout.isatty() or os.environ.get("HAL0_GREET"):
        sys.stdout.write(_example(ready[0], address))
        sys.stdout.flush()


def _example(slot: SlotStatus, address: str) -> str:
    return f"""
{slot.name} is ready. Ask it something:

  curl http://{address}/v1/chat/completions -H 'Content-Type: application/json' \\
    -d '{{"model": "{slot.name}", "messages": [{{"role": "user", "content": "Say hello."}}]}}'

Ctrl-C stops everything.
"""
