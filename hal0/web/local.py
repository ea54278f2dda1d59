"""What is taken on the unix socket only: who may ask, and how events are streamed."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import wraps

from aiohttp import web

from hal0.core.wire import Json
from hal0.errors import Conflict, Hal0Error
from hal0.loop.reconcile import Reconciler
from hal0.web.answers import error_response

IS_LOCAL = web.AppKey("is_local", bool)
"""Whether an application stands behind the unix socket."""


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def local_only(handler: Handler) -> Handler:
    """Return a handler that refuses what came over TCP: only the owner of the unix socket can open that."""

    @wraps(handler)
    async def guarded(request: web.Request) -> web.StreamResponse:
        if request.app[IS_LOCAL]:
            return await handler(request)
        return error_response(403, "auth.local_only", "this is taken on hal0's unix socket only: use the hal0 command")

    return guarded


def of_root(reconciler: Reconciler, root: str | None, command: str) -> None:
    """Raise ``Conflict`` where a command names other manifests than those that are served."""
    served = str(reconciler.source.root.path)
    if root is not None and root != served:
        hint = f"run `hal0 {command}` without a path, or stop the daemon to {command} {root} yourself"
        raise Conflict(f"the daemon serves {served}, not {root}", hint=hint)


async def streamed(request: web.Request, events: AsyncIterator[Json]) -> web.StreamResponse:
    """Answer with events as they come, a JSON object a line. An error is the last of them."""
    response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
    await response.prepare(request)
    try:
        async for event in events:
            await _write_line(response, event)
    except Hal0Error as error:
        failure = {"event": "error", "message": str(error), "hint": error.hint, "exit_code": error.exit_code}
        await _write_line(response, failure)
    return response


async def begun(events: AsyncIterator[Json]) -> AsyncIterator[Json]:
    """Return events once the first of them is there: what is refused before it raises here, and gets a status."""
    first = await anext(events)

    async def all_of_them() -> AsyncIterator[Json]:
        yield first
        async for event in events:
            yield event

    return all_of_them()


async def _write_line(response: web.StreamResponse, event: Json) -> None:
    await response.write(json.dumps(event).encode() + b"\n")
