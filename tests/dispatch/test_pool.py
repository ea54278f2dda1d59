"""Connections that are kept, and the one retry that keeping them needs."""

from __future__ import annotations

import asyncio
import socket

import pytest
from dispatch.raw import Engine, Message, Peer, Script, no_complaints, pool_for, saying, soon, turns, until

from hal0.dispatch import pool as pool_module
from hal0.dispatch.connection import Collector, Connection, EngineLost
from hal0.dispatch.pool import EngineUnreachable, Origin, Pool, tcp

ASK = b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\n{}"
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
CLOSING = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}"
BEGUN = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{"


async def ask(pool: Pool, origin: Origin, request: bytes = ASK) -> bytes:
    """Ask, and return the whole body."""
    connection = await soon(pool.ask(origin, request, gap=60))
    return await finish(pool, origin, connection)


async def finish(pool: Pool, origin: Origin, connection: Connection) -> bytes:
    sink = Collector(1000)
    try:
        await soon(connection.relay(sink))
    finally:
        pool.give_back(origin, connection)
    return sink.body


def answering(*scripts: Script) -> Script:
    """Return a script whose first connection follows the first of these, and so on; the last one is for all others."""
    left = [*scripts]

    async def script(peer: Peer) -> None:
        await (left.pop(0) if len(left) > 1 else left[0])(peer)

    return script


async def for_ever(peer: Peer) -> None:
    """Answer every request."""
    while True:
        await peer.request()
        await peer.say(ANSWER)


# Keeping.


async def test_requests_one_after_the_other_share_a_connection() -> None:
    async with pool_for(for_ever) as (pool, engine):
        for _ in range(3):
            assert await ask(pool, engine.origin) == b"{}"
        assert len(engine.peers) == 1


async def test_requests_at_the_same_time_have_a_connection_each() -> None:
    async with pool_for(for_ever) as (pool, engine):
        connections = await asyncio.gather(*(pool.ask(engine.origin, ASK, gap=60) for _ in range(3)))
        for connection in connections:
            await finish(pool, engine.origin, connection)
        assert len(engine.peers) == 3
        await asyncio.gather(*(ask(pool, engine.origin) for _ in range(3)))
        assert len(engine.peers) == 3


async def test_every_address_has_connections_of_its_own() -> None:
    async with pool_for(for_ever) as (pool, one), pool_for(for_ever) as (_, other):
        for engine in (one, other, one, other):
            await ask(pool, engine.origin)
        assert (len(one.peers), len(other.peers)) == (1, 1)
        assert one.origin is tcp("127.0.0.1", one.port)
        pool.close()
        await turns()


@pytest.mark.parametrize("answer", [CLOSING, b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}"])
async def test_a_connection_whose_answer_says_so_is_not_kept(answer: bytes) -> None:
    async with pool_for(saying(answer)) as (pool, engine):
        for _ in range(2):
            assert await ask(pool, engine.origin) == b"{}"
        assert len(engine.peers) == 2


async def test_an_answer_that_is_given_back_before_its_end_is_cut_off() -> None:
    ended: list[bytes] = []
    async with pool_for(saying(BEGUN, ended=ended)) as (pool, engine):
        connection = await pool.ask(engine.origin, ASK, gap=60)
        pool.give_back(engine.origin, connection)
        await until(lambda: ended == [b""])
        assert pool.take(engine.origin) is None


async def test_not_more_connections_are_kept_than_are_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "_MOST_IDLE", 2)
    ended: list[bytes] = []
    async with pool_for(saying(ANSWER, ended=ended)) as (pool, engine):
        connections = await asyncio.gather(*(pool.ask(engine.origin, ASK, gap=60) for _ in range(5)))
        for connection in connections:
            await finish(pool, engine.origin, connection)
        await until(lambda: len(ended) == 3)
        assert sum(connection.is_usable for connection in connections) == 2


async def test_what_an_engine_says_unasked_ends_its_connection() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.say(ANSWER)
        await may_talk.wait()
        await peer.say(ANSWER)
        await peer.rest()
        talked.set()

    may_talk, talked = asyncio.Event(), asyncio.Event()
    async with pool_for(answering(script, for_ever)) as (pool, engine):
        await ask(pool, engine.origin)
        may_talk.set()
        await soon(talked.wait())
        assert await ask(pool, engine.origin) == b"{}"
        assert len(engine.peers) == 2


async def test_a_connection_that_the_engine_closed_while_it_was_unused_is_not_taken() -> None:
    requests: list[Message] = []
    async with pool_for(saying(ANSWER, requests=requests, then_close=True)) as (pool, engine):
        await ask(pool, engine.origin)
        connection = pool.take(engine.origin)
        if connection is not None:  # its end has not come yet
            await until(lambda: not connection.is_usable)
        assert await ask(pool, engine.origin) == b"{}"
        assert (len(engine.peers), len(requests)) == (2, 2)


# The one retry.


async def test_a_kept_connection_that_dies_on_a_request_is_replaced_once() -> None:
    requests: list[Message] = []
    dies = saying(ANSWER, b"", requests=requests, then_close=True)
    async with pool_for(answering(dies, saying(ANSWER, requests=requests))) as (pool, engine):
        await ask(pool, engine.origin)
        assert await ask(pool, engine.origin) == b"{}"
        assert len(engine.peers) == 2
        assert [request.wire for request in requests] == [ASK] * 3


async def test_a_kept_connection_that_is_reset_by_a_request_is_replaced_once() -> None:
    async def dies(peer: Peer) -> None:
        await peer.request()
        await peer.say(ANSWER)
        await peer.request()
        peer.reset()

    async with pool_for(answering(dies, for_ever)) as (pool, engine):
        await ask(pool, engine.origin)
        assert await ask(pool, engine.origin) == b"{}"


async def test_the_retry_that_dies_as_well_is_the_end() -> None:
    once = saying(ANSWER, b"", then_close=True)
    never = saying(b"", then_close=True)
    async with pool_for(answering(once, never)) as (pool, engine):
        await ask(pool, engine.origin)
        with pytest.raises(EngineLost):
            await ask(pool, engine.origin)
        assert len(engine.peers) == 2


async def test_a_fresh_connection_that_dies_is_not_replaced() -> None:
    requests: list[Message] = []
    async with pool_for(saying(b"", requests=requests, then_close=True)) as (pool, engine):
        with pytest.raises(EngineLost) as lost:
            await ask(pool, engine.origin)
        assert not lost.value.begun
        assert len(requests) == 1


@pytest.mark.parametrize("first", [b"H", b"HTTP/1.1 100 Continue\r\n\r\n", BEGUN[:-5], b"garbage\r\n\r\n"])
async def test_a_kept_connection_that_dies_after_a_first_byte_is_not_replaced(first: bytes) -> None:
    requests: list[Message] = []
    async with pool_for(saying(ANSWER, first, requests=requests, then_close=True)) as (pool, engine):
        await ask(pool, engine.origin)
        with pytest.raises(EngineLost) as lost:
            await ask(pool, engine.origin)
        assert lost.value.begun
        assert len(requests) == 2


async def test_a_request_is_not_sent_again_because_its_engine_is_silent() -> None:
    requests: list[Message] = []
    silent = saying(ANSWER, b"", requests=requests)
    async with pool_for(answering(silent, saying(ANSWER, requests=requests))) as (pool, engine):
        await ask(pool, engine.origin)
        asking = asyncio.create_task(ask(pool, engine.origin))
        await until(lambda: len(requests) == 2)
        (connection,) = pool._busy
        connection.expire(connection.loop.time() + 61)
        with pytest.raises(EngineLost):
            await asking
        assert len(requests) == 2


# No connection at all.


async def test_a_port_where_nobody_listens_is_unreachable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with no_complaints(), pytest.raises(EngineUnreachable):
        await Pool().ask(tcp("127.0.0.1", port), ASK, gap=60)


async def test_a_connection_that_is_not_made_in_time_is_unreachable() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server:
        address = server.getsockname()
        fillers = [filler(address) for _ in range(4)]
        try:
            with no_complaints(), pytest.raises(EngineUnreachable, match=r"0\.05 s"):
                await soon(Pool().ask(tcp(*address, connect_timeout=0.05), ASK, gap=60))
        finally:
            for each in fillers:
                each.close()


def filler(address: tuple[str, int]) -> socket.socket:
    """Return a connection that waits to be accepted, or to get so far."""
    sock = socket.socket()
    sock.setblocking(False)
    sock.connect_ex(address)
    return sock


@pytest.mark.parametrize("host", ["a..b", "a" * 64, ""])
async def test_a_host_without_an_address_is_unreachable(host: str) -> None:
    with no_complaints(), pytest.raises(EngineUnreachable):
        await soon(Pool().ask(tcp(host, 1, connect_timeout=0.5), ASK, gap=60))


async def test_an_engine_without_tls_where_tls_is_spoken_is_unreachable() -> None:
    async def script(peer: Peer) -> None:
        await peer.hear(1)
        await peer.say(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with pool_for(script) as (pool, engine):
        with pytest.raises(EngineUnreachable):
            await soon(pool.ask(tcp("127.0.0.1", engine.port, tls=True), ASK, gap=60))


async def test_a_request_that_is_sent_in_parts_never_takes_a_kept_connection() -> None:
    async with pool_for(for_ever) as (pool, engine):
        await ask(pool, engine.origin)
        connection = await pool.open(engine.origin, gap=60)
        connection.write(ASK)
        await soon(connection.answer())
        await finish(pool, engine.origin, connection)
        assert len(engine.peers) == 2


# Clients that go.


async def test_giving_up_while_the_engine_thinks_cuts_its_connection() -> None:
    requests: list[Message] = []
    ended: list[bytes] = []
    async with pool_for(saying(b"", requests=requests, ended=ended)) as (pool, engine):
        asking = asyncio.create_task(pool.ask(engine.origin, ASK, gap=60))
        await until(lambda: requests)
        asking.cancel()
        await until(lambda: ended)
        assert asking.cancelled()
        assert pool.take(engine.origin) is None
        assert not pool._busy


async def test_giving_up_amid_the_answer_cuts_its_connection() -> None:
    ended: list[bytes] = []
    async with pool_for(saying(BEGUN, ended=ended)) as (pool, engine):
        asking = asyncio.create_task(ask(pool, engine.origin))
        await until(lambda: any(each.status for each in pool._busy))
        asking.cancel()
        await until(lambda: ended)
        assert not pool._busy


async def test_giving_up_while_the_connection_is_made_leaves_nothing() -> None:
    async with pool_for(for_ever) as (pool, engine):
        asking = asyncio.create_task(ask(pool, engine.origin))
        await asyncio.sleep(0)
        asking.cancel()
        await asyncio.wait({asking})
        assert not pool._busy
        assert await ask(pool, engine.origin) == b"{}"


# The sweep.


@pytest.fixture
def _swift(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "_SWEEP", 0.0)


def idle(engine: Engine, pool: Pool) -> list[Connection]:
    return [*pool._idle.get(engine.origin, ())]


@pytest.mark.usefixtures("_swift")
async def test_the_sweep_ends_connections_that_are_unused_for_long() -> None:
    ended: list[bytes] = []
    async with pool_for(saying(ANSWER, ended=ended)) as (pool, engine):
        await ask(pool, engine.origin)
        sweeping = asyncio.create_task(pool.sweep())
        await turns(20)
        (connection,) = idle(engine, pool)
        connection.touched -= 1000
        await until(lambda: ended)
        assert not pool._idle
        sweeping.cancel()


@pytest.mark.usefixtures("_swift")
async def test_the_sweep_forgets_connections_that_have_ended() -> None:
    async with pool_for(saying(ANSWER, then_close=True)) as (pool, engine):
        await ask(pool, engine.origin)
        sweeping = asyncio.create_task(pool.sweep())
        await until(lambda: not pool._idle)
        sweeping.cancel()


@pytest.mark.usefixtures("_swift")
async def test_the_sweep_ends_silent_exchanges() -> None:
    async with pool_for(saying(b"")) as (pool, engine):
        connection = await pool.open(engine.origin, gap=60)
        connection.touched -= 1000
        sweeping = asyncio.create_task(pool.sweep())
        with pytest.raises(EngineLost, match="60 s"):
            await soon(connection.answer())
        pool.give_back(engine.origin, connection)
        sweeping.cancel()


async def test_closing_cuts_every_connection() -> None:
    ended: list[bytes] = []
    async with pool_for(saying(ANSWER, ended=ended)) as (pool, engine):
        unused, busy = [await pool.ask(engine.origin, ASK, gap=60) for _ in range(2)]
        await finish(pool, engine.origin, unused)
        pool.close()
        await until(lambda: len(ended) == 2)
        pool.give_back(engine.origin, busy)
        assert pool.take(engine.origin) is None
