"""``hal0 upstream list`` and ``test``: by the daemon, else in this process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

from hal0.cli import show
from hal0.cli.ask import asked, of, told
from hal0.cli.options import Options
from hal0.errors import StepFailed

if TYPE_CHECKING:
    from hal0.core.wire import Json
    from hal0.dispatch.upstreams import Upstreams

_SHOWN = 8
_KEYS = {
    "accepted": "accepted: without it the list is refused",
    "refused": "refused",
    "wanted": "it wants one, and the manifest names none (`api_key`)",
    "none": "none is named, and none is asked for",
    "unproved": "sent, but its list is told without one, too: ask one of its models to know",
    "missing": "there is none",
    "unknown": "not known",
}


def listed(options: Options, *, as_json: bool) -> int:
    """Print the upstreams."""
    show.found(asked(options, "/api/upstreams", lambda: _own_list(options)), _table, as_json=as_json)
    return 0


def test(options: Options, name: str, *, as_json: bool) -> int:
    """Try one upstream, and print what came of it; the exit code is a failed step's where it can't be used."""
    own = partial(_own_test, options, name)
    found = told(options, "POST", of("upstreams", name, "test"), {}, lambda: asyncio.run(own()))
    show.found(found, _test_text, as_json=as_json)
    return 0 if found["ok"] else StepFailed.exit_code


def _table(found: Json) -> Iterator[str]:
    upstreams = found["upstreams"]
    if not upstreams:
        yield "No upstreams: a manifest of kind Upstream declares one."
        return
    rows = [
        (
            each["name"],
            each["api"],
            each["prefix"],
            each["breaker"],
            str(len(each["models"])) if each["models"] else "-",
            each["base_url"],
            each["error"] or each["list_error"],
        )
        for each in upstreams
    ]
    yield from show.table(("NAME", "API", "PREFIX", "BREAKER", "MODELS", "ADDRESS", ""), rows)


def _test_text(found: Json) -> Iterator[str]:
    verdict = show.paint("ok", "32") if found["ok"] else show.paint("can't be used", "31")
    yield f"{found['name']}  {verdict}"
    place = f" ({found['key_place']})" if found["key_place"] else ""
    took = "" if found["seconds"] is None else f" in {found['seconds'] * 1000:.0f} ms"
    answer = f"{found['status']}{took}" if found["status"] else "none"
    yield f"  {'address':<8} {found['base_url']}"
    yield f"  {'answer':<8} {answer}" + (f": {found['error']}" if found["error"] else "")
    yield f"  {'key':<8} {_key_text(found)}{place}"
    if models := found["models"]:
        more = f" and {len(models) - _SHOWN} more" if len(models) > _SHOWN else ""
        yield f"  {'models':<8} {len(models)}: {', '.join(models[:_SHOWN])}{more}"
    if missing := found["not_listed"]:
        yield f"  {'warning':<8} the manifest names {', '.join(missing)}, and its list does not"


def _own_list(options: Options) -> Json:
    async def ask() -> Json:
        async with _own(options) as upstreams:
            return upstreams.as_json()

    return asyncio.run(ask())


async def _own_test(options: Options, name: str) -> Json:
    from hal0.dispatch.tryout import tried

    async with _own(options) as upstreams:
        return await tried(upstreams, name)


def _key_text(found: Json) -> str:
    """Return what is known of the key: a server that does not answer asks for none, nor for one."""
    return "none is named" if found["key"] == "none" and not found["status"] else _KEYS[found["key"]]


@asynccontextmanager
async def _own(options: Options) -> AsyncIterator[Upstreams]:
    """Return the upstreams of the manifests, as this process would ask them."""
    from hal0.cli.local import looking
    from hal0.dispatch import upstreams
    from hal0.dispatch.pool import Pool

    async with looking(options) as reconciler:
        await reconciler.survey()
        pool = Pool()
        try:
            yield upstreams.Upstreams(reconciler, pool)
        finally:
            pool.close()
