"""Acting without a daemon: the same reconciler, in this process, for one act."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from hal0.cli import client, show
from hal0.cli.client import place
from hal0.cli.options import Options
from hal0.core.explain import endpoint_of, explain
from hal0.core.routes import routes
from hal0.core.wire import Json
from hal0.errors import DaemonCame, UsageError
from hal0.host.lock import host_lock
from hal0.loop import capabilities as of_capabilities
from hal0.loop import operations
from hal0.loop import profiles as of_profiles
from hal0.loop.assembly import RuntimeChoice, Settings, make_reconciler, make_runtime, open_host, open_store
from hal0.loop.history import history_json
from hal0.loop.reconcile import Leave, Reconciler
from hal0.loop.why import why as of_slot

_LOCK_PATIENCE = 120.0
"""Seconds to wait for another hal0 that acts on this host."""


def settings(path: Path | None, runtime: str, scope: str | None) -> Settings:
    """Return the settings of a command; the root is the scope's own where none is named."""
    for choice in get_args(RuntimeChoice):
        if choice == runtime:
            found = place(scope)
            return Settings(path or found.manifests, found, choice)
    raise UsageError(f"runtime {runtime!r} is not known", hint="use auto, systemd or process")


def acting_settings(options: Options) -> Settings:
    """Return the settings for acting in this process. Raises ``UsageError`` for the runtime that needs a daemon."""
    found = settings(options.path, options.runtime, options.scope)
    if found.runtime_name == "process":
        hint = f"run `hal0 serve {found.root}`; it applies, and keeps it so"
        raise UsageError("the process runtime lives inside the daemon, and none is running", hint=hint)
    return found


@asynccontextmanager
async def acting(options: Options) -> AsyncIterator[Reconciler]:
    """Open the host for acts in this process, once no other hal0 acts on it. Raises as ``acting_settings``."""
    from hal0.loop.daemon import running  # only here: who looks needs none of it

    found = acting_settings(options)
    told = _Waiting(options.scope)
    async with running(found, leave=leave(options), patience=_LOCK_PATIENCE, told=told) as reconciler:
        yield reconciler


@dataclass
class _Waiting:
    """Says once that another hal0 is waited for; one that turns out to be the daemon is to be asked."""

    scope: str | None
    _is_said: bool = False

    def __call__(self, why: str) -> None:
        if client.is_running(self.scope):
            raise DaemonCame("the daemon came up meanwhile", hint="try again")
        if not self._is_said:
            show.note(why)
            self._is_said = True


def leave(options: Options) -> Leave:
    """Return what a pass may do."""
    return Leave(frozenset(options.limit) if options.limit else None, options.prune_all)


@asynccontextmanager
async def looking(options: Options) -> AsyncIterator[Reconciler]:
    """Open the host for a look: what is derived is written nowhere."""
    found = settings(options.path, options.runtime, options.scope)
    with open_store(found, read_only=True) as store:
        async with open_host(found) as (runtime, prober):
            yield make_reconciler(found, store, runtime, prober)


@asynccontextmanager
async def owning(options: Options) -> AsyncIterator[Reconciler]:
    """Open the host as ``looking`` does, once no other hal0 acts on it; what is learned of files is kept."""
    found = settings(options.path, options.runtime, options.scope)
    told = _Waiting(options.scope)
    with host_lock(found.scope.state_dir, patience=_LOCK_PATIENCE, told=told), open_store(found) as store:
        async with open_host(found) as (runtime, prober):
            yield make_reconciler(found, store, runtime, prober)


def picture(options: Options) -> Json:
    """Look at the host and return the whole picture."""
    return asyncio.run(_looked(options, operations.overview))


def slot(options: Options, name: str) -> Json:
    """Look at the host and return one slot in full."""
    return asyncio.run(_looked(options, lambda reconciler: operations.slot_detail(reconciler, name)))


def why(options: Options, name: str) -> Json:
    """Look at the host and return why a slot is as it is, as far as the store tells."""
    return asyncio.run(_looked(options, lambda reconciler: of_slot(reconciler, name)))


def history(options: Options, *, limit: int) -> Json:
    """Return the last applies. The host is not looked at."""
    with open_store(settings(options.path, options.runtime, options.scope), read_only=True) as store:
        return history_json(store.ledger, limit=limit)


def route(options: Options, model: str | None, path: str) -> Json:
    """Look at the host and return where a request would go. Upstreams are not asked for their lists."""
    endpoint = endpoint_of(path)
    return asyncio.run(_looked(options, lambda reconciler: explain(routes(reconciler.snapshot), model, endpoint)))


def resolved(options: Options, name: str) -> Json:
    """Look at the host and return a slot's command line with its origins."""
    return asyncio.run(_asked(options, lambda reconciler: of_profiles.resolved(reconciler, name), look=True))


def profiles(options: Options) -> Json:
    """Return all profiles. The host is not looked at."""
    return asyncio.run(_asked(options, of_profiles.profiles))


def profile(options: Options, name: str) -> Json:
    """Return one profile. The host is not looked at."""
    return asyncio.run(_asked(options, lambda reconciler: of_profiles.profile(reconciler, name)))


def capabilities(options: Options) -> Json:
    """Look at the host and return all capabilities. Upstreams are not asked for their lists."""
    view = of_capabilities.capabilities
    return asyncio.run(_asked(options, lambda reconciler: view(reconciler, routes(reconciler.snapshot)), look=True))


async def _asked(options: Options, view: Callable[[Reconciler], Awaitable[Json]], *, look: bool = False) -> Json:
    async with looking(options) as reconciler:
        if look:
            await reconciler.survey()
        return await view(reconciler)


async def _looked(options: Options, view: Callable[[Reconciler], Json]) -> Json:
    async with looking(options) as reconciler:
        await reconciler.survey()
        return view(reconciler)


def logs(options: Options, name: str, lines: int, *, follow: bool) -> Iterator[str]:
    """Yield a slot's last lines; with ``follow``, print those to come until interrupted."""
    found = settings(options.path, options.runtime, options.scope)

    async def read() -> list[str]:
        runtime = make_runtime(found)
        try:
            last = await runtime.logs(name, lines=lines)
            if not follow:
                return last
            show.say(last)
            async for line in runtime.follow(name):
                show.say([line])
        finally:
            await runtime.close()
        return []

    return iter(asyncio.run(read()))
