"""Asks an engine for a real answer: one small POST on a connection of its own, past the dispatcher."""

from __future__ import annotations

import asyncio
import json
from http import HTTPStatus
from typing import TYPE_CHECKING

import httptools

from hal0.core.proof import Reply

if TYPE_CHECKING:
    from hal0.core.proof import Ask

_HOST = "127.0.0.1"
_FAULTS = (httptools.HttpParserError, httptools.HttpParserUpgrade)
_CHUNK = 65536
_MOST = 4 * 2**20
"""Bytes of an answer that are read: the vector of one embedding is far below it."""


class HttpCompleter:
    """Implements ``Completer`` over loopback HTTP."""

    async def complete(self, port: int, ask: Ask) -> Reply:
        """Ask the engine on a loopback port and say what came of it. Never raises."""
        try:
            async with asyncio.timeout(ask.deadline):
                answer = await _exchange(port, ask)
        except TimeoutError:
            return Reply(0, f"no answer in {ask.deadline:g} s")
        except (OSError, *_FAULTS) as error:
            return Reply(0, _in_a_line(error))
        return _meaning(answer, ask.member)


class _Answer:
    """An answer as httptools reads it."""

    def __init__(self) -> None:
        self.status = 0
        self.body = b""
        self.is_complete = False
        self.parser = httptools.HttpResponseParser(self)

    def feed(self, data: bytes) -> None:
        """Take bytes; no bytes are the end of the connection, which ends an answer without a length."""
        if not data:
            self.is_complete = True
            return
        self.parser.feed_data(data)

    def on_headers_complete(self) -> None:
        self.status = self.parser.get_status_code()

    def on_body(self, data: bytes) -> None:
        self.body += data

    def on_message_complete(self) -> None:
        self.is_complete = True


async def _exchange(port: int, ask: Ask) -> _Answer:
    reader, writer = await asyncio.open_connection(_HOST, port)
    try:
        writer.write(
            f"POST {ask.path} HTTP/1.1\r\nHost: {_HOST}:{port}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(ask.body)}\r\nConnection: close\r\n\r\n".encode()
            + ask.body
        )
        answer = _Answer()
        while not answer.is_complete and len(answer.body) <= _MOST:
            answer.feed(await reader.read(_CHUNK))
        return answer
    finally:
        writer.transport.abort()  # an engine that hangs would delay a clean close


def _meaning(answer: _Answer, member: str) -> Reply:
    if not answer.status:
        return Reply(0, "it closed the connection without an answer")
    if answer.status != HTTPStatus.OK:
        return Reply(answer.status, f"it answered {answer.status}")
    try:
        found = json.loads(answer.body)
    except (ValueError, RecursionError):
        return Reply(answer.status, "it answered 200 without JSON")
    good = isinstance(found, dict) and found.get(member)
    return Reply(answer.status, "" if good else f"it answered 200 without {member!r}")


def _in_a_line(error: Exception) -> str:
    text = error.strerror if isinstance(error, OSError) else str(error)
    return (text or type(error).__name__).splitlines()[0]
