"""Errors as OpenAI's clients read them: one envelope, with a dotted code. docs/errors.md lists the codes."""

from __future__ import annotations

import math

from aiohttp import web

_TYPES = {400: "invalid_request_error", 404: "not_found_error", 405: "invalid_request_error", 409: "conflict_error"}


def error_body(status: int, code: str, message: str, param: str | None = None) -> dict[str, object]:
    """Return the body of an error."""
    kind = _TYPES.get(status, "api_error" if status >= 500 else "invalid_request_error")  # noqa: PLR2004  (5xx)
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def error_response(
    status: int, code: str, message: str, *, param: str | None = None, retry_after: float | None = None
) -> web.Response:
    """Return an error; with ``retry_after`` (seconds) a client knows when to come again, without it not to."""
    headers = {"x-should-retry": "false"} if retry_after is None else {"Retry-After": str(math.ceil(retry_after))}
    return web.json_response(error_body(status, code, message, param), status=status, headers=headers)
