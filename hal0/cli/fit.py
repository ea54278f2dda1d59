"""``hal0 model fit``: whether a model fits, by the daemon where one runs, else by a look of our own."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from hal0.cli import show
from hal0.cli.ask import asked
from hal0.cli.options import Options
from hal0.core.quantity import show_size

_DOES_NOT_FIT = 3
_WIDTH = 9


@dataclass(frozen=True, slots=True)
class FitOptions:
    """The slot that is asked about; None: what ``slot create`` would take."""

    context_size: int | None = None
    device: str | None = None
    profile: str | None = None

    def query(self) -> dict[str, str | int]:
        """Return it as the daemon takes it."""
        said = {"ctx_size": self.context_size, "device": self.device, "profile": self.profile}
        return {"fit": ""} | {key: value for key, value in said.items() if value}


def fit(options: Options, model: str, wanted: FitOptions, *, as_json: bool) -> int:
    """Print whether a model fits, and return the exit code."""

    def own() -> dict[str, Any]:
        return {"fit": asyncio.run(_own(options, model, wanted))}

    found = asked(options, f"/api/models/{quote(model, safe='/')}", own, wanted.query())["fit"]
    show.found(found, fit_text, as_json=as_json)
    return 0 if found["fits"] in {"now", "later"} else _DOES_NOT_FIT


async def _own(options: Options, model: str, wanted: FitOptions) -> dict[str, Any]:
    from hal0.cli.local import looking
    from hal0.loop.fit import Fitting, model_fit

    async with looking(options) as reconciler:
        await reconciler.survey()
        return await model_fit(reconciler, Fitting(model, wanted.context_size, wanted.device, wanted.profile))


def fit_text(found: dict[str, Any]) -> Iterator[str]:
    """Yield whether a model fits, and the arithmetic."""
    words = {"now": "fits now", "later": "fits, not now", "never": "does not fit", "unknown": "not known"}
    colour = {"now": "32", "later": "33"}.get(found["fits"], "31")
    yield f"{found['model']} on {found['device']}: {show.paint(words[found['fits']], colour)}: {found['why']}"
    claim = found["claim"]
    if claim["bytes"] is not None:
        least = "at least " if found["at_least"] else ""
        yield _row("takes", f"{least}{show_size(claim['bytes'])} ({claim['source']}): {claim['how']}")
    if found["room_bytes"] is not None:
        room, free = show_size(found["room_bytes"]), show_size(found["free_bytes"])
        yield _row("pool", f"{found['pool']}  {room} for slots, {free} free now")
    if largest := found["largest_context"]:
        now = f", {found['largest_context_now']} now" if found["largest_context_now"] else ""
        yield _row("context", f"{found['context_size']} tokens; up to {largest} would fit{now}")
    yield _row("device", found["device_why"])


def _row(name: str, text: str) -> str:
    return f"{name:<{_WIDTH}} {text}"
