"""``hal0 status`` and ``hal0 slot …``: what the daemon saw last, or a look of our own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlencode

from hal0.cli import client, show
from hal0.cli.options import Options


def status(options: Options, *, as_json: bool) -> int:
    """Print the whole picture."""
    picture = _picture(options)
    show.say([json.dumps(picture, indent=2)] if as_json else show.status_text(picture))
    return 0


def slots(options: Options, *, as_json: bool) -> int:
    """Print the table of slots."""
    found = _picture(options)
    if as_json:
        show.say([json.dumps({"version": found["version"], "slots": found["slots"]}, indent=2)])
    else:
        show.say(show.slots_text(found["slots"]))
    return 0


def slot(options: Options, name: str, *, as_json: bool) -> int:
    """Print one slot in full."""
    found = _daemon_slot(options, name) if client.is_running(options.scope) else _own_slot(options, name)
    show.say([json.dumps(found, indent=2)] if as_json else show.slot_text(found))
    return 0


def logs(options: Options, name: str, *, lines: int, follow: bool, as_json: bool) -> int:
    """Print a slot's log."""
    found = _daemon_logs(options, name, lines, follow=follow) if client.is_running(options.scope) else None
    found = found if found is not None else _own_logs(options, name, lines, follow=follow)
    printed = False
    if as_json and not follow:
        lines_found = list(found)
        printed = bool(lines_found)
        show.say([json.dumps({"version": 1, "slot": name, "lines": lines_found}, indent=2)])
    else:
        for line in found:
            show.say([json.dumps({"line": line}) if as_json else line])
            printed = True
    if not printed:
        show.hint(f"no lines of {name}: it never ran, or this machine has no journalctl to read them with")
    return 0


def route(options: Options, model: str | None, path: str, *, as_json: bool) -> int:
    """Print where a request would go and why; 1 where it goes nowhere."""
    if client.is_running(options.scope):
        query = urlencode({"model": model or "", "path": path})
        found: dict[str, Any] = client.get(options.scope, f"/api/route?{query}")
    else:
        from hal0.cli import local

        found = local.route(options, model, path)
    show.say([json.dumps(found, indent=2)] if as_json else show.route_text(found))
    return int(bool(found["code"]))


def _picture(options: Options) -> dict[str, Any]:
    if client.is_running(options.scope):
        found: dict[str, Any] = client.get(options.scope, "/api/status")
        return found
    from hal0.cli import local

    return local.picture(options)


def _daemon_slot(options: Options, name: str) -> dict[str, Any]:
    found: dict[str, Any] = client.get(options.scope, f"/api/slots/{quote(name, safe='')}")
    return found


def _own_slot(options: Options, name: str) -> dict[str, Any]:
    from hal0.cli import local

    return local.slot(options, name)


def _daemon_logs(options: Options, name: str, lines: int, *, follow: bool) -> Iterator[str]:
    query = f"lines={lines}" + ("&follow=1" if follow else "")
    return client.lines(options.scope, "GET", f"/api/slots/{quote(name, safe='')}/logs?{query}")


def _own_logs(options: Options, name: str, lines: int, *, follow: bool) -> Iterator[str]:
    from hal0.cli import local

    return local.logs(options, name, lines, follow=follow)
