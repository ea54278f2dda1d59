"""One request of a client, and the way to answer it. No decision is made here, and nothing of /v1 is known."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from http import HTTPStatus
from typing import Protocol

from hal0.dispatch.heads import Header, RequestHead, lines

_FULL = 256 * 1024
"""Bytes of a body that are held for a reader who is slower than the client."""


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
    """A request: its head is there, its body may still be on the way."""

    __slots__ = (
        "_complete",
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
        "keeps",
        "status",
    )

    def __init__(self, client: Client, head: RequestHead) -> None:
        self.client = client
        self.head = head
        self.id = ""
        self.began = time.monotonic()
        self.keeps = head.keeps
        self.begun = False
        self.status = 0
        self._source: Source | None = None
        self._pieces: list[bytes] = []
        self._size = 0
        self._complete = False
        self._expects = head.fields.get(b"expect", b"").lower() == b"100-continue" and not head.is_old
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

    @property
    def is_complete(self) -> bool:
        """Whether all of the body has come."""
        return self._complete

    def whole(self, limit: int) -> bytes | None:
        """Return the whole body where it is there and not larger than that, and leave it to be read again."""
        return b"".join(self._pieces) if self._complete and self._size <= limit else None

    def check_length(self, limit: int) -> None:
        """Raise ``BodyTooLarge`` for a body that says that it is larger than that."""
        if (self.head.length or 0) > limit:
            raise BodyTooLarge

    async def read(self, limit: int) -> bytes:
        """Return the whole body. Raises ``BodyTooLarge`` as soon as more than ``limit`` bytes are on the way."""
        self.check_length(limit)
        while not self._complete and self._size <= limit:
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
            elif self._complete:
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
        self._complete = True
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
        self.begin(status, _reason(status), text, body if self.head.method != "HEAD" else b"")

    def begin(self, status: int, reason: bytes, text: bytes, first: bytes = b"") -> None:
        """Send the head of the answer, its headers as lines, and the first of its body; the rest is written after."""
        self.begun, self.status = True, status
        if not self.keeps:
            text += b"connection: close\r\n"
        elif self.head.is_old:
            text += b"connection: keep-alive\r\n"
        self.client.write(b"HTTP/1.1 %d %b\r\n%b\r\n%b" % (status, reason, text, first))

    def write(self, data: bytes) -> None:
        """Send a part of the body."""
        self.client.write(data)

    def cut(self) -> None:
        """Break the answer off."""
        self.client.cut()


def _reason(status: int) -> bytes:
    try:
        return HTTPStatus(status).phrase.encode()
    except ValueError:
        return b"Unknown"
