"""``hal0 status`` and ``hal0 slot …``: what the daemon saw last, or a look of our own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from hal0.cli import client, show
from hal0.cli.ask import asked, of
from hal0.cli.options import Options


def status(options: Options, *, as_json: bool) -> int:
    """Print the whole picture."""
    show.found(_picture(options), show.status_text, as_json=as_json)
    return 0


def slots(options: Options, *, as_json: bool) -> int:
    """Print the table of slots."""
    picture = _picture(options)
    only = {key: picture[key] for key in ("version", "slots")}
    show.found(only, lambda found: show.slots_text(found["slots"]), as_json=as_json)
    return 0


def slot(options: Options, name: str, *, as_json: bool) -> int:
    """Print one slot in full."""

    def own() -> dict[str, Any]:
        from hal0.cli import local

        return local.slot(options, name)

    show.found(asked(options, of("slots", name), own), show.slot_text, as_json=as_json)
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

    def own() -> dict[str, Any]:
        from hal0.cli import local

        return local.route(options, model, path)

    found = asked(options, "/api/route", own, {"model": model or "", "path": path})
    show.found(found, show.route_text, as_json=as_json)
    return int(bool(found["code"]))


def _picture(options: Options) -> dict[str, Any]:
    def own() -> dict[str, Any]:
        from hal0.cli import local

        return local.picture(options)

    return asked(options, "/api/status", own)


def _daemon_logs(options: Options, name: str, lines: int, *, follow: bool) -> Iterator[str]:
    query = f"lines={lines}" + ("&follow=1" if follow else "")
    return client.lines(options.scope, "GET", f"{of('slots', name, 'logs')}?{query}")


def _own_logs(options: Options, name: str, lines: int, *, follow: bool) -> Iterator[str]:
    from hal0.cli import local

    return local.logs(options, name, lines, follow=follow)
