"""``hal0 lock``: by the daemon where one runs, else in this process."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hal0.cli import client, show
from hal0.cli.models import by_self, event_of
from hal0.cli.options import Options, who
from hal0.cli.progress import Progress
from hal0.errors import UsageError

if TYPE_CHECKING:
    from hal0.loop.reconcile import Reconciler

_WOULD_CHANGE = 2
_NOT_LOCKED = 3


@dataclass(frozen=True, slots=True)
class What:
    """What to lock anew, and whether only to look."""

    upgrade: bool
    names: list[str]
    check: bool


def lock(options: Options, what: What, *, as_json: bool) -> int:
    """Write hal0.lock, show what changed, and return the exit code."""
    if what.names and not what.upgrade:
        raise UsageError("names are for --upgrade", hint="hal0 lock without any locks what is not locked yet")
    with Progress(as_json=as_json) as progress:
        if client.is_running(options.scope):
            for line in client.lines(options.scope, "POST", "/api/lock", _body(options, what)):
                _shown(event_of(json.loads(line)), progress, as_json=as_json)
        else:
            by_self(options, lambda own: _locked(own, what, progress, as_json=as_json), writes=not what.check)
        end = progress.last
    if not as_json:
        show.say(lock_text(end))
        for each in end["open"]:
            show.warn(f"not locked: {each['kind']} {each['name']}: {each['why']}")
    if end["warning"]:
        show.warn(end["warning"])
    if end["open"]:
        return _NOT_LOCKED
    return _WOULD_CHANGE if end["changes"] and what.check else 0


def lock_text(end: dict[str, Any]) -> Iterator[str]:
    """Yield what changed in the lock, or would, and how much is in it."""
    for change in end["changes"]:
        yield _change(change)
        if change["is_other"]:
            yield "      the file here is another one: a slot that needs it fetches it, or hal0 model pull"
    count = f"{_count(end['models'], 'model')}, {_count(end['images'], 'image')}"
    if not end["changes"]:
        yield f"{end['path']}: nothing changes; {count}"
    elif end["written"]:
        commit = f", commit {end['commit']}" if end["commit"] else ""
        yield f"{end['path']}: written; {count}{commit}"
    else:
        yield f"{end['path']}: would change; nothing was written"


def _change(change: dict[str, Any]) -> str:
    head = f"{change['kind']:<5} {change['name']}"
    match change["before"], "to be looked up" if change["is_due"] else change["after"]:
        case None, after:
            return show.paint(f"  + {head}  {after}", "32")
        case before, None:
            return show.paint(f"  - {head}  {before}", "31")
        case before, after:
            return show.paint(f"  ~ {head}  {before} -> {after}", "33")


def _count(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"


def _body(options: Options, what: What) -> dict[str, Any]:
    root = str(options.path.resolve()) if options.path else None
    return {"root": root, "upgrade": what.upgrade, "names": what.names, "check": what.check, "who": who()}


async def _locked(reconciler: Reconciler, what: What, progress: Progress, *, as_json: bool) -> dict[str, Any]:
    from hal0.loop.lock import LockRequest
    from hal0.loop.lock import lock as locking

    request = LockRequest(what.upgrade, tuple(what.names), what.check, who())
    async for event in locking(reconciler, request):
        _shown(event, progress, as_json=as_json)
    return progress.last


def _shown(event: dict[str, Any], progress: Progress, *, as_json: bool) -> None:
    progress.show(event)
    if as_json:
        return
    if event["event"] == "pull":
        show.note(f"pulling {event['name']}")
    if event["event"] == "look" and event["source"]:
        show.note(f"looking up {event['name']}: {event['source']}")
