"""One request to one engine and its answer back, bytes as they come."""

from __future__ import annotations

import json
from collections.abc import Iterable
from io import BytesIO

from aiohttp import ClientError, ClientResponse, ClientSession, ClientTimeout, TCPConnector, web
from multidict import CIMultiDict

from hal0.core.status import SlotStatus
from hal0.dispatch.envelope import error_body, error_response

# Hop-by-hop headers belong to one connection, and an engine on loopback needs none of the client's credentials.
_NOT_FORWARDED = frozenset(
    {
        *("connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer", "upgrade"),
        *("transfer-encoding", "host", "content-length", "authorization", "cookie", "expect"),
    }
)
# What a client did not say is not said for it: an engine asked for gzip would answer a client that can't read it.
_NOT_ADDED = frozenset({"Accept", "Accept-Encoding", "Content-Type", "User-Agent"})
_IDLE_GAP = 600.0
_CONNECT = 5.0


def make_session() -> ClientSession:
    """Return the client of the engines. Each request has its own connection.

    llama-server closes a connection right after a streamed answer, unannounced: a pooled one would fail the next.
    """
    return ClientSession(
        connector=TCPConnector(limit=0, force_close=True),
        timeout=ClientTimeout(total=None, sock_connect=_CONNECT, sock_read=_IDLE_GAP),
        auto_decompress=False,
        skip_auto_headers=_NOT_ADDED,
    )


async def forward(session: ClientSession, request: web.Request, slot: SlotStatus, body: bytes) -> web.StreamResponse:
    """Send a request on to a slot's engine and stream the answer back. The client's going away cancels it."""
    url = f"http://127.0.0.1:{slot.spec.port}{request.rel_url}"
    try:
        answer = await session.request(
            request.method, url, data=BytesIO(body), headers=_headers(request.headers.items()), allow_redirects=False
        )
    except (ClientError, TimeoutError) as error:
        return error_response(502, "slot.unreachable", f"slot {slot.name} did not answer: {error}", retry_after=1)
    async with answer:
        response = web.StreamResponse(
            status=answer.status, reason=answer.reason, headers=_headers(answer.headers.items())
        )
        response.headers["X-Hal0-Slot"] = slot.name
        if answer.content_type == "text/event-stream":
            response.headers["X-Accel-Buffering"] = "no"
        elif answer.content_length is not None:
            response.content_length = answer.content_length
        await response.prepare(request)
        await _stream(answer, response, slot)
        return response


async def _stream(answer: ClientResponse, response: web.StreamResponse, slot: SlotStatus) -> None:
    """Pass chunks on. An engine that dies in the middle of a stream ends it with an error event, not in silence."""
    try:
        async for chunk in answer.content.iter_any():
            await response.write(chunk)
    except (ClientError, TimeoutError) as error:
        if answer.content_type != "text/event-stream":
            raise
        body = error_body(502, "slot.stream_broken", f"slot {slot.name} broke off: {error}")
        await response.write(b"\n\ndata: " + json.dumps(body).encode() + b"\n\n")
    await response.write_eof()


def _headers(pairs: Iterable[tuple[str, str]]) -> CIMultiDict[str]:
    return CIMultiDict((key, value) for key, value in pairs if key.lower() not in _NOT_FORWARDED)
