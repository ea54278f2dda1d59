"""``hal0 history``: the applies that were, newest first."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from hal0.cli import show
from hal0.cli.ask import asked
from hal0.cli.options import Options
from hal0.core.quantity import show_duration

_HEAD = ("WHEN", "GENERATION", "REVISION", "WHO", "RESULT", "TOOK", "CHANGES", "")


def history(options: Options, *, lines: int, as_json: bool) -> int:
    """Print the last applies."""

    def own() -> dict[str, Any]:
        from hal0.cli import local

        return local.history(options, limit=lines)

    show.found(asked(options, "/api/history", own, {"limit": lines}), _table, as_json=as_json)
    return 0


def _table(found: dict[str, Any]) -> Iterator[str]:
    applies = found["applies"]
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
