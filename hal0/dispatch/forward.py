"""One request on to an engine and its answer back: heads are written anew, bodies pass as they are."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from hal0.core.schema import UpstreamApi
from hal0.dispatch.answer import Sink, Unchunked
from hal0.dispatch.call import Call
from hal0.dispatch.connection import Connection, EngineLost
from hal0.dispatch.envelope import error_body
from hal0.dispatch.heads import END, RequestHead, framing
from hal0.host.tasks import end


def request_head(call: Call, target: str, passed: bytes, own: bytes, length: int | None) -> bytes:
    """Return the head of the request to the engine: the client's lines that are passed on, and hal0's own.

    ``length`` None is a body of unknown length, sent in chunks.
    """
    return b"".join((request_start(call.head, target, passed), own, framing(length), END))


def request_start(head: RequestHead, target: str, passed: bytes) -> bytes:
    """Return the first line of a request to an engine, and the client's lines that are passed on."""
    return f"{head.method} {target} HTTP/1.1\r\n".encode("latin-1") + passed


async def send_parts(connection: Connection, head: bytes, parts: AsyncIterator[bytes], *, is_chunked: bool) -> None:
    """Send a request whose body is still coming, and wait for the answer's head. Raises ``EngineLost``.

    An engine that answers before it has all of it does not want the rest.
    """
    upload = asyncio.create_task(_upload(connection, head, parts, is_chunked=is_chunked))
    answer = asyncio.create_task(connection.answer())
    try:
        await asyncio.wait({upload, answer}, return_when=asyncio.FIRST_COMPLETED)
        if connection.head is None and upload.done() and (error := upload.exception()):
            raise error
        await answer
    finally:
        if not upload.done() or upload.exception():
            connection.spoil()
        await end((upload, answer))


async def _upload(connection: Connection, head: bytes, parts: AsyncIterator[bytes], *, is_chunked: bool) -> None:
    connection.write(head)
    async for part in parts:
        connection.write(b"%x\r\n%b\r\n" % (len(part), part) if is_chunked and part else part)
        await connection.drain()
    if is_chunked:
        connection.write(b"0\r\n\r\n")


async def deliver(call: Call, connection: Connection, own: bytes) -> None:
    """Pass an answer on to the client. Raises ``EngineLost`` where it broke off; the client is told by then."""
    sink = begin(call, connection, own)
    try:
        await connection.relay(sink)
    except EngineLost as lost:
        end_broken(call, connection, lost)
        raise
    finally:
        call.source = None


def begin(call: Call, connection: Connection, own: bytes) -> Sink:
    """Send the head of an answer to the client, with hal0's own lines; return where the body goes."""
    head = connection.head
    assert head is not None  # noqa: S101  (it is asked for once it is there)
    if not connection.is_complete:
        call.source = connection
    if not connection.is_framed:
        call.keeps = False
    elif head.is_chunked and call.head.is_old:
        call.keeps = False
        call.begin(head.status, head.start_unframed, own)
        return Unchunked(call.client)
    call.begin(head.status, head.start, own, connection.taken())
    return call.client


def end_broken(call: Call, connection: Connection, lost: EngineLost) -> None:
    """End a stream by an event that says so; any other answer can only be cut off."""
    if not (connection.head and connection.head.is_event_stream and connection.is_between_chunks):
        call.keeps = False
        call.cut()
        return
    api = UpstreamApi.ANTHROPIC if call.path.startswith("/v1/messages") else UpstreamApi.OPENAI
    name = b"event: error\n" if api is UpstreamApi.ANTHROPIC else b""
    event = (
        b"\n\n"
        + name
        + b"data: "
        + error_body(502, "stream.broken", f"the answer broke off: {lost}", api=api)
        + b"\n\n"
    )
    call.write(event if call.head.is_old else b"%x\r\n%b\r\n0\r\n\r\n" % (len(event), event))
