"""The aiohttp application: /v1, /api, /metrics and the dashboard's files."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from contextvars import ContextVar
from pathlib import Path

from aiohttp import web

from hal0.core.fields import parse_listen
from hal0.dispatch.dispatcher import Dispatcher
from hal0.dispatch.entry import App, Entry
from hal0.dispatch.express import ExpressLane
from hal0.dispatch.front import Front
from hal0.dispatch.measures import Measures
from hal0.dispatch.plane import background, data_plane
from hal0.errors import Conflict, Hal0Error, HostUnreachable, NotFound, UsageError
from hal0.host.sockets import short_path
from hal0.loop.reconcile import Reconciler
from hal0.web.answers import error_response
from hal0.web.api import Api
from hal0.web.authoring import Authoring
from hal0.web.capabilities import Capabilities
from hal0.web.hardware import HardwareViews
from hal0.web.local import IS_LOCAL, Handler
from hal0.web.lock import Locks
from hal0.web.metrics import Metrics
from hal0.web.models import Models

_log = logging.getLogger(__name__)
_LARGEST_BODY = 2**20
_BACKLOG = 1024
_STOP_PATIENCE = 5.0
_begun: ContextVar[bool] = ContextVar("begun", default=False)
"""Whether the answer to the request at hand has begun."""


@asynccontextmanager
async def serving(reconciler: Reconciler, *, listen: str, socket: Path) -> AsyncIterator[None]:
    """Serve for as long as the context lasts: on a TCP address for clients, on a unix socket for the CLI."""
    measures = Measures()
    async with data_plane(reconciler, measures) as dispatcher, AsyncExitStack() as stack:
        metrics = Metrics(dispatcher, measures)
        clients, local = [
            await stack.enter_async_context(_front(make_app(dispatcher, metrics, is_local=is_local), dispatcher))
            for is_local in (False, True)
        ]
        await stack.enter_async_context(_listen(clients, local, listen, socket))
        yield


@asynccontextmanager
async def _front(app: web.Application, dispatcher: Dispatcher) -> AsyncIterator[Front]:
    """Return what takes connections: /v1 for the dispatcher, everything else for the application."""
    runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=_STOP_PATIENCE)
    await runner.setup()
    assert runner.server is not None  # noqa: S101  (setup made it)
    entry = Entry(dispatcher, App(runner.server))
    front = Front(entry, ExpressLane(entry.dispatcher), is_local=app[IS_LOCAL])
    try:
        async with background(front.sweep()):
            yield front
    finally:
        await front.close()
        await runner.cleanup()


def make_app(dispatcher: Dispatcher, metrics: Metrics, *, is_local: bool) -> web.Application:
    """Return the application with all of its routes. ``is_local``: what changes the host may be asked of it."""
    app = web.Application(client_max_size=_LARGEST_BODY, middlewares=[_errors])
    app[IS_LOCAL] = is_local
    app.on_response_prepare.append(_note_begun)
    app.add_routes([*Api(dispatcher).routes(), *Authoring(dispatcher.reconciler).routes()])
    app.add_routes(HardwareViews(dispatcher.reconciler).routes())
    app.add_routes(Models(dispatcher.reconciler).routes())
    app.add_routes(Capabilities(dispatcher).routes())
    app.add_routes(Locks(dispatcher.reconciler).routes())
    app.router.add_get("/metrics", metrics.handle)
    app.router.add_get("/", _index)
    return app


async def _index(_: web.Request) -> web.Response:
    text = "hal0 serves /v1 (OpenAI), /api/status, /api/slots, /api/plan, /api/health and /metrics.\n"
    return web.Response(text=text)


@web.middleware
async def _errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer every failure in the one envelope; cut off an answer that has begun."""
    _begun.set(False)
    try:
        return await handler(request)
    except ConnectionResetError:
        raise
    except Exception as error:
        if not _begun.get():
            return _failure(request, error)
        _log.warning("%s %s broke off: %r", request.method, request.path, error)
        if request.transport:
            request.transport.close()  # nothing else tells a client that it has not got all of it
        raise ConnectionResetError from error


async def _note_begun(_request: web.Request, _response: web.StreamResponse) -> None:
    _begun.set(True)


def _failure(request: web.Request, error: Exception) -> web.Response:
    if isinstance(error, web.HTTPException):
        code = {404: "route.not_found", 405: "route.method_not_allowed", 413: "request.too_large"}
        name = code.get(error.status, "request.failed")
        return error_response(error.status, name, f"{request.method} {request.path}: {error.reason}")
    if isinstance(error, Hal0Error):
        return _refused(error)
    _log.error("%s %s broke", request.method, request.path, exc_info=error)
    return error_response(500, "internal", "hal0 broke on this request: its log says where")


def _refused(error: Hal0Error) -> web.Response:
    """Return an expected failure with the status that its class means."""
    message = f"{error} ({error.hint})" if error.hint else str(error)
    match error:
        case NotFound():
            return error_response(404, "request.not_found", message)
        case Conflict():
            return error_response(409, "request.conflict", message)
        case UsageError():
            return error_response(400, "request.refused", message)
        case HostUnreachable():
            return error_response(503, "host.unreachable", message, retry_after=5)
    return error_response(502, "host.failed", message)


@asynccontextmanager
async def _listen(clients: Front, local: Front, listen: str, socket: Path) -> AsyncIterator[None]:
    socket.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
    socket.unlink(missing_ok=True)
    loop, servers = asyncio.get_running_loop(), list[asyncio.Server]()
    try:
        with short_path(socket) as path:
            servers.append(await loop.create_unix_server(local, path, backlog=_BACKLOG))
        socket.chmod(0o600)
        try:
            servers.append(await loop.create_server(clients, *parse_listen(listen), backlog=_BACKLOG))
        except (OSError, ValueError) as error:
            hint = "stop what listens there, or set `listen` in the Host manifest"
            raise UsageError(f"can't listen on {listen}: {error}", hint=hint) from error
        yield
    finally:
        for server in servers:
            server.close()
        socket.unlink(missing_ok=True)
