"""Numbers in the query of a request."""

from __future__ import annotations

from aiohttp import web

from hal0.errors import UsageError

_LONGEST = 9


def whole_number(request: web.Request, name: str, default: int) -> int:
    """Return a number of the query, or the default where it is not there. Raises ``UsageError`` for anything else."""
    text = request.query.get(name, str(default))
    if not text.isdecimal() or len(text) > _LONGEST:
        raise UsageError(f"{name}={text!r} is no whole number")
    return int(text)
