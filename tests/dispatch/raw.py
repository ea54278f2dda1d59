"""Clients and engines that speak raw bytes, and a strict reader of HTTP/1.1 that shares no code with what it checks."""

from __future__ import annotations

import asyncio
import re
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

from hal0.dispatch.call import Call
from hal0.dispatch.connection import Connection
from hal0.dispatch.front import ClientConnection, Express, Front, Handler, Ride
from hal0.dispatch.pool import Origin, Pool, tcp

T = TypeVar("T")
PATIENCE = 10.0
"""Seconds until a test that waits in vain fails. Nothing that works comes near it."""
_LARGE = 2**26
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,16})(?:;[^\r\n]*)?\r\n")
_STATUS = re.compile(rb"HTTP/1\.1 ([1-5][0-9][0-9]) ([^\r\n\0]*)\r\n")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+): ?([^\r\n\0]*)\r\n")


class Broken(Exception):
    """What came is no HTTP."""


class Partial(Exception):
    """What came ended before the message did; ``need``: how many bytes there have to be at least."""

    def __init__(self, need: int = 0) -> None:
        super().__init__(need)
        self.need = need


@dataclass(frozen=True)
class Message:
    """A request or an answer: its first line's words, its headers, and its body with and without framing."""

    line: tuple[bytes, ...]
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes
    wire: bytes

    @property
    def status(self) -> int:
        return int(self.line[0])

    def all(self, name: bytes) -> list[bytes]:
        return [value for key, value in self.headers if key == name]

    def header(self, name: bytes) -> bytes | None:
        values = self.all(name)
        assert len(values) <= 1, values
        return values[0] if values else None


async def soon(awaited: Awaitable[T]) -> T:
    async with asyncio.timeout(PATIENCE):
        return await awaited


async def turns(count: int = 4) -> None:
    """Let the event loop see what its sockets have: one turn to hear of it, one to act, one for who waits for that."""
    for _ in range(count):
        await asyncio.sleep(0)


async def until(is_so: Callable[[], object]) -> None:
    """Turn the event loop until something is so."""
    async with asyncio.timeout(PATIENCE):
        while not is_so():  # noqa: ASYNC110  (what is looked at has no events: it is the thing under test)
            await asyncio.sleep(0)


# The strict reader.


def read_answer(wire: bytes, *, headless: bool = False, ended: bool = True) -> tuple[Message, bytes]:
    """Return the answer that some bytes begin with, and what follows. ``ended``: nothing comes after these bytes.

    Raises ``Broken``, and ``Partial`` where more would have to come.
    """
    found = _STATUS.match(wire)
    if not found:
        raise Broken(wire[:100]) if b"\r\n" in wire else Partial
    headers, at = _fields(wire, found.end())
    body, end = _body(wire, at, headers, is_empty=headless or found[1] in {b"204", b"304"}, ended=ended)
    return Message((found[1], found[2]), headers, body, wire[:end]), wire[end:]


def _fields(wire: bytes, at: int) -> tuple[tuple[tuple[bytes, bytes], ...], int]:
    fields = []
    while wire[at : at + 2] != b"\r\n":
        found = _FIELD.match(wire, at)
        if not found:
            raise Broken(wire[at : at + 100]) if b"\r\n" in wire[at:] else Partial
        fields.append((found[1].lower(), found[2].strip()))
        at = found.end()
    return tuple(fields), at + 2


def _body(
    wire: bytes, at: int, headers: tuple[tuple[bytes, bytes], ...], *, is_empty: bool, ended: bool
) -> tuple[bytes, int]:
    lengths = [value for name, value in headers if name == b"content-length"]
    codings = [value for name, value in headers if name == b"transfer-encoding"]
    if len(lengths) + len(codings) > 1:
        raise Broken(headers)
    if is_empty:
        return b"", at
    if codings:
        return _chunks(wire, at)
    if not lengths:
        if not ended:
            raise Partial
        return wire[at:], len(wire)
    end = at + int(lengths[0])
    if len(wire) < end:
        raise Partial(end)
    return wire[at:end], end


def _chunks(wire: bytes, at: int) -> tuple[bytes, int]:
    body = b""
    while True:
        found = _CHUNK.match(wire, at)
        if not found:
            raise Broken(wire[at : at + 100]) if b"\n" in wire[at:] or len(wire) - at > 100 else Partial
        size, at = int(found[1], 16), found.end()
        if not size:
            break
        if len(wire) < at + size + 2:
            raise Partial(at + size + 2)
        if wire[at + size : at + size + 2] != b"\r\n":
            raise Broken(wire[at + size : at + size + 100])
        body += wire[at : at + size]
        at += size + 2
    _, at = _fields(wire, at)
    return body, at


def read_all(wire: bytes, heads: tuple[bool, ...] = ()) -> list[Message]:
    """Return the answers that a connection brought until it ended; ``heads`` says which were to a HEAD."""
    answers: list[Message] = []
    while wire:
        headless = len(heads) > len(answers) and heads[len(answers)]
        answer, wire = read_answer(wire, headless=headless)
        answers.append(answer)
    return answers


# Ends of connections.


@dataclass(eq=False)
class Peer:
    """One end of a connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    _read: bytes = b""

    async def say(self, data: bytes) -> None:
        self.writer.write(data)
        await soon(self.writer.drain())

    async def hear(self, count: int) -> bytes:
        """Return so many bytes."""
        while len(self._read) < count:
            await self._more()
        data, self._read = self._read[:count], self._read[count:]
        return data

    async def answer(self, *, headless: bool = False) -> Message:
        """Return the next answer, once it is there."""
        while True:
            try:
                answer, self._read = read_answer(self._read, headless=headless, ended=False)
            except Partial as partial:
                await self._more(partial.need)
            else:
                return answer

    async def request(self) -> Message:
        """Return the next request, once it is there."""
        while b"\r\n\r\n" not in self._read:
            await self._more()
        line, _, rest = self._read.partition(b"\r\n")
        while True:
            try:
                headers, at = _fields(rest, 0)
                has_body = any(name in {b"content-length", b"transfer-encoding"} for name, _ in headers)
                body, end = _body(rest, at, headers, is_empty=not has_body, ended=False)
            except Partial as partial:
                await self._more(partial.need)
                rest = self._read.partition(b"\r\n")[2]
            else:
                self._read = rest[end:]
                return Message(tuple(line.split(b" ")), headers, body, line + b"\r\n" + rest[:end])

    async def rest(self) -> bytes:
        """Return everything until the other end closes or resets the connection."""
        pieces = [self._read]
        with suppress(ConnectionError):
            while piece := await soon(self.reader.read(_LARGE)):
                pieces.append(piece)
        self._read = b""
        return b"".join(pieces)

    async def ended(self) -> None:
        """Wait until the other end is gone, and check that nothing came before."""
        assert await self.rest() == b""

    def stop(self) -> None:
        """Read no more: not even the program's own buffer takes anything."""
        transport = self.writer.transport
        assert isinstance(transport, asyncio.Transport)
        transport.pause_reading()

    def go(self) -> None:
        """Read on."""
        transport = self.writer.transport
        assert isinstance(transport, asyncio.Transport)
        transport.resume_reading()

    @property
    def unsent(self) -> int:
        """How many bytes the kernel has not taken, since the other end does not."""
        return self.writer.transport.get_write_buffer_size()

    def close(self) -> None:
        self.writer.transport.abort()

    def reset(self) -> None:
        """End the connection as a killed program's kernel may: the other end's writes fail."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def _more(self, need: int = 0) -> None:
        pieces, size = [self._read], len(self._read)
        while size < max(need, len(pieces[0]) + 1):
            piece = await soon(self.reader.read(_LARGE))
            if not piece:
                raise Partial
            pieces.append(piece)
            size += len(piece)
        self._read = b"".join(pieces)


async def _peer(sock: socket.socket) -> Peer:
    return Peer(*await asyncio.open_connection(sock=sock, limit=_LARGE))


@contextmanager
def no_complaints() -> Iterator[None]:
    """Check that nothing reaches the event loop's handler of last resort."""
    loop, said = asyncio.get_running_loop(), list[dict[str, Any]]()
    before = loop.get_exception_handler()
    loop.set_exception_handler(lambda _, context: said.append(context))
    try:
        yield
    finally:
        loop.set_exception_handler(before)
    assert not said, said


# Before the front: clients.


@dataclass
class Door:
    """A front that listens, and ways to come to it."""

    front: Front
    port: int
    peers: list[Peer] = field(default_factory=list)
    socks: list[socket.socket] = field(default_factory=list)

    @property
    def unsent(self) -> int:
        """How many bytes hal0 holds in memory for its only client."""
        transport = self.connection.transport
        return transport.get_write_buffer_size() if transport else 0

    @property
    def connection(self) -> ClientConnection:
        """The server's end of the only connection."""
        (connection,) = self.front.connections
        return connection

    async def client(self) -> Peer:
        """Return a new client, once its connection has been accepted."""
        sock = socket.socket()
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", self.port))
        peer = await _peer(sock)
        self.peers.append(peer)
        await until(lambda: sock.getsockname() in map(_other_end, self.front.connections))
        return peer

    async def ask(self, data: bytes) -> bytes:
        """Send some bytes as a client that then waits for the connection's end; return all that comes."""
        peer = await self.client()
        await peer.say(data)
        return await peer.rest()

    async def wire(self, first: bytes = b"") -> socket.socket:
        """Return a bare socket to the front, whose every send is one read there; ``first`` is sent before."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        self.socks.append(ours)
        if first:
            assert ours.send(first) == len(first)
        await asyncio.get_running_loop().connect_accepted_socket(self.front, theirs)
        return ours

    async def pieces(self, pieces: list[bytes]) -> bytes:
        """Send some bytes so that the front reads them in just these pieces; return all that comes back."""
        sock = await self.wire()
        loop = asyncio.get_running_loop()
        for piece in pieces:
            with suppress(ConnectionError):
                await soon(loop.sock_sendall(sock, piece))
            await turns()
        return await heard(sock)


def _other_end(connection: ClientConnection) -> object:
    return connection.transport and connection.transport.get_extra_info("peername")


async def heard(sock: socket.socket) -> bytes:
    """Return everything until the other end closes the connection."""
    pieces = []
    with suppress(ConnectionError):
        while piece := await soon(asyncio.get_running_loop().sock_recv(sock, _LARGE)):
            pieces.append(piece)
    return b"".join(pieces)


def no_express(_call: Call, _done: Callable[[bool], None]) -> Ride | None:
    """Leave every request to the handler."""
    return None


@asynccontextmanager
async def door(handler: Handler, express: Express = no_express) -> AsyncIterator[Door]:
    """Serve with a handler, and check that none of asyncio's callbacks fails."""
    front, loop = Front(handler, express), asyncio.get_running_loop()
    server = await loop.create_server(front, "127.0.0.1", 0)
    opened = Door(front, server.sockets[0].getsockname()[1])
    with no_complaints():
        try:
            yield opened
        finally:
            server.close()
            for sock in opened.socks:
                sock.close()
            for peer in opened.peers:
                peer.close()
            for connection in [*front.connections]:
                connection.cut()
            await until(lambda: not front.connections)
            await server.wait_closed()


async def echo(call: Call) -> None:
    """Answer with what was asked."""
    body, head = await call.read(2**24), call.head
    said = [head.method.encode(), head.target, *(b"%b=%b" % pair for pair in head.headers), body]
    call.respond(200, b"|".join(said), [(b"content-type", b"text/plain")])


def start(call: Call, length: int | None, first: bytes = b"") -> None:
    """Begin an answer; ``length`` None: it ends with the connection."""
    call.begin(200, b"HTTP/1.1 200 OK\r\n", b"" if length is None else b"content-length: %d\r\n" % length, first)


# Behind the pool: engines.

Script = Callable[[Peer], Awaitable[None]]


@dataclass(eq=False)
class Engine:
    """A server whose every connection follows a script."""

    script: Script
    port: int = 0
    peers: list[Peer] = field(default_factory=list)
    requests: list[Message] = field(default_factory=list)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def origin(self) -> Origin:
        return tcp("127.0.0.1", self.port)

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = Peer(reader, writer)
        self.peers.append(peer)
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        try:
            await self.script(peer)
        except (ConnectionError, Partial):
            pass  # the other end has gone: what a test wants to know of that it asks its own end
        finally:
            self.tasks.discard(task)
            peer.close()


@asynccontextmanager
async def engine(script: Script) -> AsyncIterator[Engine]:
    """Serve as an engine."""
    made = Engine(script)
    server = await asyncio.start_server(made.accept, "127.0.0.1", 0, limit=_LARGE)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()
        tasks = [*made.tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()


def saying(
    *answers: bytes,
    requests: list[Message] | None = None,
    ended: list[bytes] | None = None,
    then_close: bool = False,
) -> Script:
    """Return the script of an engine that answers the requests of each connection with these bytes in turn.

    No bytes are no answer. To ``requests`` it adds what it is asked, and to ``ended`` what came between its last words
    and the connection's end, once that is there.
    """

    async def script(peer: Peer) -> None:
        for answer in answers:
            request = await peer.request()
            if requests is not None:
                requests.append(request)
            await peer.say(answer)
        if not then_close:
            rest = await peer.rest()
            if ended is not None:
                ended.append(rest)

    return script


@asynccontextmanager
async def pool_for(script: Script) -> AsyncIterator[tuple[Pool, Engine]]:
    """Return a pool, and an engine for it; check that none of asyncio's callbacks fails."""
    pool = Pool()
    with no_complaints():
        async with engine(script) as made:
            try:
                yield pool, made
            finally:
                pool.close()
                await turns()


@dataclass(frozen=True, eq=False)
class Paired:
    """An origin whose connections are pairs of sockets; the engine's ends are for the test."""

    ends: list[socket.socket] = field(default_factory=list)
    connect_timeout: float = 5.0

    async def connect(self, make: Callable[[], Connection]) -> Connection:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        self.ends.append(theirs)
        _, connection = await asyncio.get_running_loop().create_connection(make, sock=ours)
        return connection
