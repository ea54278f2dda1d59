"""``hal0 apply``: by the daemon where one runs, else in this process."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from hal0.cli import client, show
from hal0.cli.client import DaemonError
from hal0.cli.options import Options, who
from hal0.errors import UsageError

_CHANGED = 2
_NOT_CONVERGED = 3
_LOCK_PATIENCE = 10.0


def apply(options: Options, *, show_diff: bool, detailed: bool, as_json: bool, timeout: float) -> int:
    """Apply, show what happens, and return the exit code."""
    view = _View(show_diff=show_diff, as_json=as_json)
    if client.is_running(options.scope):
        for event in _by_daemon(options, timeout):
            view.show(event)
    else:
        import asyncio

        asyncio.run(_by_self(options, timeout, view))
    return view.exit_code(detailed=detailed)


class _View:
    """Shows events, and remembers what the exit code is made of."""

    def __init__(self, *, show_diff: bool, as_json: bool) -> None:
        self._show_diff = show_diff
        self._as_json = as_json
        self._changes = 0
        self._said: dict[str, str] = {}
        self._recap: dict[str, Any] = {"slots": {}, "converged": False}

    def show(self, event: dict[str, Any]) -> None:
        if event["event"] == "error":
            raise DaemonError(event["message"], hint=event["hint"], exit_code=event["exit_code"])
        if event["event"] == "plan":
            self._changes = len(event["plan"]["changes"])
        if event["event"] == "recap":
            self._recap = event
        show.say([json.dumps(event)] if self._as_json else self._lines(event))

    def exit_code(self, *, detailed: bool) -> int:
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
        elif (line := show.event_text(self._new(event))) is not None:
            yield line

    def _new(self, event: dict[str, Any]) -> dict[str, Any]:
        """Return an event without a message that was the slot's last one, too."""
        before = self._said.get(event["slot"])
        self._said[event["slot"]] = event["message"]
        return event | {"message": ""} if event["message"] == before else event


def _by_daemon(options: Options, timeout: float) -> Iterator[dict[str, Any]]:
    asked = {
        "root": str(options.path.resolve()) if options.path else None,
        "limit": options.limit,
        "prune_all": options.prune_all,
        "timeout": timeout,
        "who": who(),
    }
    for line in client.lines(options.scope, "POST", "/api/apply", asked, timeout=timeout + 60):
        yield json.loads(line)


async def _by_self(options: Options, seconds: float, view: _View) -> None:
    # Only here: with a daemon, the command must not pay for importing the loop.
    from hal0.cli.local import leave, looking, settings
    from hal0.loop import operations
    from hal0.loop.daemon import running

    request = operations.ApplyRequest(leave(options).limit, options.prune_all, seconds, who())
    found = settings(options.path, options.runtime, options.scope)
    if found.runtime_name == "process":
        hint = f"run `hal0 serve {found.root}`; it applies, and keeps it so"
        raise UsageError("the process runtime lives inside the daemon, and none is running", hint=hint)
    async with looking(options) as reconciler:
        await operations.preview(reconciler, leave(options))
    async with running(found, leave=leave(options), patience=_LOCK_PATIENCE) as reconciler:
        async for event in operations.apply(reconciler, request):
            view.show(event)
