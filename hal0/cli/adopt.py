"""``hal0 slot adopt``: what would be replaced is shown, and replaced once somebody says yes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import TYPE_CHECKING

from hal0.cli import show
from hal0.cli.acts import Asked, act
from hal0.cli.ask import asked, of
from hal0.cli.options import Options
from hal0.errors import UsageError

if TYPE_CHECKING:
    from hal0.core.wire import Json


def adopt(options: Options, name: str, timeout: float, *, force: bool, as_json: bool) -> int:
    """Show what is in a slot's place, ask, take it over, and return the exit code."""
    found = asked(options, of("slots", name, "adopt"), lambda: asyncio.run(_own_look(options, name)))
    if not force:
        show.say(_shown(found))
        _confirm(found)
    request = Asked("adopt", name, "", None, timeout, wait=True, seen=found["seen"])
    return act(options, request, as_json=as_json)


def _shown(found: Json) -> Iterator[str]:
    yield found["why"]
    yield from show.diff_text(found["diff"])
    if found["container"]:
        yield f"container {found['container']} is stopped and removed"


def _confirm(found: Json) -> None:
    from typer import confirm

    if not confirm(f"Stop what runs there, and have slot {found['slot']!r} in its place?", err=True):
        raise UsageError(f"slot {found['slot']!r} stays as it is: nothing was changed", hint="--force does not ask")


async def _own_look(options: Options, name: str) -> Json:
    from hal0.cli.local import looking
    from hal0.loop.adopt import adoption

    async with looking(options) as reconciler:
        return await adoption(reconciler, name)
