"""``hal0 doctor``: a report card of this machine."""

from __future__ import annotations

import asyncio
import shutil
import sys
import textwrap
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from hal0.cli import client, show
from hal0.cli.install import unit_texts
from hal0.cli.local import looking, settings
from hal0.cli.options import Options
from hal0.core.conditions import ConditionType
from hal0.core.doctor import report_json
from hal0.errors import Hal0Error, StepFailed
from hal0.loop.checkup import Running, examine

if TYPE_CHECKING:
    from hal0.core.wire import Json

_COLOURS = {"ok": "32", "warn": "33", "fail": "31", "unknown": "36"}
_WORDS = {"ok": "ok", "warn": "warn", "fail": "FAIL", "unknown": "?"}
_LEAST_ROOM = 24
_PATIENCE = 15.0
"""Seconds for a look of our own at what slots do."""


def doctor(options: Options, *, as_json: bool) -> int:
    """Print the card; the exit code is a failed step's where a check failed."""
    picture = _picture(options)
    options = _as_served(options, picture)
    found = settings(options.path, options.runtime, options.scope)
    running = _told(picture) if picture else asyncio.run(_seen(options))
    card = report_json(asyncio.run(examine(found, unit_texts(found.scope, found.root), running, time.time())))
    show.found(card, card_text, as_json=as_json)
    return StepFailed.exit_code if card["counts"]["fail"] else 0


def card_text(card: Json) -> Iterator[str]:
    """Yield the card: each area with its checks, what mends them below, and the sum."""
    width = max(len(check["name"]) for check in card["checks"])
    yield f"hal0 in the {card['scope']} scope, with the {card['runtime']} runtime"
    for area, checks in groupby(card["checks"], key=lambda check: check["area"]):
        yield ""
        yield show.paint(area, "1")
        for check in checks:
            word = show.paint(f"{_WORDS[check['verdict']]:<4}", _COLOURS[check["verdict"]])
            first, *more = _folded(check["found"], 10 + width)
            yield f"  {word}  {check['name']:<{width}}  {first}"
            mend = [f"-> {check['mend']}"] if check["mend"] else []  # one line: it may be a command to copy
            yield from (f"{'':<{10 + width}}{line}" for line in [*more, *mend])
    yield ""
    yield _sum(card["counts"])


def _folded(text: str, indent: int) -> list[str]:
    """Return a text in lines that fit beside an indent, on a terminal; in one line elsewhere, for who searches it."""
    room = shutil.get_terminal_size().columns - indent
    if not sys.stdout.isatty() or room < _LEAST_ROOM:
        return [text]
    return textwrap.wrap(text, room, break_long_words=False, break_on_hyphens=False) or [""]


def _sum(counts: dict[str, int]) -> str:
    said = {"fail": "failed", "warn": "to look at", "unknown": "unknown", "ok": "ok"}
    parts = [show.paint(f"{counts[each]} {word}", _COLOURS[each]) for each, word in said.items() if counts[each]]
    return ", ".join(parts) + "."


def _picture(options: Options) -> Json | None:
    """Return what the daemon says of everything; None where none answers, for whatever reason."""
    try:
        if client.is_running(options.scope):
            picture: Json = client.get(options.scope, "/api/status")
            return picture
    except Hal0Error:
        pass  # a check of its own says so
    return None


def _as_served(options: Options, picture: Json | None) -> Options:
    """Return the options with the daemon's own root and runtime, where no others are named."""
    if picture is None:
        return options
    runtime = picture["runtime"] if options.runtime == "auto" else options.runtime
    return replace(options, path=options.path or Path(picture["root"]), runtime=runtime)


def _told(picture: Json) -> Running:
    return {
        slot["name"]: condition["status"]
        for slot in picture["slots"]
        for condition in slot["conditions"]
        if condition["type"] == ConditionType.RUNNING
    }


async def _seen(options: Options) -> Running:
    """Look for ourselves which engines run; nothing is known where that fails."""
    try:
        async with asyncio.timeout(_PATIENCE), looking(options) as reconciler:
            await reconciler.survey()
            slots = reconciler.snapshot.slots.items()
            return {name: slot.condition(ConditionType.RUNNING).status for name, slot in slots}
    except (Hal0Error, OSError):  # a deadline that is over is one, too
        return {}
