"""A client, hal0's two connections, and an engine: what each end reads, byte by byte."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import pytest
from dispatch.raw import (
    Door,
    Engine,
    Message,
    Paired,
    Partial,
    Peer,
    Script,
    door,
    engine,
    read_all,
    read_answer,
    saying,
    soon,
    turns,
    until,
)
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from hal0.dispatch.answer import Unchunked
from hal0.dispatch.call import Call
from hal0.dispatch.connection import Collector, Connection, EngineLost
from hal0.dispatch.forward import deliver, request_head, send_parts
from hal0.dispatch.pool import Origin, Pool
from hal0.dispatch.upstreams import whole_body

OK = b"HTTP/1.1 200 OK\r\n"
JSON = OK + b"Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
SSE = OK + b"Content-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n"
EVENTS = [b'data: {"n": %d}\n\n' % number for number in range(3)]
DONE = b"data: [DONE]\n\n"
GET = b"GET /v1/models HTTP/1.1\r\nHost: a\r\n\r\n"
LAST = b"GET /v1/models HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
OLD = b"GET /v1/models HTTP/1.0\r\n\r\n"
CHAT = b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}"
MEBI = 2**20


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


STREAM = SSE + b"".join(map(chunk, [*EVENTS, DONE])) + b"0\r\n\r\n"


@dataclass
class Relay:
    """A handler that passes a request on to one origin, and its answer back; and what became of that."""

    origin: Origin
    pool: Pool = field(default_factory=Pool)
    own: bytes = b"host: engine\r\n"
    told: bytes = b"x-hal0-slot: chat\r\n"
    lost: list[EngineLost] = field(default_factory=list)
    may_deliver: asyncio.Event = field(default_factory=asyncio.Event)
    calls: list[Call] = field(default_factory=list)
    passes: Callable[[Call], bytes] = lambda call: call.head.passed

    def __post_init__(self) -> None:
        self.may_deliver.set()

    def head(self, call: Call, length: int | None) -> bytes:
        return request_head(call, call.head.path, self.passes(call), self.own, length)

    async def __call__(self, call: Call) -> None:
        """Send all of it at once; a HEAD as an upload, which is how hal0 passes one on."""
        if call.head.method == "HEAD":
            await self.upload(call)
            return
        self.calls.append(call)
        body = await call.read(MEBI)
        connection = None
        try:
            connection = await self.pool.ask(self.origin, self.head(call, len(body)) + body, gap=60)
            await self.may_deliver.wait()
            await deliver(call, connection, self.told)
        except EngineLost as lost:
            self.note(call, lost)
        finally:
            if connection is not None:
                self.pool.give_back(self.origin, connection)

    async def upload(self, call: Call) -> None:
        """Send it as it comes."""
        self.calls.append(call)
        connection = await self.pool.open(self.origin, gap=60, headless=call.head.method == "HEAD")
        length = call.head.length
        try:
            await send_parts(connection, self.head(call, length), call.parts(), is_chunked=length is None)
            await self.may_deliver.wait()
            await deliver(call, connection, self.told)
        except EngineLost as lost:
            self.note(call, lost)
        finally:
            self.pool.give_back(self.origin, connection)

    def note(self, call: Call, lost: EngineLost) -> None:
        self.lost.append(lost)
        if not call.begun:
            call.respond(502, b"")


@asynccontextmanager
async def relaying(script: Script, *, is_upload: bool = False) -> AsyncIterator[tuple[Door, Relay, Engine]]:
    async with engine(script) as made:
        relay = Relay(made.origin)
        try:
            async with door(relay.upload if is_upload else relay) as opened:
                yield opened, relay, made
        finally:
            relay.pool.close()
            await turns()


async def passed_on(request: bytes, passes: Callable[[Call], bytes] = lambda call: call.head.passed) -> Message:
    """Return a request as the engine gets it."""
    requests: list[Message] = []
    async with relaying(saying(JSON, requests=requests)) as (opened, relay, _):
        relay.passes = passes
        client = await opened.client()
        await client.say(request)
        assert (await client.answer()).status == 200
    (passed,) = requests
    return passed


async def returned(answer: bytes, request: bytes = LAST, *, then_close: bool = False) -> bytes:
    """Return what a client reads of an engine's answer, until its connection ends."""
    async with relaying(saying(answer, then_close=then_close)) as (opened, _, _):
        return await opened.ask(request)


# Heads of requests.


async def test_a_request_is_passed_on_with_its_headers_and_hal0s_own() -> None:
    passed = await passed_on(
        b"POST /v1/embeddings HTTP/1.1\r\nHost: a\r\nX-A: b\r\nx-a: C\r\nContent-Length: 2\r\n\r\n{}"
    )
    assert passed.line == (b"POST", b"/v1/embeddings", b"HTTP/1.1")
    assert passed.headers == ((b"x-a", b"b"), (b"x-a", b"C"), (b"host", b"engine"), (b"content-length", b"2"))
    assert passed.body == b"{}"


@pytest.mark.parametrize(
    "line",
    [
        *(b"Keep-Alive: timeout=5", b"TE: trailers", b"Trailer: X-T", b"Proxy-Connection: keep-alive"),
        *(b"Proxy-Authorization: Basic eA==", b"Proxy-Authenticate: Basic", b"Connection: keep-alive"),
        *(b"Connection: x-secret\r\nX-Secret: 1", b"Connection: X-Secret , keep-alive\r\nX-SECRET: 1"),
        *(b"X-Secret: 1\r\nConnection: x-secret", b"Expect: 100-continue"),
    ],
)
async def test_headers_of_the_clients_connection_are_not_passed_on(line: bytes) -> None:
    passed = await passed_on(b"POST / HTTP/1.1\r\n" + line + b"\r\nX-A: b\r\nContent-Length: 2\r\n\r\n{}")
    assert [name for name, _ in passed.headers] == [b"x-a", b"host", b"content-length"]


async def test_headers_that_several_lines_of_connection_name_are_not_passed_on() -> None:
    passed = await passed_on(
        b"GET / HTTP/1.1\r\nConnection: X-Secret\r\nX-Secret: 1\r\nX-Other: 1\r\nConnection: X-Other\r\n\r\n"
    )
    assert [name for name, _ in passed.headers] == [b"host", b"content-length"]


CREDENTIALS = [b"Authorization: Bearer x", b"X-Api-Key: x", b"Api-Key: x", b"Cookie: a=b"]


@pytest.mark.parametrize("line", [*CREDENTIALS, b"Accept-Encoding: gzip", b"X-Request-Id: x", b"Prefer: wait=3"])
async def test_what_is_none_of_the_engines_business_is_not_passed_on(line: bytes) -> None:
    passed = await passed_on(b"GET / HTTP/1.1\r\n" + line + b"\r\nX-A: b\r\n\r\n")
    assert [name for name, _ in passed.headers] == [b"x-a", b"host", b"content-length"]


@pytest.mark.parametrize("line", CREDENTIALS)
async def test_hal0s_own_application_sees_credentials(line: bytes) -> None:
    passed = await passed_on(b"GET / HTTP/1.1\r\n" + line + b"\r\n\r\n", lambda call: call.head.passed_whole)
    name, _, value = line.partition(b": ")
    assert passed.header(name.lower()) == value


async def test_the_frame_of_a_request_is_hal0s_own() -> None:
    passed = await passed_on(
        b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n5;x=y\r\nhello\r\n1\r\n!\r\n0\r\nX-T: 1\r\n\r\n"
    )
    assert passed.headers == ((b"host", b"engine"), (b"content-length", b"6"))
    assert passed.body == b"hello!"


NAMES = st.text("!#$%&'*+-.^_`|~09azAZ", min_size=1, max_size=8).map(lambda name: b"x" + name.lower().encode())
VALUES = st.lists(st.integers(0, 255), max_size=12).map(bytes)


@given(st.lists(st.tuples(NAMES, VALUES), max_size=4), VALUES)
@example([(b"x-a", b"b\r\nContent-Length: 5")], b"")
@example([(b"x-a", b"b\rc")], b"")
@example([(b"x-a", b"b\nTransfer-Encoding: chunked")], b"")
@example([(b"x-a", b"\x85\x0b\x0c\x1c")], b"\x85")
@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow])
async def test_no_bytes_of_a_client_make_a_line_of_their_own(headers: list[tuple[bytes, bytes]], target: bytes) -> None:
    requests: list[Message] = []
    lines = b"".join(b"%b: %b\r\n" % header for header in headers)
    async with relaying(saying(JSON, requests=requests)) as (opened, _, _):
        client = await opened.client()
        await client.say(b"GET /" + target + b" HTTP/1.1\r\n" + lines + b"\r\n")
        client.writer.write_eof()
        await client.rest()
    for passed in requests:
        assert len(passed.line) == 3
        assert {name for name, _ in passed.headers} <= {name for name, _ in headers} | {b"host", b"content-length"} | {
            name.strip().lower() for value in (b"\r\n" + lines).split(b"\r\n") for name in [value.partition(b":")[0]]
        }
        assert passed.all(b"host") == [b"engine"]
        assert passed.all(b"content-length") == [b"0"]
        assert passed.wire.count(b"\r\n\r\n") == 1


# Answers.


async def test_an_answer_is_returned_with_its_headers_and_hal0s_own() -> None:
    async with relaying(saying(JSON, JSON)) as (opened, _, made):
        client = await opened.client()
        for _ in range(2):
            await client.say(GET)
            answer = await client.answer()
            assert (answer.line, answer.body) == ((b"200", b"OK"), b"{}")
            assert answer.headers == (
                (b"content-type", b"application/json"),
                (b"content-length", b"2"),
                (b"x-hal0-slot", b"chat"),
            )
        assert len(made.peers) == 1


@pytest.mark.parametrize(
    "line",
    [
        *(b"Keep-Alive: timeout=5", b"Proxy-Connection: close", b"Upgrade: h2c", b"Connection: keep-alive"),
        *(b"Connection: X-Secret, keep-alive\r\nX-Secret: 1", b"X-Hal0-Slot: other", b"X-Request-Id: engines"),
    ],
)
async def test_headers_of_the_engines_connection_and_what_hal0_says_itself_are_not_returned(line: bytes) -> None:
    (answer,) = read_all(await returned(JSON.replace(b"OK\r\n", b"OK\r\n" + line + b"\r\n")))
    assert [name for name, _ in answer.headers] == [b"content-type", b"content-length", b"x-hal0-slot", b"connection"]
    assert answer.all(b"x-hal0-slot") == [b"chat"]


@pytest.mark.parametrize("named", [b"Content-Length", b"close, content-length", b"Transfer-Encoding"])
async def test_an_engine_cannot_have_the_frame_of_its_answer_taken_away(named: bytes) -> None:
    answer = STREAM if named == b"Transfer-Encoding" else JSON
    wire = await returned(answer.replace(b"OK\r\n", b"OK\r\nConnection: " + named + b"\r\n"))
    (read,) = read_all(wire)
    assert read.body in {b"{}", b"".join([*EVENTS, DONE])}
    assert b"content-length" in wire or b"transfer-encoding" in wire


async def test_a_stream_is_not_to_be_buffered_by_proxies() -> None:
    (answer,) = read_all(await returned(STREAM))
    assert answer.header(b"x-accel-buffering") == b"no"
    (answer,) = read_all(await returned(JSON))
    assert answer.header(b"x-accel-buffering") is None


async def test_the_bytes_of_a_chunked_body_are_the_engines() -> None:
    body = b'4;name="value"\r\nwiki\r\n00005\r\npedia\r\n0\r\nX-Trailer: t\r\n\r\n'
    wire = await returned(OK + b"Transfer-Encoding: chunked\r\n\r\n" + body)
    assert wire.endswith(b"\r\n\r\n" + body)


async def test_an_event_reaches_the_client_before_the_next_is_there() -> None:
    may_go_on = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.say(SSE + chunk(EVENTS[0]))
        await may_go_on.wait()
        await peer.say(chunk(DONE) + b"0\r\n\r\n")
        await peer.rest()

    async with relaying(script) as (opened, _, _):
        client = await opened.client()
        await client.say(GET)
        await until(lambda: EVENTS[0] in client._read or client.reader._buffer)  # type: ignore[attr-defined]
        while EVENTS[0] not in client._read:
            await client._more()
        may_go_on.set()
        assert (await client.answer()).body == EVENTS[0] + DONE


@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified"])
async def test_an_answer_without_a_body_is_returned_and_the_connection_goes_on(status: bytes) -> None:
    async with relaying(saying(b"HTTP/1.1 " + status + b"\r\nETag: x\r\n\r\n", JSON)) as (opened, _, made):
        client = await opened.client()
        await client.say(GET)
        assert (await client.answer()).status == int(status[:3])
        await client.say(GET)
        assert (await client.answer()).body == b"{}"
        assert len(made.peers) == 1


async def test_an_answer_to_head_is_returned_and_the_connection_goes_on() -> None:
    async with relaying(saying(JSON[:-2], JSON)) as (opened, _, made):
        client = await opened.client()
        await client.say(GET.replace(b"GET", b"HEAD"))
        assert (await client.answer(headless=True)).header(b"content-length") == b"2"
        await client.say(GET)
        assert (await client.answer()).body == b"{}"
        assert len(made.peers) == 1


async def test_an_answer_that_ends_with_its_connection_ends_the_clients() -> None:
    wire = await returned(OK + b"Content-Type: text/plain\r\n\r\nhello", GET, then_close=True)
    (answer,) = read_all(wire)
    assert (answer.body, answer.header(b"connection")) == (b"hello", b"close")


async def test_an_answer_that_closes_the_engines_connection_does_not_close_the_clients() -> None:
    closing = JSON.replace(b"OK\r\n", b"OK\r\nConnection: close\r\n")
    async with relaying(saying(closing)) as (opened, _, made):
        client = await opened.client()
        for _ in range(2):
            await client.say(GET)
            answer = await client.answer()
            assert (answer.body, answer.header(b"connection")) == (b"{}", None)
        assert len(made.peers) == 2


async def test_an_interim_answer_is_not_returned() -> None:
    (answer,) = read_all(await returned(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + JSON))
    assert (answer.status, answer.header(b"link")) == (200, None)


# Clients of HTTP/1.0.


async def test_a_client_of_http_1_0_gets_a_body_without_chunks() -> None:
    wire = await returned(STREAM, OLD)
    (answer,) = read_all(wire)
    assert answer.header(b"transfer-encoding") is None
    assert (answer.body, answer.header(b"connection")) == (b"".join([*EVENTS, DONE]), b"close")


async def test_a_client_of_http_1_0_that_keeps_its_connection_does_so_where_the_length_is_known() -> None:
    old = b"GET /v1/models HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"
    async with relaying(saying(JSON, STREAM)) as (opened, _, _):
        client = await opened.client()
        await client.say(old)
        assert (await client.answer()).header(b"connection") == b"keep-alive"
        await client.say(old)
        (answer,) = read_all(await client.rest())
        assert (answer.body, answer.header(b"connection")) == (b"".join([*EVENTS, DONE]), b"close")


async def test_a_client_of_http_1_0_reads_that_a_stream_broke_off() -> None:
    (answer,) = read_all(await returned(SSE + chunk(EVENTS[0]), OLD, then_close=True))
    assert answer.body.startswith(EVENTS[0])
    assert error_of(answer.body)["code"] == "stream.broken"


async def test_whole_bodies_are_read_without_their_framing_and_up_to_a_limit() -> None:
    async with engine(saying(STREAM, STREAM)) as made:
        pool = Pool()
        for limit in (1000, 3):
            connection = await pool.ask(made.origin, GET, gap=60)
            await has_ended(connection)
            if limit == 1000:
                assert await whole_body(connection, limit) == b"".join([*EVENTS, DONE])
            else:
                with pytest.raises(EngineLost, match="too large"):
                    await whole_body(connection, limit)
            pool.give_back(made.origin, connection)
        pool.close()
        await turns()


async def has_ended(connection: Connection) -> None:
    await until(lambda: connection.is_complete)


async def test_chunks_are_taken_off_wherever_they_are_split() -> None:
    framed = STREAM[len(SSE) :]
    for at in range(len(framed)):
        sink = Collector(1000)
        unchunked = Unchunked(sink)
        unchunked.write(framed[:at])
        unchunked.write(framed[at:])
        assert sink.body == b"".join([*EVENTS, DONE])


# Answers that break off.


def error_of(body: bytes) -> dict[str, object]:
    """Return the error that a stream ends with."""
    *_, last, end = body.split(b"\n\n")
    assert end == b""
    data = json.loads(last.rpartition(b"data: ")[2])
    error = data["error"]
    assert isinstance(error, dict)
    return error


def at_a_boundary(framed: bytes) -> bool:
    """Return whether some bytes of a stream end where a chunk does."""
    ends, at = {0}, 0
    for event in [*EVENTS, DONE]:
        at += len(chunk(event))
        ends.add(at)
    return len(framed) in ends


async def test_a_stream_that_dies_anywhere_ends_in_good_form_or_is_cut_off() -> None:
    framed = STREAM[len(SSE) :]
    left: list[int] = []

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.say(SSE + framed[: left[-1]])

    async with relaying(script) as (opened, _, _):
        for at in range(len(framed)):
            left.append(at)
            wire = await opened.ask(CHAT)
            check_the_end(wire, framed[:at])


def check_the_end(wire: bytes, framed: bytes) -> None:
    """Check what a client reads of a stream that broke off after some bytes of its body."""
    try:
        answer, rest = read_answer(wire)
    except Partial:
        assert not at_a_boundary(framed), framed
        return
    assert rest == b"", framed
    assert at_a_boundary(framed), framed
    begun = b"".join(event for event in [*EVENTS, DONE] if chunk(event) in framed)
    assert answer.body.startswith(begun)
    assert error_of(answer.body)["code"] == "stream.broken"


BREAKS = chunk(b"data: 1\r\n\r\ndata: 2\r\n\r\n")


@pytest.mark.parametrize("at", range(len(BREAKS) + 1))
async def test_a_stream_that_turns_into_garbage_ends_in_good_form_or_is_cut_off(at: int) -> None:
    paired = Paired()
    relay = Relay(paired)
    async with door(relay) as opened:
        client = await opened.client()
        await client.say(CHAT)
        await until(lambda: paired.ends)
        loop = asyncio.get_running_loop()
        for piece in (SSE + BREAKS[:at], BREAKS[at:] + b"zzz\r\n"):
            await loop.sock_sendall(paired.ends[0], piece)
            await turns()
        check_good_form(await client.rest())
    relay.pool.close()
    await turns()
    paired.ends[0].close()


def check_good_form(wire: bytes) -> None:
    try:
        answer, rest = read_answer(wire)
    except Partial:
        return
    assert rest == b""
    assert error_of(answer.body)["code"] == "stream.broken"


async def test_a_broken_stream_of_messages_ends_as_anthropic_has_it() -> None:
    request = CHAT.replace(b"/v1/chat/completions", b"/v1/messages")
    (answer,) = read_all(await returned(SSE + chunk(EVENTS[0]), request, then_close=True))
    *_, last, _ = answer.body.split(b"\n\n")
    name, data = last.split(b"\n")
    assert name == b"event: error"
    said = json.loads(data.removeprefix(b"data: "))
    assert said["type"] == "error"
    assert said["error"]["type"] == "api_error"


async def test_a_broken_stream_of_chat_ends_as_openai_has_it() -> None:
    (answer,) = read_all(await returned(SSE + chunk(EVENTS[0]), CHAT, then_close=True))
    assert b"event:" not in answer.body
    error = error_of(answer.body)
    assert (error["type"], error["code"]) == ("api_error", "stream.broken")


@pytest.mark.parametrize(
    "answer",
    [
        JSON[:-1],
        OK + b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk(b"{"),
        OK + b"Content-Type: text/event-stream\r\nContent-Length: 100\r\n\r\n" + EVENTS[0],
        STREAM[:-2],
    ],
)
async def test_what_is_no_stream_or_has_no_room_for_an_event_is_cut_off(answer: bytes) -> None:
    wire = await returned(answer, GET, then_close=True)
    with pytest.raises(Partial):
        read_answer(wire, ended=False)
    assert b"stream.broken" not in wire


async def test_a_connection_whose_stream_broke_goes_on_since_its_client_saw_the_end() -> None:
    async with relaying(saying(SSE + chunk(EVENTS[0]), then_close=True)) as (opened, relay, _):
        client = await opened.client()
        for turn in (1, 2):
            await client.say(GET)
            assert error_of((await client.answer()).body)["code"] == "stream.broken"
            assert len(relay.calls) == turn
        assert relay.lost[0].begun


async def test_after_an_answer_that_was_cut_off_no_other_is_begun() -> None:
    async with relaying(saying(JSON[:-1], then_close=True)) as (opened, relay, _):
        with pytest.raises(Partial):
            read_answer(await opened.ask(GET + GET + GET))
        await turns()
        assert len(relay.calls) == 1


TOKENS = [
    *(OK, JSON, SSE, STREAM, chunk(EVENTS[0]), chunk(EVENTS[1])[:-2], b"0\r\n\r\n", b"zzz\r\n", b"\r\n", b"\n", b"\r"),
    *(
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\nContent-Length: 3\r\n\r\n",
        b"\0",
        b"5\r",
        b"hello",
    ),
    *(b"Content-Length: 7\r\n", b"Transfer-Encoding: chunked\r\n", b"Connection: close\r\n", b"X: y\r\n", b"\r\n\r\n"),
    b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
]
pieces_ = st.lists(st.lists(st.sampled_from(TOKENS), max_size=5).map(b"".join), min_size=1, max_size=4)


@given(pieces_, st.sampled_from([GET, OLD, GET.replace(b"GET", b"HEAD")]))
@settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow])
async def test_whatever_an_engine_says_a_client_reads_one_answer_or_a_part_of_one(
    pieces: list[bytes], request: bytes
) -> None:
    paired = Paired()
    relay = Relay(paired)
    async with door(relay) as opened:
        client = await opened.client()
        await client.say(request)
        await until(lambda: paired.ends)
        loop = asyncio.get_running_loop()
        for piece in pieces:
            try:
                await loop.sock_sendall(paired.ends[-1], piece)
            except ConnectionError:
                break
            await turns()
        paired.ends[-1].close()
        await until(lambda: not relay.pool._busy)
        await turns()
        client.writer.write_eof()
        wire = await client.rest()
    relay.pool.close()
    await turns()
    for end in paired.ends:
        end.close()
    try:
        answers = read_all(wire, (request.startswith(b"HEAD"),))
    except Partial:
        return
    assert len(answers) == 1


# Clients that are slow, or go.


async def test_a_slow_client_holds_its_engine_back() -> None:
    async with relaying(large) as (opened, _, made):
        client = await opened.client()
        client.stop()
        await client.say(GET)
        await until(lambda: made.peers and made.peers[0].unsent)
        await turns(200)
        assert made.peers[0].unsent
        assert opened.unsent < MEBI
        client.go()
        assert len((await client.answer()).body) == LARGE


LARGE = 32 * MEBI


async def large(peer: Peer) -> None:
    """Answer with more than all buffers on the way take."""
    await peer.request()
    peer.writer.write(OK + b"Content-Length: %d\r\n\r\n" % LARGE + b"x" * LARGE)
    await peer.rest()


async def test_a_slow_client_holds_its_engine_back_that_was_held_back_before() -> None:
    async with relaying(large) as (opened, relay, made):
        client = await opened.client()
        client.stop()
        relay.may_deliver.clear()
        await client.say(GET)
        await until(lambda: any(each._paused for each in relay.pool._busy))
        fill(opened)
        full = opened.unsent
        relay.may_deliver.set()
        await turns(200)
        assert made.peers[-1].unsent
        assert opened.unsent < full + 2 * MEBI
        client.go()
        while len((await client.answer()).body) != LARGE:
            pass


def fill(opened: Door) -> None:
    """Have the only client be full: it has not taken what was written to it."""
    connection = opened.connection
    while not connection._full:
        connection.write(OK + b"Content-Length: 65536\r\n\r\n" + b"x" * 65_536)


async def test_after_a_slow_client_the_engines_connection_answers_the_next() -> None:
    size = 8 * MEBI
    answer = OK + b"Content-Length: %d\r\n\r\n" % size + b"x" * size
    async with relaying(saying(answer, answer)) as (opened, _, made):
        for _ in range(2):
            client = await opened.client()
            client.stop()
            await client.say(LAST)
            await until(lambda: any(each._full for each in opened.front.connections))
            client.go()
            (read,) = read_all(await client.rest())
            assert len(read.body) == size
        assert len(made.peers) == 1


@pytest.mark.parametrize("said", [b"", SSE, SSE + chunk(EVENTS[0]), JSON[:-1]])
async def test_a_client_that_goes_away_ends_the_engines_work(said: bytes) -> None:
    ended: list[bytes] = []
    async with relaying(saying(said, ended=ended)) as (opened, relay, _):
        client = await opened.client()
        await client.say(GET)
        await until(lambda: relay.pool._busy and (not said or any(each.status for each in relay.pool._busy)))
        client.reset()
        await until(lambda: ended)
        assert not relay.pool._busy


# Uploads.


def upload(length: int | None, body: bytes = b"", more: bytes = b"") -> bytes:
    frame = b"Transfer-Encoding: chunked" if length is None else b"Content-Length: %d" % length
    return b"POST /v1/audio/transcriptions HTTP/1.1\r\nHost: a\r\n" + more + frame + b"\r\n\r\n" + body


@pytest.mark.parametrize("size", [0, 5, 3 * MEBI])
async def test_an_upload_of_known_length_reaches_the_engine_as_it_is(size: int) -> None:
    requests: list[Message] = []
    body = (bytes(range(256)) * (size // 256 + 1))[:size]
    async with relaying(saying(JSON, requests=requests), is_upload=True) as (opened, _, _):
        client = await opened.client()
        await client.say(upload(size, body))
        assert (await client.answer()).body == b"{}"
    assert requests[0].body == body
    assert requests[0].header(b"content-length") == b"%d" % size


async def test_an_upload_in_chunks_reaches_the_engine_in_chunks() -> None:
    requests: list[Message] = []
    async with relaying(saying(JSON, requests=requests), is_upload=True) as (opened, _, _):
        client = await opened.client()
        await client.say(upload(None, chunk(b"hello")))
        await turns()
        await client.say(chunk(b", world") + b"0\r\nX-T: 1\r\n\r\n")
        assert (await client.answer()).body == b"{}"
    assert requests[0].body == b"hello, world"
    assert requests[0].headers == ((b"host", b"engine"), (b"transfer-encoding", b"chunked"))


async def test_an_empty_part_does_not_end_an_upload_in_chunks() -> None:
    async def parts() -> AsyncIterator[bytes]:
        for part in (b"", b"hello", b"", b"!"):
            yield part

    requests: list[Message] = []
    async with engine(saying(JSON, requests=requests)) as made:
        pool = Pool()
        connection = await pool.open(made.origin, gap=60)
        head = b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n"
        await soon(send_parts(connection, head, parts(), is_chunked=True))
        pool.give_back(made.origin, connection)
        await turns()
    assert requests[0].body == b"hello!"


async def test_a_part_of_an_upload_reaches_the_engine_before_the_next_is_there() -> None:
    heard = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.hear(len(b"POST /v1/audio/transcriptions HTTP/1.1\r\n"))
        while not peer._read.endswith(b"hello"):
            await peer._more()
        heard.set()
        await peer.hear(len(peer._read) + 5)
        await peer.say(JSON)
        await peer.rest()

    async with relaying(script, is_upload=True) as (opened, _, _):
        client = await opened.client()
        await client.say(upload(10, b"hello"))
        await soon(heard.wait())
        await client.say(b"world")
        assert (await client.answer()).body == b"{}"


async def test_an_engine_that_reads_slowly_holds_the_uploading_client_back() -> None:
    may_read, size = asyncio.Event(), LARGE

    async def script(peer: Peer) -> None:
        peer.stop()
        await may_read.wait()
        peer.go()
        assert len((await peer.request()).body) == size
        await peer.say(JSON)
        await peer.rest()

    async with relaying(script, is_upload=True) as (opened, relay, _):
        client = await opened.client()
        client.writer.write(upload(size, b"x" * size))
        await until(lambda: opened.connection._held)
        await turns(200)
        assert client.unsent
        (connection,) = relay.pool._busy
        assert connection.transport is not None
        assert connection.transport.get_write_buffer_size() < MEBI
        may_read.set()
        assert (await client.answer()).body == b"{}"


REFUSAL = b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\n{}"


def refusing(*, closes: bool) -> Script:
    """Return the script of an engine that answers before it has all of an upload: once it has heard ``hello``."""

    async def script(peer: Peer) -> None:
        while b"hello" not in peer._read:
            await peer._more()
        await peer.say(REFUSAL)
        if not closes:
            await peer.rest()

    return script


@pytest.mark.parametrize("closes", [False, True])
async def test_an_engine_that_answers_before_it_has_all_of_it_is_heard_at_once(*, closes: bool) -> None:
    async with relaying(refusing(closes=closes), is_upload=True) as (opened, _, _):
        client = await opened.client()
        await client.say(upload(10, b"hello"))
        assert (await client.answer()).status == 413


@pytest.mark.parametrize("closes", [False, True])
async def test_an_engine_that_answered_before_the_next_part_came_is_heard(*, closes: bool) -> None:
    async with relaying(refusing(closes=closes), is_upload=True) as (opened, relay, _):
        client = await opened.client()
        await client.say(upload(10, b"hello"))
        await until(lambda: has_heard(relay, closes=closes))
        with suppress(ConnectionError):
            await client.say(b"world")
        assert (await client.answer()).status == 413


def has_heard(relay: Relay, *, closes: bool = False) -> bool:
    """Return whether the only call's answer has come from the engine; ``closes``: and the connection's end."""
    heard = any(each.is_complete and not (closes and each.transport) for each in relay.pool._busy)
    return heard or any(call.begun for call in relay.calls)


async def test_an_engine_that_answers_and_reads_no_more_is_heard() -> None:

    async def script(peer: Peer) -> None:
        peer.stop()
        await until(lambda: any(not each._flow.is_set() for each in relay.pool._busy))
        await peer.say(REFUSAL)
        await asyncio.Event().wait()

    async with relaying(script, is_upload=True) as (opened, relay, _):
        client = await opened.client()
        client.writer.write(upload(LARGE, b"x" * LARGE))
        assert (await client.answer()).status == 413


async def test_a_connection_whose_upload_was_not_all_sent_is_not_used_again() -> None:
    requests: list[Message] = []
    async with relaying(refusing(closes=False), is_upload=True) as (opened, relay, made):
        client = await opened.client()
        await client.say(upload(100, b"hello"))
        await until(lambda: has_heard(relay))
        with suppress(ConnectionError):
            await client.say(b"world")
        assert (await client.answer()).status == 413
        await until(lambda: not relay.pool._busy)
        made.script = saying(JSON, requests=requests)
        connection = await soon(relay.pool.ask(made.origin, GET, gap=60))
        relay.pool.give_back(made.origin, connection)
        assert connection.status == 200
        assert len(made.peers) == 2


async def test_an_engine_that_dies_amid_an_upload_is_lost() -> None:
    async def script(peer: Peer) -> None:
        await peer.hear(100)
        peer.reset()

    async with relaying(script, is_upload=True) as (opened, relay, _):
        client = await opened.client()
        client.writer.write(upload(LARGE, b"x" * LARGE))
        assert (await client.answer()).status == 502
        assert not relay.lost[0].begun


async def test_an_upload_whose_client_goes_away_is_cut_off() -> None:
    gone = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.hear(100)
        await peer.rest()
        gone.set()

    async with relaying(script, is_upload=True) as (opened, relay, _):
        client = await opened.client()
        await client.say(upload(1000, b"x" * 500))
        await until(lambda: relay.pool._busy)
        client.reset()
        await soon(gone.wait())
        assert not relay.pool._busy


async def test_a_client_that_waits_to_be_asked_for_its_upload_is_asked_once_the_engine_is_there() -> None:
    requests: list[Message] = []
    async with relaying(saying(JSON, requests=requests), is_upload=True) as (opened, _, _):
        client = await opened.client()
        await client.say(upload(5, more=b"Expect: 100-continue\r\n"))
        assert await client.hear(25) == b"HTTP/1.1 100 Continue\r\n\r\n"
        await client.say(b"hello")
        assert (await client.answer()).body == b"{}"
    assert requests[0].body == b"hello"
