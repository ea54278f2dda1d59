"""``hal0 history``: the applies that were, newest first."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from hal0.cli import client, show
from hal0.cli.options import Options
from hal0.core.quantity import show_duration

_HEAD = ("WHEN", "GENERATION", "REVISION", "WHO", "RESULT", "TOOK", "CHANGES", "")


def history(options: Options, *, lines: int, as_json: bool) -> int:
    """Print the last applies."""
    if client.is_running(options.scope):
        found: dict[str, Any] = client.get(options.scope, f"/api/history?limit={lines}")
    else:
        from hal0.cli import local

        found = local.history(options, limit=lines)
    show.say([json.dumps(found, indent=2)] if as_json else _table(found["applies"]))
    return 0


def _table(applies: list[dict[str, Any]]) -> Iterator[str]:
    if not applies:
        yield "Nothing was applied yet, as far as hal0 remembers."
        return
    yield from show.table(_HEAD, [_row(apply) for apply in applies])


def _row(apply: dict[str, Any]) -> tuple[str, ...]:
    return (
        show.clock(apply["at"]),
        f"g{apply['generation']}",
        apply["revision"] or "not in git",
        apply["who"],
        apply["result"] or "under way",
        "" if apply["seconds"] is None else show_duration(apply["seconds"]),
        str(apply["changes"]),
        apply["summary"],
    )
