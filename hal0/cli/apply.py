"""``hal0 apply`` and ``hal0 rollback``: by the daemon where one runs, else in this process."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hal0.cli import client, show
from hal0.cli.client import DaemonError
from hal0.cli.options import Options, who

if TYPE_CHECKING:
    from hal0.loop.reconcile import Reconciler

_CHANGED = 2
_NOT_CONVERGED = 3
_LINE_EVERY = 5.0


@dataclass(frozen=True, slots=True)
class How:
    """For how many seconds to watch an apply; ``atomic``: new specs have to prove themselves."""

    timeout: float
    atomic: bool


def apply(options: Options, how: How, *, show_diff: bool, detailed: bool, as_json: bool) -> int:
    """Apply, show what happens, and return the exit code."""
    view = View(show_diff=show_diff, as_json=as_json)
    if client.is_running(options.scope):
        by_daemon(options, "/api/apply", _asked(options, how), view)
    else:
        from hal0.loop import operations

        request = operations.ApplyRequest(
            _limit(options), options.prune_all, how.timeout, who(), atomic=how.atomic, locked=options.locked
        )
        by_self(options, lambda reconciler: operations.apply(reconciler, request), view, preview=True)
    return view.exit_code(detailed=detailed)


def rollback(options: Options, rev: str, how: How, *, force: bool, as_json: bool) -> int:
    """Bring earlier manifests back, apply them, show what happens, and return the exit code."""
    view = View(show_diff=False, as_json=as_json)
    if client.is_running(options.scope):
        by_daemon(options, "/api/rollback", _common(options, how) | {"rev": rev, "force": force}, view)
    else:
        from hal0.loop.rollback import RollbackRequest
        from hal0.loop.rollback import rollback as rolled_back

        request = RollbackRequest(rev, force, options.prune_all, how.timeout, who(), how.atomic)
        by_self(options, lambda reconciler: rolled_back(reconciler, request), view)
    return view.exit_code(detailed=False)


class View:
    """Shows events, and remembers what the exit code is made of."""

    def __init__(self, *, show_diff: bool, as_json: bool) -> None:
        self._show_diff = show_diff
        self._as_json = as_json
        self._changes = 0
        self._said: dict[str, str] = {}
        self._told_at = -_LINE_EVERY
        self._recap: dict[str, Any] = {"slots": {}, "converged": False}

    def show(self, event: dict[str, Any]) -> None:
        """Print one event. Raises the daemon's error where it is one."""
        if event["event"] == "error":
            raise DaemonError(event["message"], hint=event["hint"], exit_code=event["exit_code"])
        if event["event"] == "plan":
            self._changes = len(event["plan"]["changes"])
        if event["event"] == "recap":
            self._recap = event
        show.say([json.dumps(event)] if self._as_json else self._lines(event))

    def exit_code(self, *, detailed: bool) -> int:
        """Return how it ended, once all events were shown."""
        if not self._recap["converged"]:
            return _NOT_CONVERGED
        return _CHANGED if detailed and self._changes else 0

    def _lines(self, event: dict[str, Any]) -> Iterator[str]:
        if event["event"] == "plan":
            yield from show.plan_text(event["plan"], diffs=self._show_diff)
            yield ""
        elif event["event"] == "recap":
            yield ""
            yield from show.recap_text(event)
        elif event["event"] == "rollback":
            yield from show.rollback_text(event)
        elif event["event"] == "swap":
            yield from show.swap_text(event)
        elif event["event"] == "transfer":
            yield from self._progress(event)
        elif (line := show.event_text(self._new(event))) is not None:
            yield line

    def _progress(self, event: dict[str, Any]) -> Iterator[str]:
        """Yield how far a model is, now and then: it is told once a second."""
        now, end = time.monotonic(), event["done_bytes"] == event["total_bytes"]
        if end or now - self._told_at >= _LINE_EVERY:
            self._told_at = now
            yield f"  {', '.join(event['slots']):<12} {event['message']}"

    def _new(self, event: dict[str, Any]) -> dict[str, Any]:
        """Return an event without a message that was the slot's last one, too."""
        before = self._said.get(event["slot"])
        self._said[event["slot"]] = event["message"]
        return event | {"message": ""} if event["message"] == before else event


def _asked(options: Options, how: How) -> dict[str, Any]:
    root = str(options.path.resolve()) if options.path else None
    return _common(options, how) | {"root": root, "limit": options.limit, "locked": options.locked}


def _common(options: Options, how: How) -> dict[str, Any]:
    return {"prune_all": options.prune_all, "atomic": how.atomic, "timeout": how.timeout, "who": who()}


def _limit(options: Options) -> frozenset[str] | None:
    return frozenset(options.limit) if options.limit else None


def by_daemon(options: Options, path: str, asked: dict[str, Any], view: View) -> None:
    """Have the daemon act, and show what it says. It ends by itself, soon after ``timeout`` seconds of ``asked``."""
    for line in client.lines(options.scope, "POST", path, asked, timeout=asked["timeout"] + 60):
        view.show(json.loads(line))


def by_self(
    options: Options,
    act: Callable[[Reconciler], AsyncIterator[dict[str, Any]]],
    view: View,
    *,
    preview: bool = False,
) -> None:
    """Act in this process; with ``preview``, only once a look that is written nowhere finds nothing wrong."""
    # Only here: with a daemon, the command must not pay for importing the loop.
    import asyncio

    from hal0.cli.local import acting, acting_settings, leave, looking
    from hal0.loop import operations

    acting_settings(options)  # before the look: it would be for nothing

    async def run() -> None:
        if preview:
            async with looking(options) as reconciler:
                await operations.preview(reconciler, leave(options), locked=options.locked)
        async with acting(options) as reconciler:
            async for event in act(reconciler):
                view.show(event)

    asyncio.run(run())
