"""Keep-alive connections to engines and upstreams, and the one retry that reusing them needs."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from errno import EMFILE, ENFILE
from functools import cache
from time import monotonic
from typing import Protocol

from hal0.dispatch.connection import Connection, EngineLost
from hal0.dispatch.envelope import Refusal
from hal0.dispatch.heads import AnswerHead, Remembered

_SWEEP = 1.0
_KEPT_IDLE = 60.0
"""Seconds that an unused connection is kept."""
_MOST_IDLE = 256


class EngineUnreachable(Exception):
    """No connection could be made: nothing was sent."""


def _plainly(error: OSError) -> str:
    """Return why there is no connection. What asyncio says of a refused one holds its call, number and address."""
    if error.errno and (isinstance(error, ConnectionError) or type(error) is OSError):  # of TLS, numbers mean others
        return os.strerror(error.errno).lower()
    return str(error)


class Origin(Protocol):
    """Where connections go. The connections of one origin are shared."""

    @property
    def connect_timeout(self) -> float:
        """Seconds for a connection to be there."""

    def __hash__(self) -> int:
        """Be a key."""

    async def connect(self, make: Callable[[], Connection]) -> Connection:
        """Return a new connection. Raises ``OSError``."""


@dataclass(frozen=True, slots=True, eq=False)
class Tcp:
    """A host and port, with TLS or without; ``tcp`` returns the same one each time, and it is compared as such."""

    host: str
    port: int
    tls: bool = False
    connect_timeout: float = 5.0

    async def connect(self, make: Callable[[], Connection]) -> Connection:
        """Return a new connection."""
        loop = asyncio.get_running_loop()
        context = _tls() if self.tls else None
        _, connection = await loop.create_connection(make, self.host, self.port, ssl=context)
        return connection


@cache
def tcp(host: str, port: int, *, tls: bool = False, connect_timeout: float = 5.0) -> Tcp:
    """Return the one origin of an address."""
    return Tcp(host, port, tls, connect_timeout)


def _tls() -> ssl.SSLContext:
    if not _contexts:
        _contexts.append(ssl.create_default_context())
    return _contexts[0]


_contexts: list[ssl.SSLContext] = []
"""The one TLS context: reading the system's certificates takes tens of milliseconds."""


@dataclass
class Pool:
    """Connections by origin. ``sweep`` has to run beside it: it ends silent exchanges and unused connections."""

    _idle: dict[Origin, deque[Connection]] = field(default_factory=lambda: defaultdict(deque))
    _heads: Remembered[AnswerHead] = field(default_factory=Remembered)
    _busy: set[Connection] = field(default_factory=set)

    async def ask(self, origin: Origin, request: bytes, *, gap: float) -> Connection:
        """Send a whole request and return the connection once the answer's head is there. Then ``give_back`` it.

        Raises ``EngineUnreachable`` where nothing was sent, ``EngineLost`` where no answer came. A connection that
        was used before may have been closed at that very moment: then the request is sent once more, on a new one.
        """
        connection = self.take(origin) or await self._connect(origin)
        was_used = connection.reused
        try:
            return await self._answered(connection, request, gap)
        except EngineLost as lost:
            if lost.begun or not was_used:
                raise
        return await self._answered(await self._connect(origin), request, gap)

    async def open(self, origin: Origin, *, gap: float, headless: bool = False) -> Connection:
        """Return a fresh connection for a request that is sent in parts and can't be sent again."""
        connection = await self._connect(origin)
        self.use(connection, b"", gap, headless=headless)
        return connection

    def give_back(self, origin: Origin, connection: Connection) -> None:
        """End an exchange. What has not come to its end is cut off: the engine need not go on."""
        self._busy.discard(connection)
        if not connection.release():
            return
        if len(self._idle[origin]) < _MOST_IDLE:
            self._idle[origin].append(connection)
        else:
            connection.abort()

    async def sweep(self) -> None:
        """Look after connections for ever."""
        while True:
            await asyncio.sleep(_SWEEP)
            now = monotonic()
            for connection in [*self._busy]:
                connection.expire(now)
            for origin, idle in [*self._idle.items()]:
                while idle and (now - idle[0].touched > _KEPT_IDLE or not idle[0].is_usable):
                    idle.popleft().abort()
                if not idle:
                    del self._idle[origin]

    def close(self) -> None:
        """Cut every connection."""
        for connection in [*self._busy, *(each for idle in self._idle.values() for each in idle)]:
            connection.abort()
        self._idle.clear()

    def take(self, origin: Origin) -> Connection | None:
        """Return a connection that is there and unused; None where there is none. Then ``use`` it."""
        idle = self._idle.get(origin)
        while idle:
            connection = idle.pop()
            if connection.is_usable:
                return connection
        return None

    def use(self, connection: Connection, request: bytes, gap: float, *, headless: bool = False) -> None:
        """Send a whole request on a connection. Then ``give_back`` it."""
        connection.gap = gap
        connection.begin(headless=headless)
        self._busy.add(connection)
        connection.write(request)

    async def _connect(self, origin: Origin) -> Connection:
        try:
            async with asyncio.timeout(origin.connect_timeout):
                return await origin.connect(lambda: Connection(self._heads))
        except TimeoutError:
            raise EngineUnreachable(f"no connection within {origin.connect_timeout:g} s") from None
        except UnicodeError as error:  # a name that is none is a fault of its encoding
            raise EngineUnreachable(str(error)) from error
        except OSError as error:
            if error.errno in {EMFILE, ENFILE}:
                message = "hal0 may open no more connections: raise LimitNOFILE of its unit"
                raise Refusal(503, "host.exhausted", message, retry_after=1) from error
            raise EngineUnreachable(_plainly(error)) from error

    async def _answered(self, connection: Connection, request: bytes, gap: float) -> Connection:
        self.use(connection, request, gap)
        try:
            await connection.answer()
        except BaseException:
            self._busy.discard(connection)
            connection.release()
            raise
        return connection
