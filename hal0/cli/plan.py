"""``hal0 plan`` and ``hal0 diff``."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import urlencode

from hal0.cli import client, show
from hal0.cli.local import leave, looking
from hal0.cli.options import Options
from hal0.core.wire import plan_json
from hal0.loop import operations

_CHANGES_PENDING = 2


def plan(options: Options, *, show_diff: bool, detailed: bool, as_json: bool) -> int:
    """Print what apply would do, and return the exit code."""
    found = _found(options)
    show.found(found, lambda plan: show.plan_text(plan, diffs=show_diff), as_json=as_json)
    return _CHANGES_PENDING if detailed and found["changes"] else 0


def diff(options: Options, *, detailed: bool) -> int:
    """Print the diffs alone."""
    found = _found(options)
    show.say(change["diff"].rstrip("\n") for change in found["changes"] if change["diff"])
    return _CHANGES_PENDING if detailed and found["changes"] else 0


def _found(options: Options) -> dict[str, Any]:
    """Have the daemon plan, if it serves these manifests: it knows the demand, and what it has tried."""
    if client.is_running(options.scope):
        served = client.get(options.scope, "/api/status")["root"]
        if options.path is None or str(options.path.resolve()) == served:
            asked = [("fresh", "1"), ("prune_all", str(int(options.prune_all))), ("locked", str(int(options.locked)))]
            query = urlencode([*asked, *(("limit", name) for name in options.limit or ())])
            found: dict[str, Any] = client.get(options.scope, f"/api/plan?{query}")
            return found
    return asyncio.run(_preview(options))


async def _preview(options: Options) -> dict[str, Any]:
    async with looking(options) as reconciler:
        return plan_json(await operations.preview(reconciler, leave(options), locked=options.locked))
