"""One exchange with an engine: what of its bytes is taken for its answer, and what is not."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import pytest
from dispatch.raw import Paired, Peer, heard, no_complaints, pool_for, saying, soon, turns, until
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from hal0.dispatch.connection import Collector, Connection, EngineLost
from hal0.dispatch.heads import Header
from hal0.dispatch.pool import Origin, Pool

ASK = b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\n{}"
OK = b"HTTP/1.1 200 OK\r\n"
LENGTH = OK + b"Content-Type: application/json\r\nContent-Length: 13\r\n\r\n"
CHUNKS = b'5;x="y"\r\nhello\r\n1 \r\n'.replace(b" ", b"") + b",\r\n0006\r\n world\r\n0\r\nX-Trailer: t\r\n\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\nX-A: b\r\n\r\n"
EARLY = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
BODY = b'{"a": "\0\xff"}\r\n'[:13]


@dataclass(frozen=True)
class Case:
    """An answer's bytes, and which of them are its body's."""

    wire: bytes
    body: bytes
    status: int = 200
    closes: bool = False
    headless: bool = False


CASES = {
    "with a length": Case(LENGTH + BODY, BODY),
    "with a length of nothing": Case(OK + b"Content-Length: 0\r\n\r\n", b""),
    "with an end in its body": Case(LENGTH + b"\r\n\r\nHTTP/1.1 ", b"\r\n\r\nHTTP/1.1 "),
    "in chunks": Case(CHUNKED + CHUNKS, CHUNKS),
    "in chunks of another coding": Case(OK + b"Transfer-Encoding: gzip, Chunked\r\n\r\n" + CHUNKS, CHUNKS),
    "in no chunk": Case(CHUNKED + b"0\r\n\r\n", b"0\r\n\r\n"),
    "until its end": Case(OK + b"X-A: b\r\n\r\n" + BODY, BODY, closes=True),
    "until its end, of HTTP/1.0": Case(b"HTTP/1.0 200 OK\r\n\r\n" + BODY, BODY, closes=True),
    "with a length, of HTTP/1.0": Case(b"HTTP/1.0 200 OK\r\nContent-Length: 13\r\n\r\n" + BODY, BODY),
    "that closes": Case(OK + b"Connection: close\r\nContent-Length: 13\r\n\r\n" + BODY, BODY, closes=True),
    "no content": Case(b"HTTP/1.1 204 No Content\r\n\r\n", b"", 204),
    "not modified": Case(b"HTTP/1.1 304 Not Modified\r\nContent-Length: 13\r\n\r\n", b"", 304),
    "to HEAD, with a length": Case(LENGTH, b"", headless=True),
    "to HEAD, in chunks": Case(CHUNKED, b"", headless=True),
    "to HEAD, until its end": Case(OK + b"\r\n", b"", headless=True),
    "after an interim one": Case(b"HTTP/1.1 100 Continue\r\n\r\n" + LENGTH + BODY, BODY),
    "after several interim ones": Case(EARLY + EARLY + CHUNKED + CHUNKS, CHUNKS),
    "with an unknown status": Case(b"HTTP/1.1 529 Site is overloaded\r\nContent-Length: 2\r\n\r\n{}", b"{}", 529),
    "with an empty header": Case(OK + b"X-A:\r\nContent-Length: 2\r\n\r\n{}", b"{}"),
}
each_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


@dataclass(frozen=True)
class Heard:
    """An answer as the dispatcher has it."""

    status: int
    headers: tuple[Header, ...]
    body: bytes
    opening: bytes
    tail: bytes
    is_framed: bool
    is_kept: bool


async def ask(pool: Pool, origin: Origin, *, headless: bool = False) -> Connection:
    """Ask, and return the connection once the answer's head is there; a HEAD has a fresh one, as in hal0."""
    if not headless:
        return await pool.ask(origin, ASK, gap=60)
    connection = await pool.open(origin, gap=60, headless=True)
    connection.write(ASK)
    try:
        await connection.answer()
    except EngineLost:
        pool.give_back(origin, connection)
        raise
    return connection


@dataclass
class Wire:
    """A pool, an origin whose engine is the test, and the engine's end of the newest connection."""

    pool: Pool = field(default_factory=Pool)
    origin: Paired = field(default_factory=Paired)

    _end: socket.socket | None = None

    @property
    def end(self) -> socket.socket:
        """The engine's end of the connection that the last request came on."""
        return self._end or self.origin.ends[-1]

    async def hear(self, *, headless: bool = False) -> Heard:
        """Ask, and return the whole answer."""
        connection = await ask(self.pool, self.origin, headless=headless)
        sink = Collector(2**26)
        try:
            await connection.relay(sink)
        finally:
            self.pool.give_back(self.origin, connection)
        head = connection.head
        assert head is not None
        return Heard(
            *(head.status, head.headers, sink.body, connection.opening, connection.tail),
            *(connection.is_framed, connection.is_usable),
        )

    async def asked(self) -> None:
        """Wait for a request, on whatever connection it comes."""
        read = b""

        def has_come() -> bool:
            nonlocal read
            for end in self.origin.ends:
                with suppress(OSError):
                    piece = end.recv(65_536)
                    read += piece
                    self._end = end if piece else self._end
            return read.endswith(ASK)

        await until(has_come)

    async def said(self, *pieces: bytes, closes: bool = False, headless: bool = False) -> Heard:
        """Ask, have the engine answer in just these pieces, and return what was heard."""
        hearing = asyncio.create_task(self.hear(headless=headless))
        await self.asked()
        await self.say(*pieces)
        if closes:
            self.end.close()
        return await soon(hearing)

    async def say(self, *pieces: bytes) -> None:
        for piece in pieces:
            try:
                await soon(asyncio.get_running_loop().sock_sendall(self.end, piece))
            except ConnectionError:
                break
            await turns()


@asynccontextmanager
async def wires() -> AsyncIterator[Wire]:
    wire = Wire()
    with no_complaints():
        try:
            yield wire
        finally:
            wire.pool.close()
            await turns()
            for end in wire.origin.ends:
                end.close()


def at_every_byte(case: Case) -> list[bytes]:
    return [bytes([byte]) for byte in case.wire]


# Answers.


@each_case
async def test_an_answer_is_handed_on_byte_by_byte_as_the_engine_framed_it(case: Case) -> None:
    script = saying(case.wire, then_close=case.closes)
    async with pool_for(script) as (pool, engine):
        connection = await ask(pool, engine.origin, headless=case.headless)
        sink = Collector(2**26)
        await connection.relay(sink)
        assert (connection.status, sink.body) == (case.status, case.body)
        assert connection.is_complete
        pool.give_back(engine.origin, connection)


@each_case
async def test_it_makes_no_difference_where_an_answer_is_split(case: Case) -> None:
    async with wires() as wire:
        whole = await wire.said(case.wire, closes=case.closes, headless=case.headless)
        for at in range(1, len(case.wire)):
            pieces = (case.wire[:at], case.wire[at:])
            assert await wire.said(*pieces, closes=case.closes, headless=case.headless) == whole, at


@each_case
async def test_an_answer_may_come_one_byte_at_a_time(case: Case) -> None:
    async with wires() as wire:
        seen = await wire.said(*at_every_byte(case), closes=case.closes, headless=case.headless)
        assert (seen.status, seen.body) == (case.status, case.body)


@each_case
async def test_it_makes_no_difference_whether_its_head_came_before(case: Case) -> None:
    async with wires() as fresh, wires() as used:
        for other in CASES.values():
            await used.said(other.wire, closes=other.closes, headless=other.headless)
        whole = await fresh.said(case.wire, closes=case.closes, headless=case.headless)
        for _ in range(2):
            assert await used.said(case.wire, closes=case.closes, headless=case.headless) == whole
        end = case.wire.rindex(b"\r\n\r\n", 0, len(case.wire) - len(case.body)) + 4
        pieces = [piece for piece in (case.wire[:end], case.wire[end:]) if piece]
        assert await used.said(*pieces, closes=case.closes, headless=case.headless) == whole


async def test_the_reason_is_the_answers_own_and_whole() -> None:
    answer = b"HTTP/1.1 200 All is very well\r\nContent-Length: 2\r\n\r\n{}"
    async with wires() as wire:
        assert await reason(wire, answer) == b"All is very well"
        assert await reason(wire, answer[:16], answer[16:]) == b"All is very well"
        assert await reason(wire, EARLY + b"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\n{}") in {b"", b"OK"}


async def reason(wire: Wire, *pieces: bytes) -> bytes:
    asking = asyncio.create_task(wire.pool.ask(wire.origin, ASK, gap=60))
    await wire.asked()
    await wire.say(*pieces)
    connection = await soon(asking)
    wire.pool.give_back(wire.origin, connection)
    assert connection.head is not None
    return connection.head.reason


@pytest.mark.parametrize("lead", [b"\r\n", b"\r\n\r\n", b"\n"])
async def test_line_breaks_before_an_answer_are_skipped_or_make_it_fail(lead: bytes) -> None:
    async with wires() as wire:
        hearing = asyncio.create_task(wire.hear())
        await wire.asked()
        await wire.say(lead + LENGTH + BODY)
        await until(hearing.done)
        if hearing.exception() is None:
            assert hearing.result().body == BODY


async def test_headers_come_in_their_order_with_names_in_lower_case() -> None:
    async with wires() as wire:
        seen = await wire.said(OK + b"X-B: 1\r\nx-a:  two  words\r\nX-B: 3\r\nContent-Length: 0\r\n\r\n")
    assert seen.headers == ((b"x-b", b"1"), (b"x-a", b"two  words"), (b"x-b", b"3"), (b"content-length", b"0"))


async def test_trailers_and_interim_headers_are_no_headers() -> None:
    async with wires() as wire:
        seen = await wire.said(EARLY + CHUNKED + CHUNKS)
    assert seen.headers == ((b"transfer-encoding", b"chunked"), (b"x-a", b"b"))


async def test_a_space_behind_the_coding_does_not_hide_it() -> None:
    async with wires() as wire:
        seen = await wire.said(OK + b"Transfer-Encoding: chunked \r\n\r\n" + CHUNKS)
    assert seen.is_framed


async def test_a_coding_that_only_ends_like_chunks_is_none() -> None:
    async with wires() as wire:
        seen = await wire.said(OK + b"Transfer-Encoding: xchunked\r\n\r\n" + BODY, closes=True)
    assert (seen.body, seen.is_framed) == (BODY, False)


async def test_its_first_and_last_bytes_are_kept() -> None:
    body = b"%08d" % 0 + b"x" * 50_000 + b"%08d" % 1
    wire_ = OK + b"Content-Length: %d\r\n\r\n" % len(body) + body
    async with wires() as wire:
        seen = await wire.said(*(wire_[at : at + 3000] for at in range(0, len(wire_), 3000)))
    assert seen.body == body
    assert seen.opening == body[: len(seen.opening)]
    assert len(seen.opening) >= 2048
    assert seen.tail == body[-8192:]


async def test_the_first_bytes_are_kept_when_a_known_head_comes_alone() -> None:
    async with wires() as wire:
        await wire.said(LENGTH + BODY)
        assert (await wire.said(LENGTH, BODY)).opening == BODY


# Reuse.


@each_case
async def test_a_connection_is_kept_where_the_answer_ended_and_allows_it(case: Case) -> None:
    async with wires() as wire:
        seen = await wire.said(case.wire, closes=case.closes, headless=case.headless)
        connections = len(wire.origin.ends)
        can_be_kept = not case.closes and b"1.0" not in case.wire and case.wire != OK + b"\r\n"
        assert seen.is_kept == can_be_kept
        await wire.said(LENGTH + BODY)
        assert (len(wire.origin.ends) == connections) == can_be_kept


async def test_a_connection_of_http_1_0_is_kept_if_its_engine_says_so() -> None:
    async with wires() as wire:
        wire_ = b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 13\r\n\r\n" + BODY
        assert (await wire.said(wire_)).is_kept


async def test_an_answer_leaves_nothing_behind_for_the_next() -> None:
    async with wires() as wire:
        fresh = await wire.said(LENGTH + BODY)
        for other in (CASES["in chunks"], CASES["no content"], CASES["to HEAD, in chunks"]):
            await wire.said(other.wire, headless=other.headless)
            assert await wire.said(LENGTH + BODY) == fresh
        assert len(wire.origin.ends) == 2  # the HEAD has one of its own


async def test_a_connection_whose_answer_ended_while_it_was_held_back_answers_again() -> None:
    async with wires() as wire:
        asking = asyncio.create_task(wire.pool.ask(wire.origin, ASK, gap=60))
        await wire.asked()
        await wire.say(LENGTH + BODY[:5])
        connection = await soon(asking)

        class Full:
            def write(self, data: bytes) -> None:
                connection.pause()

        relaying = asyncio.create_task(connection.relay(Full()))
        await turns()
        connection.resume()
        await wire.say(BODY[5:])
        await soon(relaying)
        wire.pool.give_back(wire.origin, connection)
        assert (await wire.said(LENGTH + BODY)).body == BODY


# Bytes that are not the answer's.

STRAY = {
    "behind a length": (LENGTH + BODY, b"stray", False),
    "behind a length, as an answer": (LENGTH + BODY, LENGTH + BODY, False),
    "behind chunks": (CHUNKED + CHUNKS, b"stray", False),
    "behind chunks, as an answer": (CHUNKED + CHUNKS, LENGTH + BODY, False),
    "behind chunks, as line breaks": (CHUNKED + CHUNKS, b"\r\n\r\n", False),
    "behind chunks, as a line feed": (CHUNKED + CHUNKS, b"\n", False),
    "behind chunks, as half a line break": (CHUNKED + CHUNKS, b"\r\n\r", False),
    "behind no content": (b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", b"stray", False),
    "behind not modified": (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", LENGTH + BODY, False),
    "as the body of an answer to HEAD": (LENGTH, BODY, True),
    "as the chunks of an answer to HEAD": (CHUNKED, CHUNKS, True),
    "as the rest of an answer to HEAD": (OK + b"\r\n", BODY, True),
    "behind an answer that closes": (OK + b"Connection: close\r\nContent-Length: 2\r\n\r\n{}", LENGTH, False),
}


@pytest.mark.parametrize(("answer", "stray", "headless"), STRAY.values(), ids=STRAY)
@pytest.mark.parametrize("when", ["at once", "after the head", "later"])
async def test_bytes_behind_an_answer_are_not_passed_on_and_end_the_connection(
    answer: bytes, stray: bytes, when: str, *, headless: bool
) -> None:
    head, _, body = answer.partition(b"\r\n\r\n")
    pieces = {
        "at once": (answer + stray,),
        "after the head": (head + b"\r\n\r\n", body + stray),
        "later": (answer, stray),
    }
    async with wires() as wire:
        for _ in range(2):  # the second time the head is known
            hearing = asyncio.create_task(wire.hear(headless=headless))
            await wire.asked()
            await wire.say(*pieces[when])
            await until(hearing.done)
            if hearing.exception() is None:
                assert hearing.result().body == body
            else:
                assert isinstance(hearing.exception(), EngineLost)
            assert await heard(wire.end) == b""
            assert wire.pool.take(wire.origin) is None


@pytest.mark.parametrize("pieces", [(LENGTH + BODY[:5],), (LENGTH, BODY[:5]), (LENGTH,)])
async def test_an_answer_shorter_than_it_said_is_lost(pieces: tuple[bytes, ...]) -> None:
    async with wires() as wire:
        for _ in range(2):
            with pytest.raises(EngineLost) as lost:
                await wire.said(*pieces, closes=True)
            assert lost.value.begun


async def test_a_body_for_an_answer_of_no_length_is_not_taken_for_it() -> None:
    async with wires() as wire:
        hearing = asyncio.create_task(wire.hear())
        await wire.asked()
        await wire.say(OK + b"Content-Length: 0\r\n\r\n", b"stray")
        assert (await soon(hearing)).body == b""
        assert await heard(wire.end) == b""


BROKEN = {
    "no HTTP": b"garbage\r\n\r\n",
    "a request": ASK,
    "an unknown version": b"HTTP/7.7 200 OK\r\nContent-Length: 2\r\n\r\n{}",
    "a status of letters": b"HTTP/1.1 abc OK\r\nContent-Length: 2\r\n\r\n{}",
    "a status of two digits": b"HTTP/1.1 20 OK\r\nContent-Length: 2\r\n\r\n{}",
    "TLS": b"\x15\x03\x01\x00\x02\x02\x16",
    "bare line feeds": b"HTTP/1.1 200 OK\nContent-Length: 2\n\n{}",
    "a bare line feed": OK + b"Content-Length: 2\r\n\n{}",
    "a folded header": OK + b"X-A: b\r\n c\r\nContent-Length: 2\r\n\r\n{}",
    "a nul in a header": OK + b"X-A: b\0c\r\nContent-Length: 2\r\n\r\n{}",
    "a nul in a name": OK + b"X\0: c\r\nContent-Length: 2\r\n\r\n{}",
    "a space in a name": OK + b"X A: c\r\nContent-Length: 2\r\n\r\n{}",
    "two lengths": OK + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    "a length of letters": OK + b"Content-Length: two\r\n\r\n{}",
    "a huge length": OK + b"Content-Length: 99999999999999999999999\r\n\r\n{}",
    "both framings": OK + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "both framings, turned": OK + b"Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n0\r\n\r\n",
    "a chunk without a size": CHUNKED + b"\r\nhello\r\n0\r\n\r\n",
    "a chunk of another size": CHUNKED + b"3\r\nhello\r\n0\r\n\r\n",
    "a chunk of no number": CHUNKED + b"xyz\r\nhello\r\n0\r\n\r\n",
    "a chunk of negative size": CHUNKED + b"-5\r\nhello\r\n0\r\n\r\n",
    "a chunk of huge size": CHUNKED + b"11111111111111111\r\nhello\r\n0\r\n\r\n",
    "a chunk with a bare line feed": CHUNKED + b"5\nhello\r\n0\r\n\r\n",
    "a length among the trailers": CHUNKED + b"0\r\nContent-Length: 5\r\n\r\n",
    "another protocol": b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
    "another protocol, with its bytes": b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nhello",
    "another protocol, unasked": b"HTTP/1.1 101 Switching\r\n\r\n" + LENGTH + BODY,
}
each_broken = pytest.mark.parametrize("wire_", BROKEN.values(), ids=BROKEN)


@each_broken
async def test_what_is_no_answer_is_lost_and_ends_the_connection(wire_: bytes) -> None:
    async with wires() as wire:
        with pytest.raises(EngineLost) as lost:
            await wire.said(wire_)
        assert lost.value.begun, "bytes came: this may not be sent again"
        assert await heard(wire.end) == b""


@each_broken
async def test_it_is_lost_however_it_is_split(wire_: bytes) -> None:
    async with wires() as wire:
        with pytest.raises(EngineLost):
            await wire.said(*(bytes([byte]) for byte in wire_))


@pytest.mark.parametrize("size", [70_000, 200_000, 600_000])
async def test_a_head_that_is_too_large_is_lost(size: int) -> None:
    head = OK + b"".join(b"X-%d: %b\r\n" % (at, b"x" * 1000) for at in range(size // 1000))
    async with pool_for(saying(head)) as (pool, engine):
        with pytest.raises(EngineLost, match="too large") as lost:
            await pool.ask(engine.origin, ASK, gap=60)
        assert lost.value.begun


async def test_any_number_of_interim_answers_may_come_at_once() -> None:
    async with wires() as wire:
        assert (await wire.said(b"HTTP/1.1 100 Continue\r\n\r\n" * 2000 + LENGTH + BODY)).body == BODY


async def test_interim_answers_without_end_are_lost() -> None:
    async with pool_for(saying(EARLY * 20_000)) as (pool, engine):
        with pytest.raises(EngineLost, match="too large"):
            await pool.ask(engine.origin, ASK, gap=60)


TOKENS = [
    *(
        OK,
        LENGTH,
        CHUNKED,
        CHUNKS,
        BODY,
        EARLY,
        b"HTTP/1.1 ",
        b"200",
        b"204",
        b"101 S\r\n",
        b"0\r\n\r\n",
        b"5\r\nhello\r\n",
    ),
    *(
        b"\r\n",
        b"\r\n\r\n",
        b"\n",
        b"\r",
        b" ",
        b":",
        b"\0",
        b"\xff",
        b"Content-Length: 2",
        b"Transfer-Encoding: chunked",
    ),
    *(b"Connection: close", b"Connection: upgrade", b"Upgrade: x", b"Transfer-Encoding: x", b"ab"),
]
noise = st.one_of(st.lists(st.sampled_from(TOKENS), max_size=12).map(b"".join), st.binary(max_size=100))


@given(st.lists(noise, min_size=1, max_size=4), st.booleans())
@example([b"HTTP/1.1 101 S\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"], False)
@settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow])
async def test_whatever_an_engine_says_is_an_answer_or_lost(pieces: list[bytes], headless: bool) -> None:
    async with wires() as wire:
        hearing = asyncio.create_task(wire.hear(headless=headless))
        await wire.asked()
        await wire.say(*pieces)
        wire.end.close()
        await until(hearing.done)
        if hearing.exception() is not None:
            assert isinstance(hearing.exception(), EngineLost)
            return
        seen = hearing.result()
        assert seen.body == b"" if headless else seen.body in b"".join(pieces)


# Engines that go.


@pytest.mark.parametrize("is_reset", [False, True])
@pytest.mark.parametrize(
    ("wire_", "begun"),
    [(b"", False), (b"H", True), (LENGTH[:-1], True), (LENGTH, True), (LENGTH + BODY[:-1], True), (EARLY, True)],
)
async def test_an_engine_that_goes_has_begun_its_answer_or_not(wire_: bytes, *, begun: bool, is_reset: bool) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.say(wire_)
        await until(lambda: not peer.writer.transport.get_write_buffer_size() and has_heard(wire_))
        if is_reset:
            peer.reset()

    def has_heard(said: bytes) -> bool:
        return not said or any(connection.last_at for connection in pool._busy)

    async with pool_for(script) as (pool, engine):
        with pytest.raises(EngineLost) as lost:
            await exchange(pool, engine.origin)
        assert lost.value.begun is begun


async def exchange(pool: Pool, origin: Paired | object) -> bytes:
    """Ask and return the body."""
    connection = await pool.ask(origin, ASK, gap=60)  # type: ignore[arg-type]
    sink = Collector(2**26)
    try:
        await connection.relay(sink)
    finally:
        pool.give_back(origin, connection)  # type: ignore[arg-type]
    return sink.body


async def test_an_answer_until_its_end_that_is_reset_is_lost() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.say(OK + b"\r\n" + BODY)
        await until(lambda: any(connection.last_at for connection in pool._busy))
        peer.reset()

    async with pool_for(script) as (pool, engine):
        with pytest.raises(EngineLost) as lost:
            await exchange(pool, engine.origin)
        assert lost.value.begun


# Silence. `now` is made up.


@pytest.mark.parametrize("wire_", [b"", LENGTH[:9], LENGTH, LENGTH + BODY[:5], CHUNKED + CHUNKS[:9]])
async def test_a_silence_longer_than_the_gap_is_the_answers_end(wire_: bytes) -> None:
    async with wires() as wire:
        hearing = asyncio.create_task(wire.hear())
        await wire.asked()
        await wire.say(wire_)
        (connection,) = wire.pool._busy
        connection.expire(connection.loop.time() + 59)
        await turns()
        assert not hearing.done()
        connection.expire(connection.loop.time() + 61)
        with pytest.raises(EngineLost, match="60 s"):
            await soon(hearing)
        assert await heard(wire.end) == b""


async def test_a_silence_that_a_slow_client_causes_does_not_count() -> None:
    async with wires() as wire:
        hearing = asyncio.create_task(wire.hear())
        await wire.asked()
        await wire.say(LENGTH)
        (connection,) = wire.pool._busy
        connection.pause()
        connection.touched -= 1000
        connection.expire(connection.loop.time())
        connection.resume()
        connection.expire(connection.loop.time())
        await wire.say(BODY)
        assert (await soon(hearing)).body == BODY


async def test_an_unused_connection_has_no_silence() -> None:
    async with wires() as wire:
        assert (await wire.said(LENGTH + BODY)).is_kept
        connection = wire.pool.take(wire.origin)
        assert connection is not None
        connection.expire(connection.loop.time() + 1000)
        assert connection.is_usable
        connection.abort()


# Holding an engine back.


async def test_a_connection_that_is_held_back_reads_no_more() -> None:
    size = 32 * 2**20

    async def script(peer: Peer) -> None:
        await peer.request()
        peer.writer.write(OK + b"Content-Length: %d\r\n\r\n" % size + b"x" * size)
        await peer.rest()

    got: list[bytes] = []

    class Slow:
        def write(self, data: bytes) -> None:
            got.append(data)
            connection.pause()

    async with pool_for(script) as (pool, engine):
        connection = await pool.ask(engine.origin, ASK, gap=60)
        relaying = asyncio.create_task(connection.relay(Slow()))
        await until(lambda: got)
        await turns(100)
        assert len(got) <= 2
        assert engine.peers[0].writer.transport.get_write_buffer_size() > 0
        while not relaying.done():
            connection.resume()
            await turns()
        assert sum(map(len, got)) == size
        pool.give_back(engine.origin, connection)


async def test_what_comes_before_anybody_relays_it_is_handed_on_then() -> None:
    async with wires() as wire:
        asking = asyncio.create_task(wire.pool.ask(wire.origin, ASK, gap=60))
        await wire.asked()
        await wire.say(LENGTH, BODY[:3], BODY[3:])
        connection = await soon(asking)
        sink = Collector(100)
        await soon(connection.relay(sink))
        assert sink.body == BODY
        wire.pool.give_back(wire.origin, connection)


async def test_an_answer_that_nobody_relays_yet_is_not_taken_without_limit() -> None:
    size = 32 * 2**20

    async def script(peer: Peer) -> None:
        peer.writer.write(OK + b"Content-Length: %d\r\n\r\n" % size + b"x" * size)
        await peer.rest()

    async with pool_for(script) as (pool, engine):
        connection = await pool.open(engine.origin, gap=60)
        await soon(connection.answer())
        await until(lambda: connection._paused or connection.is_complete)
        assert not connection.is_complete
        sink = Collector(2 * size)
        await soon(connection.relay(sink))
        assert len(sink.body) == size
        pool.give_back(engine.origin, connection)


async def test_an_engine_that_reads_slowly_holds_its_sender_back() -> None:
    may_read = asyncio.Event()

    async def script(peer: Peer) -> None:
        await may_read.wait()
        await peer.hear(16 * 2**20)
        await peer.say(LENGTH + BODY)
        await peer.rest()

    async with pool_for(script) as (pool, engine):
        connection = await pool.open(engine.origin, gap=60)
        connection.write(b"x" * 16 * 2**20)
        draining = asyncio.create_task(connection.drain())
        await turns(20)
        assert not draining.done()
        may_read.set()
        await soon(draining)
        await soon(connection.answer())
        pool.give_back(engine.origin, connection)


async def test_an_engine_that_goes_while_it_holds_its_sender_back_is_lost() -> None:
    async with pool_for(lambda _peer: asyncio.sleep(0)) as (pool, engine):
        connection = await pool.open(engine.origin, gap=60)
        connection.write(b"x" * 16 * 2**20)
        with pytest.raises(EngineLost):
            await soon(connection.drain())
        pool.give_back(engine.origin, connection)


# Looking into an answer.


async def test_a_short_body_can_be_looked_at_and_is_handed_on_all_the_same() -> None:
    async with wires() as wire:
        for pieces in ((LENGTH + BODY,), (LENGTH, BODY), (LENGTH + BODY[:4], BODY[4:])):
            asking = asyncio.create_task(wire.pool.ask(wire.origin, ASK, gap=60))
            await wire.asked()
            await wire.say(pieces[0])
            connection = await soon(asking)
            peeking = asyncio.create_task(connection.peek())
            await wire.say(*pieces[1:])
            assert await soon(peeking) == BODY
            sink = Collector(100)
            await connection.relay(sink)
            assert sink.body == BODY
            wire.pool.give_back(wire.origin, connection)


@pytest.mark.parametrize("wire_", [CHUNKED, OK + b"Content-Length: 100000\r\n\r\n", OK + b"\r\n"])
async def test_a_body_that_is_long_or_of_unknown_length_is_not_looked_at(wire_: bytes) -> None:
    async with wires() as wire:
        asking = asyncio.create_task(wire.pool.ask(wire.origin, ASK, gap=60))
        await wire.asked()
        await wire.say(wire_)
        connection = await soon(asking)
        assert await soon(connection.peek()) == b""
        wire.pool.give_back(wire.origin, connection)


async def test_a_body_that_breaks_off_while_it_is_looked_at_is_lost_when_it_is_handed_on() -> None:
    async with wires() as wire:
        asking = asyncio.create_task(wire.pool.ask(wire.origin, ASK, gap=60))
        await wire.asked()
        await wire.say(LENGTH + BODY[:4])
        connection = await soon(asking)
        peeking = asyncio.create_task(connection.peek())
        await turns()
        wire.end.close()
        assert await soon(peeking) == BODY[:4]
        with pytest.raises(EngineLost):
            await connection.relay(Collector(99))
        wire.pool.give_back(wire.origin, connection)


async def test_a_collector_takes_just_its_limit() -> None:
    async with wires() as wire:
        for limit in (13, 12):
            asking = asyncio.create_task(wire.pool.ask(wire.origin, ASK, gap=60))
            await wire.asked()
            await wire.say(LENGTH, BODY[:5])
            connection = await soon(asking)
            relaying = asyncio.create_task(connection.relay(Collector(limit)))
            await turns()
            await wire.say(BODY[5:])
            if limit == 13:
                await soon(relaying)
            else:
                with pytest.raises(EngineLost, match="too large"):
                    await soon(relaying)
            wire.pool.give_back(wire.origin, connection)


# Observing.


@each_case
async def test_an_observer_hears_of_the_head_and_of_the_end(case: Case) -> None:
    async with wires() as wire:
        connection = await wire.pool.open(wire.origin, gap=60, headless=case.headless)
        seen = observed(connection)
        await wire.say(*at_every_byte(case))
        if case.closes:
            wire.end.close()
        await until(lambda: connection.is_complete)
        assert seen[0][0]
        assert seen[-1] == (True, True, False)
        assert len(seen) <= 2
        wire.pool.give_back(wire.origin, connection)
        await turns()
        assert len(seen) <= 2


@pytest.mark.parametrize("wire_", [b"", LENGTH, LENGTH + BODY[:5], CHUNKED + CHUNKS[:8]])
async def test_an_observer_hears_that_an_answer_broke_off(wire_: bytes) -> None:
    async with wires() as wire:
        connection = await wire.pool.open(wire.origin, gap=60)
        seen = observed(connection)
        await wire.say(wire_)
        wire.end.close()
        await until(lambda: connection.error)
        assert seen[-1] == (bool(wire_), False, True)
        wire.pool.give_back(wire.origin, connection)


def observed(connection: Connection) -> list[tuple[bool, bool, bool]]:
    """Note at each call of its observer whether there is a head, an end, an error."""
    seen: list[tuple[bool, bool, bool]] = []
    connection.observe(lambda: seen.append((bool(connection.status), connection.is_complete, bool(connection.error))))
    return seen
