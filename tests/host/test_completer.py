from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from hal0.core.proof import Ask, Reply
from hal0.host.completer import HttpCompleter

from .fake_engine import listening

ASK = Ask("/v1/chat/completions", b'{"max_tokens": 1}', "choices")
GOOD = b'{"choices": [{"text": "x"}]}'


@asynccontextmanager
async def engine(*answer: bytes, hold: bool = False) -> AsyncIterator[tuple[int, list[bytes]]]:
    """Listen, read one request and answer it in pieces; with ``hold``, keep the connection open behind them."""
    requests: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, release: asyncio.Event) -> None:
        requests.append(await reader.readuntil(b"\r\n\r\n") + await reader.readexactly(len(ASK.body)))
        for piece in answer:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)
        if hold:
            await release.wait()

    async with listening(serve) as port:
        yield port, requests


def answer(body: bytes, line: str = "200 OK", length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    return f"HTTP/1.1 {line}\r\nContent-Length: {size}\r\n\r\n".encode() + body


async def test_it_sends_a_whole_request_and_knows_a_good_answer() -> None:
    async with engine(answer(GOOD), hold=True) as (port, requests):
        assert await HttpCompleter().complete(port, ASK) == Reply(200)
    head, _, body = requests[0].partition(b"\r\n\r\n")
    assert head.startswith(b"POST /v1/chat/completions HTTP/1.1\r\n")
    assert f"Content-Length: {len(ASK.body)}".encode() in head
    assert json.loads(body) == {"max_tokens": 1}


async def test_answers_in_chunks_and_answers_that_end_with_the_connection_are_read() -> None:
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    pieces = (chunked, b"%x\r\n" % 10, GOOD[:10] + b"\r\n", b"%x\r\n" % (len(GOOD) - 10), GOOD[10:] + b"\r\n0\r\n\r\n")
    async with engine(*pieces, hold=True) as (port, _):
        assert await HttpCompleter().complete(port, ASK) == Reply(200)
    async with engine(b"HTTP/1.1 200 OK\r\n\r\n", GOOD[:5], GOOD[5:]) as (port, _):
        assert await HttpCompleter().complete(port, ASK) == Reply(200)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (answer(b"{}", "400 Bad Request"), Reply(400, "it answered 400")),
        (answer(b"oops", "500 Internal Server Error"), Reply(500, "it answered 500")),
        (answer(b'{"error": {}}'), Reply(200, "it answered 200 without 'choices'")),
        (answer(b'{"choices": []}'), Reply(200, "it answered 200 without 'choices'")),
        (answer(b"[1]"), Reply(200, "it answered 200 without 'choices'")),
        (answer(b"[" * 100_000), Reply(200, "it answered 200 without JSON")),
        (answer(b"<html>"), Reply(200, "it answered 200 without JSON")),
        (answer(GOOD[:8], length=99), Reply(200, "it answered 200 without JSON")),
        (b"", Reply(0, "it closed the connection without an answer")),
    ],
)
async def test_every_other_answer_says_what_is_wrong(said: bytes, expected: Reply) -> None:
    async with engine(said) as (port, _):
        assert await HttpCompleter().complete(port, ASK) == expected


@pytest.mark.parametrize(
    "said", [b"SSH-2.0-hello\r\n", b"HTTP/1.1 101 Up\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"]
)
async def test_what_is_no_answer_of_http_is_none(said: bytes) -> None:
    async with engine(said) as (port, _):
        found = await HttpCompleter().complete(port, ASK)
    assert found.status == 0
    assert found.error


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 200 OK\r\n", answer(GOOD[:8], length=99)])
async def test_an_engine_that_hangs_before_or_amid_its_answer_is_given_up(said: bytes) -> None:
    async with engine(said, hold=True) as (port, _):
        assert await HttpCompleter().complete(port, replace(ASK, deadline=0.1)) == Reply(0, "no answer in 0.1 s")


async def test_an_endless_answer_is_not_read_for_ever() -> None:
    head = b"HTTP/1.1 200 OK\r\n\r\n"
    async with engine(head, *[b" " * 2**20] * 6, hold=True) as (port, _):
        assert await HttpCompleter().complete(port, ASK) == Reply(200, "it answered 200 without JSON")


async def test_nobody_listening_is_said() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    found = await HttpCompleter().complete(port, ASK)
    assert found.status == 0
    assert "onnect" in found.error
