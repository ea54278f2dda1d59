from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from hal0.core.observed import ProbeResult
from hal0.host.probe import HttpProber

from .fake_engine import listening

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

HANG = b"hang"
RESET = b"reset"


@asynccontextmanager
async def engine(answer: bytes) -> AsyncIterator[tuple[int, list[bytes]]]:
    requests: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, release: asyncio.Event) -> None:
        requests.append(await reader.readuntil(b"\r\n\r\n"))
        if answer == HANG:
            await release.wait()
        elif answer == RESET:
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        else:
            writer.write(answer)

    async with listening(serve) as port:
        yield port, requests


def status(line: str) -> bytes:
    return f"HTTP/1.1 {line}\r\nContent-Length: 2\r\n\r\nok".encode()


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (status("200 OK"), ProbeResult.UP),
        (status("503 Service Unavailable"), ProbeResult.LOADING),
        (status("404 Not Found"), ProbeResult.FAILING),
        (status("500 Internal Server Error"), ProbeResult.FAILING),
        (status("299 Odd"), ProbeResult.FAILING),
        (b"SSH-2.0-hello\r\n", ProbeResult.FAILING),
        (b"HTTP/1.1 twohundred\r\n", ProbeResult.FAILING),
        (b"x" * 200_000, ProbeResult.FAILING),
        (b"", ProbeResult.LOADING),
        (RESET, ProbeResult.LOADING),
    ],
)
async def test_the_answer_says_how_the_engine_is(answer: bytes, expected: ProbeResult) -> None:
    async with engine(answer) as (port, requests):
        assert await HttpProber().probe([("a", port, "/health")]) == {"a": expected}
    assert requests[0].startswith(b"GET /health HTTP/1.1\r\n")


async def test_nobody_listening_is_loading() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert await HttpProber().probe([("a", port, "/health")]) == {"a": ProbeResult.LOADING}


async def test_one_that_hangs_is_late_alone() -> None:
    prober = HttpProber(deadline=0.1)
    async with engine(HANG) as (slow, _), engine(status("200 OK")) as (good, _):
        results = await prober.probe([("slow", slow, "/health"), ("good", good, "/health")])
    assert results == {"slow": ProbeResult.LATE, "good": ProbeResult.UP}
    await prober.close()


async def test_no_targets_is_no_answers() -> None:
    assert await HttpProber().probe([]) == {}
