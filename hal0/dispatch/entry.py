"""Where a request goes first: the hot paths of /v1 to the dispatcher, everything else to the aiohttp application."""

from __future__ import annotations

import asyncio
import math
import socket
from collections.abc import Callable
from dataclasses import dataclass

from hal0.core.endpoints import ENDPOINTS
from hal0.core.schema import UpstreamApi
from hal0.dispatch.call import Call
from hal0.dispatch.connection import Connection, EngineLost
from hal0.dispatch.dispatcher import Dispatcher
from hal0.dispatch.envelope import JSON, Refusal
from hal0.dispatch.forward import deliver, request_head, send_parts
from hal0.dispatch.listing import all_models, one_model
from hal0.dispatch.pool import EngineUnreachable, Origin
from hal0.dispatch.send import engine_of

_MODELS = "/v1/models"
_VERSION = b"anthropic-version"
"""The header by which a client of Anthropic's API is known where both APIs have the path."""
_UPSTREAM = "/upstream/"


@dataclass(frozen=True, slots=True)
class App:
    """The aiohttp application as an origin: each connection is a pair of sockets, one end of it is aiohttp's."""

    protocol: Callable[[], asyncio.Protocol]
    connect_timeout: float = 5.0

    async def connect(self, make: Callable[[], Connection]) -> Connection:
        """Return a new connection to it."""
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        try:
            await loop.connect_accepted_socket(self.protocol, theirs)
        except BaseException:  # the client went away meanwhile
            ours.close()
            raise
        _, connection = await loop.create_connection(make, sock=ours)
        return connection


@dataclass
class Entry:
    """Handles every request of one listener."""

    dispatcher: Dispatcher
    app: App

    async def __call__(self, call: Call) -> None:
        """Answer a request."""
        path = call.path
        endpoint = ENDPOINTS.get(path)
        try:
            if endpoint is not None:
                await self.dispatcher.handle(call, endpoint)
            elif path == _MODELS or path.startswith(_MODELS + "/"):
                self._models(call, path)
            elif path.startswith(_UPSTREAM):
                await self._straight(call, path)
            else:
                await self._pass(call, self.app, call.head.target.decode("latin-1"), is_own=True)
        except Refusal as refusal:
            call.respond(refusal.status, refusal.body(), refusal.headers)

    def _models(self, call: Call, path: str) -> None:
        """Tell what can be asked for, as the client's API has it."""
        api = UpstreamApi.ANTHROPIC if _VERSION in call.head.fields else UpstreamApi.OPENAI
        try:
            status, body, headers = 200, self._listed(call.head.method, path, api), [JSON]
        except Refusal as refusal:
            status, body, headers = refusal.status, refusal.body(api), refusal.headers
        call.respond(status, body, [*headers, (b"vary", _VERSION)])

    def _listed(self, method: str, path: str, api: UpstreamApi) -> bytes:
        """Return the list of models or the one that the path names. Raises ``Refusal``."""
        if method not in {"GET", "HEAD"}:
            raise Refusal(405, "route.method_not_allowed", f"{path} takes GET, not {method}")
        table, name = self.dispatcher.routes, path.removeprefix(_MODELS).lstrip("/")
        if not name:
            return all_models(self.dispatcher.reconciler.snapshot, table, api)
        body = one_model(table, name, api)
        if body is None:
            raise self.dispatcher.not_found(name, table.decide(name, ENDPOINTS["/v1/chat/completions"]))
        return body

    async def _straight(self, call: Call, path: str) -> None:
        """Pass anything to one slot's engine, whatever state it is in: for whoever looks for a fault."""
        if not call.client.is_local:
            raise Refusal(403, "auth.local_only", "this is taken on hal0's unix socket only")
        name = path.removeprefix(_UPSTREAM).partition("/")[0]
        slot = self.dispatcher.reconciler.snapshot.slots.get(name)
        if slot is None:
            raise Refusal(404, "request.not_found", f"there is no slot {name!r}")
        _, _, _, *rest = call.head.target.partition(b"?")[0].decode("latin-1").split("/", 3)
        await self._pass(call, engine_of(slot), "/" + "".join(rest) + call.head.query)

    async def _pass(self, call: Call, origin: Origin, target: str, *, is_own: bool = False) -> None:
        """Pass a request on as it is. ``is_own``: to hal0's own application, which may see the client's credentials."""
        if not call.path.startswith("/"):
            raise Refusal(400, "request.invalid_target", "the request's target is not a path")
        pool = self.dispatcher.sender.pool
        length = call.head.length
        passed = call.head.passed_whole if is_own else call.head.passed
        head = request_head(call, target, passed, b"host: %b\r\n" % call.header(b"host"), length)
        try:
            connection = await pool.open(origin, gap=math.inf, headless=call.head.method == "HEAD")
        except EngineUnreachable as error:
            raise Refusal(502, "slot.unreachable", f"nothing answers there: {error}", retry_after=1) from error
        try:
            await send_parts(connection, head, call.parts(), is_chunked=length is None)
            await deliver(call, connection, b"")
        except EngineLost as error:
            if not call.begun:
                raise Refusal(502, "slot.unreachable", f"it broke off: {error}", retry_after=1) from error
        finally:
            pool.give_back(origin, connection)
