"""The server's side of HTTP/1.1: requests off a connection, one handler at a time for each, answers back in order.

It stands before the aiohttp application because most of a proxied
request's time would be spent there: docs/performance.md has the figures, decision 0012 the reasons.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from time import monotonic
from typing import Protocol, cast

from hal0.dispatch.call import Call
from hal0.dispatch.envelope import JSON, error_body
from hal0.dispatch.heads import END, Remembered, RequestHead
from hal0.dispatch.reader import Reader, Unreadable

_log = logging.getLogger(__name__)
_SWEEP = 5.0
_IDLE = 75.0
"""Seconds that a connection without a request is kept."""
_SLOW = 60.0
"""Seconds without a byte of a request that has begun."""
_PATIENCE = 5.0
_LINGER = 2.0
_DEAD = 600.0
"""Seconds that a client may take nothing of its answer."""
Handler = Callable[[Call], Awaitable[None]]


class Ride(Protocol):
    """A request that is answered in callbacks, without a task."""

    def cancel(self) -> None:
        """Give it up: the client has gone."""


Express = Callable[[Call, Callable[[bool], None]], Ride | None]
"""Begins a request whose body is all there, or returns None; calls back once, with whether the client was answered."""


@dataclass(eq=False)
class Front:
    """All connections of one listener. ``is_local``: only this host's administrator can reach it."""

    handler: Handler
    express: Express
    is_local: bool = False
    connections: set[ClientConnection] = field(default_factory=set)
    heads: Remembered[RequestHead] = field(default_factory=Remembered)
    _emptied: asyncio.Future[None] | None = None

    def __call__(self) -> ClientConnection:
        """Return the protocol of a new connection."""
        return ClientConnection(self)

    def left(self, connection: ClientConnection) -> None:
        """Note that a connection has ended."""
        self.connections.discard(connection)
        if not self.connections and self._emptied is not None and not self._emptied.done():
            self._emptied.set_result(None)

    async def sweep(self) -> None:
        """End connections that say nothing, for ever."""
        while True:
            await asyncio.sleep(_SWEEP)
            now = monotonic()
            for connection in [*self.connections]:
                connection.expire(now)

    async def close(self) -> None:
        """Let answers that have begun come to their end for a moment, then cut every connection."""
        self._emptied = asyncio.get_running_loop().create_future()
        for connection in [*self.connections]:
            connection.wind_up()
        if self.connections:
            await asyncio.wait({self._emptied}, timeout=_PATIENCE)
        for connection in [*self.connections]:
            connection.cut()


class ClientConnection(asyncio.Protocol):
    """One client's connection: its requests are answered one after the other."""

    def __init__(self, front: Front) -> None:
        self.front = front
        self.is_local = front.is_local
        self.loop = asyncio.get_running_loop()
        self.transport: asyncio.Transport | None = None
        self.task: asyncio.Task[None] | None = None
        self._ride: Ride | None = None
        self._reader = Reader(self)
        self._calls: deque[Call] = deque()
        self._touched = monotonic()
        self._held = False
        self._ends = False
        self._is_deaf = False
        self._is_over = False
        self._full = False
        self._full_since = 0.0

    # What a call does with it.

    @property
    def is_full(self) -> bool:
        """Whether the client has not taken what was written."""
        return self._full

    def write(self, data: bytes) -> None:
        """Send to the client."""
        if self.transport is not None:
            self.transport.write(data)

    def hold(self) -> None:
        """Read no more for now."""
        if not self._held and self.transport is not None and not self.transport.is_closing():
            self._held = True
            self.transport.pause_reading()

    def read_on(self) -> None:
        """Read on, unless a further request came before this one's answer."""
        if self._held and len(self._calls) <= 1 and self.transport is not None and not self.transport.is_closing():
            self._held = False
            self._touched = monotonic()
            self.transport.resume_reading()

    def cut(self) -> None:
        """End the connection at once."""
        if self.transport is not None:
            self.transport.abort()

    # What the front does with it.

    def expire(self, now: float) -> None:
        """End the connection where its client says nothing for too long."""
        silent = now - self._touched
        is_awaited = self._calls[0].is_awaited if self._calls else self._reader.is_in_head
        if is_awaited and not self._held and silent > _SLOW:
            self._refuse(Unreadable(408, "request.timeout", "the rest of the request did not come"))
        elif self._full and now - self._full_since > _DEAD:
            self.cut()
        elif not self._calls and silent > _IDLE:
            self._close()

    def wind_up(self) -> None:
        """End after the answer under way."""
        self._ends = True
        if not self._calls:
            self._close()

    # What asyncio tells.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self.transport = cast("asyncio.Transport", transport)  # sockets are
        self.front.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  (asyncio's signature)
        """Cancel what is under way: nobody waits for it."""
        self.transport = None
        self._finish()
        self.front.left(self)
        if self._calls and (source := self._calls[0].source):
            source.resume()
        self._cancel()

    def _cancel(self) -> None:
        if self.task is not None:
            self.task.cancel()
        if self._ride is not None:
            self._ride.cancel()

    def pause_writing(self) -> None:
        """Hold the answer's source back: the client is slow."""
        self._full, self._full_since = True, monotonic()
        if self._calls and (source := self._calls[0].source):
            source.pause()

    def resume_writing(self) -> None:
        """Let the answer's source go on."""
        self._full = False
        if self._calls and (source := self._calls[0].source):
            source.resume()
        self._begin_next()

    def data_received(self, data: bytes) -> None:
        """Take what came, and begin with the first request whose head is there."""
        self._touched = monotonic()
        if self._is_deaf:
            return
        if self._calls or not self._reader.is_between:
            self._read(data)
            return
        end = data.find(END) + len(END)
        head = self.front.heads.known.get(data[:end])
        if head is not None and len(data) - end == head.length:
            self._calls.append(Call(self, head, data[end:]))
            self._is_deaf = not head.keeps
            self._begin_next()
            return
        self._read(data, end if head is None else 0)

    def _read(self, data: bytes, end: int = 0) -> None:
        """Read requests; remember the head of one that was all there is, and ends at ``end``."""
        try:
            self._reader.feed(data)
        except Unreadable as error:
            self._refuse(error)
            return
        if end and len(self._calls) == 1:
            call = self._calls[0]
            if call.is_complete and call.head.is_plain and call.head.length == len(data) - end:
                self.front.heads.add(data[:end], call.head)
        self._begin_next()

    # What the reader tells.

    def request_begun(self, head: RequestHead) -> None:
        """Queue a request: its handler may begin while the body is on the way."""
        self._calls.append(Call(self, head))
        if len(self._calls) > 1:
            self.hold()

    def request_body(self, data: bytes) -> None:
        """Take a part of the last request's body."""
        if self._calls:
            self._calls[-1].feed(data)

    def request_ended(self) -> None:
        """Note that the last request is all there; what follows one that is to be the last is not listened to."""
        if self._calls:
            self._calls[-1].complete()
            self._is_deaf = not self._calls[-1].head.keeps
            self.read_on()  # nothing more is to come of it, but its client's leaving has to be seen

    # One request after the other.

    def _begin_next(self) -> None:
        if self.task or self._ride or self._full or self._is_over or not self._calls:
            return
        call = self._calls[0]
        if call.is_complete:
            try:
                self._ride = self.front.express(call, self._rode)
            except Exception as error:  # noqa: BLE001  (a fault of ours is answered, not dropped)
                self._broke(call, error)
                self._after(call)
                return
        if self._ride is None:
            self.task = self.loop.create_task(self._run(call))

    def _rode(self, is_answered: bool) -> None:
        self._ride = None
        if not self._calls:
            return
        if is_answered:
            self._after(self._calls[0])
        else:
            self.task = self.loop.create_task(self._run(self._calls[0]))

    async def _run(self, call: Call) -> None:
        try:
            await self.front.handler(call)
        except Exception as error:  # noqa: BLE001  (a fault of ours must not take the others' connections down)
            self._broke(call, error)
        finally:
            self.task = None
            self._after(call)

    def _broke(self, call: Call, error: Exception) -> None:
        _log.error("%s %s broke", call.head.method, call.path, exc_info=error)
        call.keeps = False
        if call.begun:
            self.cut()
        else:
            body = error_body(500, "internal", "hal0 broke on this request: its log says where")
            call.respond(500, body, [JSON])

    def _after(self, call: Call) -> None:
        """Go on with the next request, or end: after an answer that says so, or with a body that nobody read."""
        call.source = None
        self._touched = monotonic()
        if self._calls and self._calls[0] is call:
            self._calls.popleft()
        if self._ends or not call.keeps or not call.is_complete:
            self._end(is_read=call.is_complete)
            return
        if self._calls:
            self._begin_next()
        if self._held:
            self.read_on()

    def _end(self, *, is_read: bool) -> None:
        """End; slowly after an answer that came before the end of its request: closed at once, it might not be read."""
        self._finish()
        if is_read or self.transport is None or self.transport.is_closing():
            self._close()
            return
        self.transport.write_eof()
        self.loop.call_later(_LINGER, self._linger)
        self.read_on()

    def _finish(self) -> None:
        """Take no further request, and begin none that is there."""
        self._ends = self._is_deaf = self._is_over = True

    def _linger(self) -> None:
        """Cut the connection once the client has taken what was written, or takes nothing of it."""
        if self.transport is not None and self.transport.get_write_buffer_size():
            self.loop.call_later(_LINGER, self._linger)
        else:
            self.cut()

    def _close(self) -> None:
        self._finish()
        if self.transport is not None:
            self.transport.close()

    def _refuse(self, error: Unreadable) -> None:
        """Answer what is no request, and end; not in the middle of another's answer."""
        self._finish()
        is_amid = bool(self._calls and self._calls[0].begun)
        self._calls.clear()
        if is_amid:
            self.cut()
        else:
            call = Call(self, RequestHead("GET", b"", keeps=False))
            call.respond(error.status, error_body(error.status, error.code, str(error)), [JSON])
            self._close()
        self._cancel()
