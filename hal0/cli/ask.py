"""What is asked of the daemon where one runs, and found out in this process where none does."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import quote, urlencode

from hal0.cli import client
from hal0.cli.options import Options

if TYPE_CHECKING:
    from hal0.core.wire import Json

Query: TypeAlias = Mapping[str, str | int]
_PATIENCE = 120.0


def asked(options: Options, path: str, own: Callable[[], Json], query: Query | None = None) -> Json:
    """Return what the daemon answers to a GET; what ``own`` finds where none runs."""
    if not client.is_running(options.scope):
        return own()
    found: Json = client.get(options.scope, f"{path}?{urlencode(query)}" if query else path)
    return found


def asked_of(options: Options, path: str, own: Callable[[], Json], query: Query | None = None) -> Json:
    """Return the same, of the manifests that a command names: those are read in this process."""
    return own() if options.path else asked(options, path, own, query)


def told(options: Options, method: str, path: str, body: Json, own: Callable[[], Json]) -> Json:
    """Have the daemon do something and return what came of it; what ``own`` did where none runs."""
    if not client.is_running(options.scope):
        return own()
    done: Json = json.loads("".join(client.lines(options.scope, method, path, body, timeout=_PATIENCE)))
    return done


def of(kind: str, name: str, part: str = "") -> str:
    """Return the address of a named thing: ``/api/slots/chat/why``. ``kind`` is its plural."""
    return f"/api/{kind}/{quote(name, safe='')}" + (f"/{part}" if part else "")
