"""What of an answer's head may not go on to a client."""

from __future__ import annotations

import pytest
from plane import CHAT, raw, raw_server, served
from scenes import MODEL, Scene, slot

from hal0.dispatch.heads import AnswerHead

OTHER = [*range(9), *range(10, 32), *range(127, 256)]
ASK = f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{{}}".encode()


def reason_of(status: int, said: bytes) -> bytes:
    return AnswerHead(status, said, (), keeps=True).reason


@pytest.mark.parametrize("said", [b"", b"OK", b"All is\tvery well", bytes(range(32, 127))])
def test_a_reason_that_can_be_shown_is_kept(said: bytes) -> None:
    assert reason_of(200, said) == said


@pytest.mark.parametrize(("status", "standard"), [(200, b"OK"), (404, b"Not Found"), (529, b"Unknown")])
def test_any_other_reason_is_replaced_by_the_standard_one(status: int, standard: bytes) -> None:
    for byte in OTHER:
        for said in (b"%c", b"%cOK", b"OK%c", b"O%cK"):
            assert reason_of(status, said % byte) == standard


async def test_control_bytes_of_an_engine_do_not_reach_the_client(scene: Scene) -> None:
    answer = b"HTTP/1.1 500 Oh\x1b[2J\0\x7f\xff no\r\nX-Own: kept\r\nContent-Length: 2\r\n\r\n{}"
    async with raw_server(answer) as port:
        scene.declare(MODEL, slot("chat", port=port))
        await scene.settle()
        async with served(scene) as (_, path):
            for _ in range(2):  # the second head is one that is remembered
                got = await raw(path, ASK)
                assert got.startswith(b"HTTP/1.1 500 Internal Server Error\r\n")
                assert b"x-own: kept\r\n" in got
