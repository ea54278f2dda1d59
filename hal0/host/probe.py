"""Asks engines whether they are up: one small GET each, all at once."""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import TYPE_CHECKING

from hal0.core.observed import ProbeResult

if TYPE_CHECKING:
    from collections.abc import Sequence

HOST = "127.0.0.1"
DEADLINE = 2.0  # seconds
_NOT_YET = (ConnectionRefusedError, ConnectionResetError, BrokenPipeError)


class HttpProber:
    """Implements ``Prober`` over loopback HTTP; ``deadline`` is in seconds for each target."""

    def __init__(self, *, deadline: float = DEADLINE) -> None:
        self._deadline = deadline

    async def probe(self, targets: Sequence[tuple[str, int, str]]) -> dict[str, ProbeResult]:
        """Probe (slot, loopback port, path) targets at once and return each slot's answer. Never raises."""
        results = await asyncio.gather(*(self._ask(port, path) for _, port, path in targets))
        return {slot: result for (slot, _, _), result in zip(targets, results, strict=True)}

    async def close(self) -> None:
        """Nothing is kept open between probes: a connection of its own also proves that new ones are accepted."""

    async def _ask(self, port: int, path: str) -> ProbeResult:
        try:
            async with asyncio.timeout(self._deadline):
                return _meaning(await _status_line(port, path))
        except _NOT_YET:
            return ProbeResult.LOADING
        except TimeoutError:
            return ProbeResult.LATE
        except (OSError, ValueError):
            return ProbeResult.FAILING


async def _status_line(port: int, path: str) -> bytes:
    """Return the first line of the answer, empty when the connection was closed without one."""
    reader, writer = await asyncio.open_connection(HOST, port)
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nHost: {HOST}:{port}\r\nConnection: close\r\n\r\n".encode())
        return await reader.readline()
    finally:
        writer.transport.abort()  # the body is of no interest, and an engine that hangs would delay a clean close


def _meaning(line: bytes) -> ProbeResult:
    """Return what a status line says. No line is not yet up: a port forwarder accepts before its engine does."""
    if not line:
        return ProbeResult.LOADING
    version, _, rest = line.partition(b" ")
    status = int(rest[:3]) if version.startswith(b"HTTP/") else 0
    meanings = {HTTPStatus.OK: ProbeResult.UP, HTTPStatus.SERVICE_UNAVAILABLE: ProbeResult.LOADING}
    return meanings.get(HTTPStatus(status), ProbeResult.FAILING)
