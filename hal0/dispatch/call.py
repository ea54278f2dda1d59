"""One request of a client, and the way to answer it. No decision is made here, and nothing of /v1 is known."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from time import monotonic
from typing import Protocol

from hal0.dispatch.heads import Header, RequestHead, lines, standard_reason, status_line

_FULL = 256 * 1024
"""Bytes of a body that are held for a reader who is slower than the client."""
_CLOSES = b"connection: close\r\n\r\n"
_KEEPS_OLD = b"connection: keep-alive\r\n\r\n"


class BodyTooLarge(Exception):
    """The client sends more than is taken."""


class Source(Protocol):
    """What an answer's body comes from: it is held back while the client is slow."""

    def pause(self) -> None:
        """Send no more for now."""

    def resume(self) -> None:
        """Send on."""


class Client(Protocol):
    """The connection that a call came on."""

    is_local: bool

    @property
    def is_full(self) -> bool:
        """Whether it has not taken what was written."""

    def write(self, data: bytes) -> None:
        """Send to the client."""

    def read_on(self) -> None:
        """Take more of the request's body."""

    def hold(self) -> None:
        """Take no more of the request's body for now."""

    def cut(self) -> None:
        """End the connection: nothing else tells a client that it has not got all of an answer."""


class Call:
    """A request: its head is there, its body may still be on the way, or ``is_complete``."""

    __slots__ = (
        "_expects",
        "_pieces",
        "_size",
        "_source",
        "_waiter",
        "began",
        "begun",
        "client",
        "head",
        "id",
        "is_complete",
        "keeps",
        "status",
    )

    def __init__(self, client: Client, head: RequestHead, body: bytes | None = None) -> None:
        self.client = client
        self.head = head
        self.id = b""
        self.began = monotonic()
        self.keeps = head.keeps
        self.begun = False
        self.status = 0
        self._source: Source | None = None
        self._pieces: list[bytes] = [body] if body else []
        self._size = len(body) if body else 0
        self.is_complete = body is not None
        self._expects = head.expects
        self._waiter: asyncio.Future[None] | None = None

    # The request.

    @property
    def path(self) -> str:
        """The path, without its query, as text."""
        return self.head.path

    def header(self, name: bytes) -> bytes:
        """Return a header's value, the last of several; empty where there is none."""
        return self.head.fields.get(name, b"")

    @property
    def is_awaited(self) -> bool:
        """Whether a reader waits for more of the body."""
        return self._waiter is not None

    def whole(self, limit: int) -> bytes | None:
        """Return the whole body where it is there and not larger than that, and leave it to be read again."""
        if not self.is_complete or self._size > limit:
            return None
        return self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)

    def check_length(self, limit: int) -> None:
        """Raise ``BodyTooLarge`` for a body that says that it is larger than that."""
        if (self.head.length or 0) > limit:
            raise BodyTooLarge

    async def read(self, limit: int) -> bytes:
        """Return the whole body. Raises ``BodyTooLarge`` as soon as more than ``limit`` bytes are on the way."""
        self.check_length(limit)
        while not self.is_complete and self._size <= limit:
            self.client.read_on()
            await self._more()
        if self._size > limit:
            raise BodyTooLarge
        return self._taken()

    async def parts(self) -> AsyncIterator[bytes]:
        """Yield the body as it comes; the client is held back while the reader is slow."""
        while True:
            if self._pieces:
                piece = self._taken()
                self.client.read_on()
                yield piece
            elif self.is_complete:
                return
            else:
                self.client.read_on()
                await self._more()

    def _taken(self) -> bytes:
        data = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        self._pieces.clear()
        self._size = 0
        return data

    async def _more(self) -> None:
        if self._expects and not self.begun:
            self._expects = False
            self.client.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def feed(self, data: bytes) -> None:
        """Take a part of the body."""
        self._pieces.append(data)
        self._size += len(data)
        if self._size > _FULL:
            self.client.hold()
        self._wake()

    def complete(self) -> None:
        """Note the end of the body."""
        self.is_complete = True
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # The answer.

    @property
    def source(self) -> Source | None:
        """What the answer's body comes from; it is held back while the client is slow."""
        return self._source

    @source.setter
    def source(self, source: Source | None) -> None:
        self._source = source
        if source is not None and self.client.is_full:
            source.pause()

    def respond(self, status: int, body: bytes, headers: Iterable[Header] = (), more: bytes = b"") -> None:
        """Answer with a whole body; ``more`` are further lines of its head."""
        text = lines([*headers, (b"content-length", b"%d" % len(body))]) + more
        self.begin(
            status, status_line(status, standard_reason(status)), text, body if self.head.method != "HEAD" else b""
        )

    def begin(self, status: int, start: bytes, own: bytes = b"", first: bytes = b"") -> None:
        """Send the head of the answer: its first line with some headers, and hal0's own, as lines.

        ``first`` is the first of its body; the rest is written after.
        """
        self.begun, self.status = True, status
        end = _CLOSES if not self.keeps else _KEEPS_OLD if self.head.is_old else b"\r\n"
        self.client.write(b"".join((start, own, end, first)))

    def write(self, data: bytes) -> None:
        """Send a part of the body."""
        self.client.write(data)

    def cut(self) -> None:
        """Break the answer off."""
        self.client.cut()
