"""One keep-alive connection to an engine: a request out, its answer's bytes in, handed on as they come.

asyncio calls ``data_received``; llhttp (through httptools) only tells where the answer's head and its end are. The
body is passed on in the engine's own framing, so a chunk costs one parse, one write and no Python loop of ours.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Protocol, cast

import httptools

from hal0.dispatch.heads import END, LARGEST_HEAD, AnswerHead, Header, Remembered

_BEGIN = b"HTTP/"
_KEPT_TAIL = 8192
_KEPT_OPENING = 2048
_MOST_HELD = 256 * 1024


class EngineLost(Exception):
    """The connection ended before the answer did; ``begun`` says whether a first byte of it had come."""

    def __init__(self, message: str, *, begun: bool) -> None:
        super().__init__(message)
        self.begun = begun


class Sink(Protocol):
    """Where an answer's body goes: the client's connection."""

    def write(self, data: bytes) -> None:
        """Take some bytes; says to the connection by ``pause`` and ``resume`` when it has too many."""


class Connection(asyncio.Protocol):
    """A connection with at most one exchange on it.

    ``reused``: it has had an exchange before. ``gap`` is the longest silence during an exchange, in seconds.
    """

    def __init__(self, heads: Remembered[AnswerHead]) -> None:
        self.loop = asyncio.get_running_loop()
        self.transport: asyncio.Transport | None = None
        self._heads = heads
        self.reused = False
        self._paused = False
        self.gap = 600.0
        self.touched = self.loop.time()
        self._flow = asyncio.Event()
        self._flow.set()
        self._reset()

    def _reset(self) -> None:
        self.head: AnswerHead | None = None
        self.first_at = 0.0
        self.last_at = 0.0
        self.opening = b""
        self._tail: deque[bytes] = deque()
        self._tail_size = 0
        self._raw = b""
        self._has_come = False
        self._reason = b""
        self._headers: list[Header] = []
        self._left: int | None = None
        self._is_counted = False
        self._is_stray = False
        self._held_size = 0
        self._sink: Sink | None = None
        self._held: list[bytes] = []
        self._is_slowed = False
        self._headless = False
        self._in_chunk = False
        self._ended = False
        self._is_busy = False
        self._error: EngineLost | None = None
        self._waiter: asyncio.Future[None] | None = None
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
    def is_complete(self) -> bool:
        """Whether the answer is all there."""
        return self._ended

    @property
    def error(self) -> EngineLost | None:
        """Why no more of the answer comes, where it broke off."""
        return self._error

    @property
    def is_framed(self) -> bool:
        """Whether a client can see where the answer ends without the connection's end."""
        head = self.head
        return self._headless or (head is not None and (head.is_chunked or head.length is not None or head.is_empty))

    @property
    def is_between_chunks(self) -> bool:
        """Whether something may be put after what was passed on, without breaking the framing."""
        is_amid = self._in_chunk or self._ended or self.tail[-2:] not in {b"", b"\r\n"}
        return self.head is not None and self.head.is_chunked and not is_amid

    @property
    def tail(self) -> bytes:
        """The last bytes of the body as they went over the wire, up to some thousands."""
        return b"".join(self._tail)[-_KEPT_TAIL:]

    def begin(self, *, headless: bool = False) -> None:
        """Make ready for an answer; ``headless``: to a HEAD, whose answer has no body whatever its head says."""
        self._reset()
        self._headless, self._is_busy = headless, True
        self._parser: httptools.HttpResponseParser | None = None
        self.touched = self.loop.time()

    def observe(self, observer: Callable[[], None]) -> None:
        """Have a function called when the answer's head has come, and when the answer has ended or broken off."""
        self._observer = observer

    def write(self, data: bytes) -> None:
        """Send a part of the request."""
        if self.transport is not None:
            self.touched = self.loop.time()
            self.transport.write(data)

    async def drain(self) -> None:
        """Wait until the engine has taken what was sent."""
        await self._flow.wait()
        if self.transport is None:
            raise EngineLost("the connection ended", begun=False)

    async def answer(self) -> None:
        """Wait for the answer's ``head``. Raises ``EngineLost``."""
        while self.head is None and self._error is None:
            await self._change()
        if self._error is not None:
            raise self._error

    async def relay(self, sink: Sink | None) -> None:
        """Hand the body on until it has ended; None throws it away. Raises ``EngineLost`` where it breaks off."""
        self.feed(sink or _Nowhere())
        while not self._ended and self._error is None:
            await self._change()
        if self._error is not None:
            raise self._error

    def feed(self, sink: Sink) -> None:
        """Hand what has come of the body to a sink, and what will come."""
        self._sink = sink
        if held := self.taken():
            self._hand_on(held)
            self._pause_or_not()

    async def _change(self) -> None:
        self._waiter = self.loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def taken(self) -> bytes:
        """Return what of the body has come and was not handed on. It is the caller's to do so."""
        held, self._held, self._held_size = self._held, [], 0
        return held[0] if len(held) == 1 else b"".join(held)

    @property
    def is_short(self) -> bool:
        """Whether the body is known to be short enough to be looked at."""
        length = self.head.length if self.head else None
        return length is not None and length <= _KEPT_TAIL

    @property
    def held(self) -> bytes:
        """What of the body has come and was not handed on."""
        return b"".join(self._held)

    async def peek(self) -> bytes:
        """Return a short body without passing it on; empty where it is not known to be short."""
        while self.is_short and not self._ended and self._error is None:
            await self._change()
        return self.held if self.is_short else b""

    def release(self) -> bool:
        """End the exchange; return whether the connection may have another one."""
        keeps = self.head is not None and self.head.keeps
        is_good = (
            self._ended
            and keeps
            and not self._is_stray
            and self.transport is not None
            and not self.transport.is_closing()
        )
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
        self._paused, self.touched = wanted, self.loop.time()
        if wanted:
            self.transport.pause_reading()
        else:
            self.transport.resume_reading()

    def expire(self, now: float) -> None:
        """End an exchange in which nothing has come for longer than the gap."""
        if self._is_busy and not self._paused and now - self.touched > self.gap:
            self._has_come = True  # an engine that is only slow must not be asked again
            self._fail(f"nothing came for {self.gap:.0f} s")

    # What asyncio tells.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self.transport = cast("asyncio.Transport", transport)  # sockets are; uvloop's have another base

    def connection_lost(self, exc: Exception | None) -> None:
        """End the exchange: well where the answer ends with the connection, else not."""
        self.transport = None
        self._flow.set()
        if self.head is not None and not self.is_framed and exc is None and not self._ended:
            self._ended = True
            self._tell()
        elif self._is_busy and not self._ended:
            self._fail(str(exc) if exc else "it closed the connection")

    def pause_writing(self) -> None:
        """Note that the engine is slower than the client."""
        self._flow.clear()

    def resume_writing(self) -> None:
        """Note that the engine takes more."""
        self._flow.set()

    def data_received(self, data: bytes) -> None:
        """Parse what came, and hand on what of it is the body."""
        if not self._is_busy or self._ended:
            self.abort()  # nobody asked
            return
        self.last_at = self.touched = self.loop.time()
        self._has_come, had_head = True, self.head is not None
        if self._is_counted:
            self._pass_on(data)
        elif not (had_head or self._raw or self._headless) and self._recalls(data):
            pass
        elif not self._parse(data):
            return
        elif had_head:
            self._pass_on(data)
        else:
            self._take_head(data)
        if self._ended or had_head is not (self.head is not None):
            self._tell()

    def _recalls(self, data: bytes) -> bool:
        """Take the beginning of an answer whose head is known: its body is counted, not parsed."""
        end = data.find(END) + len(END)
        head = self._heads.known.get(data[:end])
        if head is None:
            return False
        self.head, self._left, self._is_counted = head, head.length, True
        self._ended = not head.length
        if rest := data[end:]:
            self._pass_on(rest)
        return True

    def _parse(self, data: bytes) -> bool:
        if self._parser is None:
            self._parser = httptools.HttpResponseParser(self)
        was_in_chunk = self._in_chunk
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._in_chunk = was_in_chunk  # none of this is passed on
            self._fail(f"its answer is not HTTP: {error}")
            return False
        return True

    def _take_head(self, data: bytes) -> None:
        self._raw += data
        if not self._raw.startswith(_BEGIN[: len(self._raw)]):
            self._fail("its answer does not begin like one")
            return
        if self.head is None:
            if len(self._raw) > LARGEST_HEAD:
                self._fail("its answer's head is too large")
            return
        end, raw = _end_of_head(self._raw), self._raw
        body, self._raw = raw[end:], b""
        if self._headless or self.head.is_empty:
            self._is_stray = bool(body)
            return
        if self.head.length:
            self._left = self.head.length
            if len(raw) == len(data) and raw.find(END) + len(END) == end:  # in one piece, without an interim answer
                self._heads.add(raw[:end], self.head)
        if body:
            self._pass_on(body)

    def _pass_on(self, data: bytes) -> None:
        if not self.first_at:
            self.first_at = self.last_at
        if len(self.opening) < _KEPT_OPENING:
            self.opening += data[: _KEPT_OPENING - len(self.opening)]
        if self._left is not None:
            if len(data) > self._left:
                self._fail("it sent more than it said")
                return
            self._left -= len(data)
            self._ended = self._ended or not self._left
        elif self._ended and self.head is not None and self.head.is_chunked:
            data = self._without_breaks(data)
        self._tail.append(data)
        self._tail_size += len(data)
        while self._tail_size - len(self._tail[0]) > _KEPT_TAIL:
            self._tail_size -= len(self._tail.popleft())
        if self._sink is None:
            self._held.append(data)
            self._held_size += len(data)
            self._pause_or_not()
            return
        self._hand_on(data)

    def _hand_on(self, data: bytes) -> None:
        if self._sink is None:
            return
        try:
            self._sink.write(data)
        except EngineLost as lost:
            self._fail(str(lost))
        except httptools.HttpParserError as error:
            self._fail(f"its answer is not HTTP: {error}")

    def _without_breaks(self, data: bytes) -> bytes:
        """Return the last of a chunked body without line breaks behind it: they would be put before the next answer."""
        end = (self._tail[-1] if self._tail else b"")[-4:] + data
        behind = len(end) - len(end.rstrip(b"\r\n")) - len(END)
        if behind <= 0:
            return data
        self._is_stray = True
        return data[:-behind]

    def _fail(self, message: str) -> None:
        if self._error is None:
            self._error = EngineLost(message, begun=self._has_come)
            self._tell()
        self.abort()

    def _tell(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
        if self._observer is not None:
            self._observer()

    # What llhttp tells.

    def on_message_begin(self) -> None:
        """Refuse a second answer where one was asked for: its bytes must not reach the client."""
        if self._ended:
            raise ValueError("more than one answer")
        self._reason = b""

    def on_status(self, status: bytes) -> None:
        """Keep the reason phrase."""
        self._reason += status

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header."""
        self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """Take the head; that of an interim answer (1xx) is not the answer's."""
        parser, headers = self._parser, tuple(self._headers)
        self._headers.clear()
        if parser is not None and parser.get_status_code() >= 200:  # noqa: PLR2004  (1xx)
            self.head = AnswerHead(parser.get_status_code(), self._reason, headers, parser.should_keep_alive())
            self._ended = self._headless

    def on_chunk_header(self) -> None:
        """Note that a chunk began."""
        self._in_chunk = True

    def on_chunk_complete(self) -> None:
        """Note that a chunk ended."""
        self._in_chunk = False

    def on_message_complete(self) -> None:
        """Note the end of the answer."""
        self._ended = self.head is not None


def _end_of_head(raw: bytes) -> int:
    """Return where the head of an answer ends; interim answers (1xx) may come before it."""
    begin, end = 0, raw.find(END) + len(END)
    while raw[begin + 9 : begin + 10] == b"1":
        begin, end = end, raw.find(END, end) + len(END)
    return end


class _Nowhere:
    """A sink that keeps nothing."""

    def write(self, data: bytes) -> None:
        """Throw it away."""


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
