"""Errors of /api: the dispatcher's one envelope, as aiohttp answers."""

from __future__ import annotations

from aiohttp import web

from hal0.dispatch.envelope import Refusal


def error_response(status: int, code: str, message: str, *, retry_after: float | None = None) -> web.Response:
    """Return an error; with ``retry_after`` (seconds) a client knows when to come again, without it not to."""
    refusal = Refusal(status, code, message, retry_after=retry_after)
    headers = {name.decode(): value.decode() for name, value in refusal.headers}
    return web.Response(body=refusal.body(), status=status, headers=headers)
