"""``hal0 slot adopt``: what would be replaced is shown, and replaced once somebody says yes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from urllib.parse import quote

from hal0.cli import client, show
from hal0.cli.acts import Asked, act
from hal0.cli.options import Options
from hal0.core.wire import Json
from hal0.errors import UsageError


def adopt(options: Options, name: str, timeout: float, *, force: bool, as_json: bool) -> int:
    """Show what is in a slot's place, ask, take it over, and return the exit code."""
    if client.is_running(options.scope):
        found = client.get(options.scope, f"/api/slots/{quote(name, safe='')}/adopt")
    else:
        found = asyncio.run(_own_look(options, name))
    if not force:
        show.say(_shown(found))
        _confirm(found)
    asked = Asked("adopt", name, "", None, timeout, wait=True, seen=found["seen"])
    return act(options, asked, as_json=as_json)


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
