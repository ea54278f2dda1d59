"""The aiohttp application: /v1, /api, /metrics and the dashboard's files."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from pathlib import Path

from aiohttp import web
from prometheus_client import CollectorRegistry

from hal0.core.schema import parse_listen
from hal0.dispatch.dispatcher import Dispatcher
from hal0.dispatch.envelope import error_response
from hal0.dispatch.forward import make_session
from hal0.dispatch.measures import Measures
from hal0.errors import Conflict, Hal0Error, HostUnreachable, NotFound, UsageError
from hal0.host.sockets import short_path
from hal0.loop.reconcile import Reconciler
from hal0.web.api import Api
from hal0.web.metrics import Metrics

_log = logging.getLogger(__name__)
_LARGEST_BODY = 64 * 2**20
_STOP_PATIENCE = 5.0
_begun: ContextVar[bool] = ContextVar("begun", default=False)
"""Whether the answer to the request at hand has begun."""
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def serving(reconciler: Reconciler, *, listen: str, socket: Path) -> AsyncIterator[None]:
    """Serve for as long as the context lasts: on a TCP address for clients, on a unix socket for the CLI."""
    registry = CollectorRegistry()
    async with make_session() as session:
        app = make_app(reconciler, Dispatcher(reconciler, session, Measures(registry)), registry)
        runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=_STOP_PATIENCE)
        await runner.setup()
        try:
            await _listen(runner, listen, socket)
            yield
        finally:
            await runner.cleanup()
            socket.unlink(missing_ok=True)


def make_app(reconciler: Reconciler, dispatcher: Dispatcher, registry: CollectorRegistry) -> web.Application:
    """Return the application with all of its routes."""
    app = web.Application(client_max_size=_LARGEST_BODY, middlewares=[_errors])
    app.on_response_prepare.append(_note_begun)
    for path in ("/v1/chat/completions", "/v1/completions"):
        app.router.add_post(path, dispatcher.handle)
    app.router.add_get("/v1/models", dispatcher.models)
    app.router.add_get("/v1/models/{name:.+}", dispatcher.model)
    app.add_routes(Api(reconciler).routes())
    app.router.add_get("/metrics", Metrics(reconciler, registry).handle)
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
    message = f"{error} {error.hint}".strip()
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


async def _listen(runner: web.AppRunner, listen: str, socket: Path) -> None:
    socket.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
    socket.unlink(missing_ok=True)
    with short_path(socket) as path:
        await web.UnixSite(runner, path).start()
    socket.chmod(0o600)
    try:
        await web.TCPSite(runner, *parse_listen(listen)).start()
    except (OSError, ValueError) as error:
        hint = "stop what listens there, or set `listen` in the Host manifest"
        raise UsageError(f"can't listen on {listen}: {error}", hint=hint) from error
