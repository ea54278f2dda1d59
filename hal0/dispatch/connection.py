"""One keep-alive connection to an engine: a request out, its answer's bytes in, handed on as they come.

A body is passed on in the engine's own framing, so a piece of it costs one read, one write and no Python loop of ours.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic
from typing import cast

from hal0.dispatch.answer import Chunks, Garbled, HeadReader, Sink
from hal0.dispatch.heads import END, AnswerHead, Remembered

_KEPT_TAIL = 8192
_MOST_LAST = 4 * _KEPT_TAIL
_KEPT_OPENING = 2048
_MOST_HELD = 256 * 1024


class EngineLost(Exception):
    """The connection ended before the answer did; ``begun`` says whether a first byte of it had come."""

    def __init__(self, message: str, *, begun: bool) -> None:
        super().__init__(message)
        self.begun = begun


class Connection(asyncio.Protocol):
    """A connection with at most one exchange on it.

    ``reused``: it has had an exchange before. ``gap`` is the longest silence during an exchange, in seconds. Of the
    answer: its ``head``, why no more of it comes (``error``), whether it ``is_complete``, the first 2 KiB of its body
    as they went over the wire (``opening``), and when the first and the last of it came.
    """

    def __init__(self, heads: Remembered[AnswerHead]) -> None:
        self.loop = asyncio.get_running_loop()
        self.transport: asyncio.Transport | None = None
        self.reused = False
        self.gap = 600.0
        self.touched = monotonic()
        self._heads = heads
        self._paused = self._is_slowed = False
        self._is_busy = False
        self._waiter: asyncio.Future[None] | None = None
        self._flow = asyncio.Event()
        self._flow.set()
        self._reset(headless=False)

    def _reset(self, *, headless: bool) -> None:
        self.head: AnswerHead | None = None
        self.error: EngineLost | None = None
        self.is_complete = False
        self.first_at = self.last_at = 0.0
        self.opening = b""
        self._last: list[bytes] = []
        self._last_size = 0
        self._reader: HeadReader | None = None
        self._chunks: Chunks | None = None
        self._left: int | None = None
        self._is_stray = False
        self._headless = headless
        self._sink: Sink | None = None
        self._held: list[bytes] = []
        self._held_size = 0
        self._observer: Callable[[], None] | None = None

    # What the dispatcher does with it.

    @property
    def is_usable(self) -> bool:
        """Whether another exchange may begin."""
        return not self._is_busy and self.transport is not None and not self.transport.is_closing()

    @property
    def status(self) -> int:
        """The answer's status; 0 where its head has not come."""
        return self.head.status if self.head else 0

    @property
    def tail(self) -> bytes:
        """The last 8 KiB of the body as they went over the wire."""
        return _joined(self._last)[-_KEPT_TAIL:]

    @property
    def is_framed(self) -> bool:
        """Whether a client can see where the answer ends without the connection's end."""
        head = self.head
        return self._headless or (head is not None and (head.is_chunked or head.length is not None or head.is_empty))

    @property
    def is_between_chunks(self) -> bool:
        """Whether something may be put after what was passed on, without breaking the framing."""
        return self._chunks is not None and self._chunks.is_between and self.tail[-2:] in {b"", b"\r\n"}

    def begin(self, *, headless: bool = False) -> None:
        """Make ready for an answer; ``headless``: to a HEAD, whose answer has no body whatever its head says."""
        self._reset(headless=headless)
        self._is_busy = True
        self.touched = monotonic()

    def observe(self, observer: Callable[[], None]) -> None:
        """Have a function called when the answer's head has come, and when the answer has ended or broken off."""
        self._observer = observer

    def write(self, data: bytes) -> None:
        """Send a part of the request."""
        if self.transport is not None:
            self.touched = monotonic()
            self.transport.write(data)

    async def drain(self) -> None:
        """Wait until the engine has taken what was sent."""
        await self._flow.wait()
        if self.transport is None:
            raise EngineLost("the connection ended", begun=False)

    async def answer(self) -> None:
        """Wait for the answer's ``head``. Raises ``EngineLost``."""
        while self.head is None and self.error is None:
            await self._change()
        if self.error is not None:
            raise self.error

    async def relay(self, sink: Sink) -> None:
        """Hand the body on until it has ended. Raises ``EngineLost`` where it breaks off."""
        self.feed(sink)
        while not self.is_complete and self.error is None:
            await self._change()
        if self.error is not None:
            raise self.error

    def feed(self, sink: Sink) -> None:
        """Hand what has come of the body to a sink, and what will come."""
        self._sink = sink
        if self._held:
            self._hand_on(self.taken())
        self._pause_or_not()

    async def _change(self) -> None:
        self._waiter = self.loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def taken(self) -> bytes:
        """Return what of the body has come and was not handed on. It is the caller's to do so."""
        held, self._held, self._held_size = self.held, [], 0
        return held

    @property
    def is_short(self) -> bool:
        """Whether the body is known to be short enough to be looked at."""
        length = self.head.length if self.head else None
        return length is not None and length <= _KEPT_TAIL

    @property
    def held(self) -> bytes:
        """What of the body has come and was not handed on."""
        return _joined(self._held)

    async def peek(self) -> bytes:
        """Return a short body without passing it on; empty where it is not known to be short."""
        while self.is_short and not self.is_complete and self.error is None:
            await self._change()
        return self.held if self.is_short else b""

    def release(self) -> bool:
        """End the exchange; return whether the connection may have another one."""
        transport, head = self.transport, self.head
        is_over = self.is_complete and head is not None and head.keeps and not self._is_stray
        is_good = is_over and transport is not None and not transport.is_closing()
        self._sink = self._observer = None
        self._is_busy, self._held, self._held_size = False, [], 0
        self.resume()
        if not is_good:
            self.abort()
        self.reused = True
        return is_good

    def spoil(self) -> None:
        """Have no further exchange on it: its request was not sent to the end."""
        self._is_stray = True

    def abort(self) -> None:
        """Cut the connection: an engine sees that nobody waits for its answer."""
        if self.transport is not None:
            self.transport.abort()

    def pause(self) -> None:
        """Read no more for now: the client is slower than the engine."""
        self._is_slowed = True
        self._pause_or_not()

    def resume(self) -> None:
        """Read on."""
        self._is_slowed = False
        self._pause_or_not()

    def _pause_or_not(self) -> None:
        """Read while the client is quick enough, and not too much is held for want of one."""
        wanted = self._is_slowed or self._held_size > _MOST_HELD
        if wanted is self._paused or self.transport is None or self.transport.is_closing():
            return
        self._paused, self.touched = wanted, monotonic()
        if wanted:
            self.transport.pause_reading()
        else:
            self.transport.resume_reading()

    def expire(self, now: float) -> None:
        """End an exchange in which nothing has come for longer than the gap."""
        if self._is_busy and not self._paused and now - self.touched > self.gap:
            # An engine that is only slow must not be asked again.
            self._fail(f"nothing came for {self.gap:.0f} s", begun=True)

    # What asyncio tells.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self.transport = cast("asyncio.Transport", transport)  # sockets are; uvloop's have another base

    def connection_lost(self, exc: Exception | None) -> None:
        """End the exchange: well where the answer ends with the connection, else not."""
        self.transport = None
        self._flow.set()
        if self.head is not None and not self.is_framed and exc is None and not self.is_complete:
            self.is_complete = True
            self._tell()
        elif self._is_busy and not self.is_complete:
            self._fail(str(exc) if exc else "it closed the connection")

    def pause_writing(self) -> None:
        """Note that the engine is slower than the client."""
        self._flow.clear()

    def resume_writing(self) -> None:
        """Note that the engine takes more."""
        self._flow.set()

    def data_received(self, data: bytes) -> None:
        """Take what came: hand on what of it is the body, and tell of the answer's head and end."""
        if not self._is_busy or self.is_complete:
            self.abort()  # nobody asked
            return
        self.last_at = self.touched = monotonic()
        is_first = self.head is None
        try:
            if is_first:
                data = self._take_head(data)
            if data:
                self._take_body(data)
        except Garbled as error:
            self._fail(str(error))
            return
        if self.is_complete or (is_first and self.head is not None):
            self._tell()

    def _take_head(self, data: bytes) -> bytes:
        """Take an answer's head, or a part of it; return what is behind it. One that is known is not read again."""
        if self._reader is None:
            end = data.find(END) + len(END)
            head = self._heads.known.get(data[:end])
            if head is not None and not self._headless:
                self._begin_body(head)
                return data[end:]
            self._reader = HeadReader()
        rest = self._reader.feed(data)
        if (head := self._reader.head) is not None:
            if len(self._reader.raw) + len(rest) == len(data):  # in one piece, without an interim answer
                self._heads.add(self._reader.raw, head)
            self._begin_body(head)
        return rest

    def _begin_body(self, head: AnswerHead) -> None:
        self.head = head
        if self._headless or head.is_empty or head.length == 0:
            self.is_complete = True
        elif head.length is not None:
            self._left = head.length
        elif head.is_chunked:
            self._chunks = Chunks()

    def _take_body(self, data: bytes) -> None:
        if self.is_complete:
            self._is_stray = True  # behind an answer without a body
            return
        if self._left is not None:
            if len(data) > self._left:
                raise Garbled("it sent more than it said")
            self._left -= len(data)
            self.is_complete = not self._left
        elif self._chunks is not None:
            self._chunks.feed(data)
            if self._chunks.has_ended:
                self.is_complete = True
                data = self._without_breaks(data)
        self._pass_on(data)

    def _pass_on(self, data: bytes) -> None:
        if not self.first_at:
            self.first_at = self.last_at
        if len(self.opening) < _KEPT_OPENING:
            self.opening = (self.opening + data)[:_KEPT_OPENING]
        self._last.append(data)
        self._last_size += len(data)
        if self._last_size > _MOST_LAST:
            self._last = [self.tail]
            self._last_size = len(self._last[0])
        if self._sink is not None:
            self._hand_on(data)
            return
        self._held.append(data)
        self._held_size += len(data)
        if self._held_size > _MOST_HELD:
            self._pause_or_not()

    def _hand_on(self, data: bytes) -> None:
        if self._sink is None:
            return
        try:
            self._sink.write(data)
        except (EngineLost, Garbled) as error:
            self._fail(str(error))

    def _without_breaks(self, data: bytes) -> bytes:
        """Return the last of a chunked body without line breaks behind it: they would be put before the next answer."""
        end = self.tail[-len(END) :] + data
        behind = len(end) - len(end.rstrip(b"\r\n")) - len(END)
        if behind <= 0:
            return data
        self._is_stray = True
        return data[:-behind]

    def _fail(self, message: str, *, begun: bool = False) -> None:
        if self.error is None:
            self.error = EngineLost(message, begun=begun or self.last_at > 0)
            self._tell()
        self.abort()

    def _tell(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
        if self._observer is not None:
            self._observer()


def _joined(pieces: list[bytes]) -> bytes:
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


class Collector:
    """A sink that keeps what it is given, up to a limit."""

    def __init__(self, limit: int) -> None:
        self._pieces: list[bytes] = []
        self._left = limit

    @property
    def body(self) -> bytes:
        """Everything that came."""
        return b"".join(self._pieces)

    def write(self, data: bytes) -> None:
        """Keep some bytes. Raises ``EngineLost`` where they are too many."""
        self._left -= len(data)
        if self._left < 0:
            raise EngineLost("its answer is too large", begun=True)
        self._pieces.append(data)
