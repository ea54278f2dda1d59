"""``hal0 profile …`` and ``hal0 slot show --command``: profiles, and where each part of a command line comes from."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Any

from hal0.cli import show
from hal0.cli.ask import asked, asked_of, of
from hal0.cli.options import Options

_WIDEST = 56
"""A column is at most so wide; what is longer moves the rest of its line to the right."""


def listing(options: Options, *, as_json: bool) -> int:
    """Print the table of profiles."""

    def own() -> dict[str, Any]:
        from hal0.cli import local

        return local.profiles(options)

    show.found(asked_of(options, "/api/profiles", own), _list_text, as_json=as_json)
    return 0


def show_one(options: Options, name: str, *, as_json: bool) -> int:
    """Print one profile in full; 1 where it is wrong."""

    def own() -> dict[str, Any]:
        from hal0.cli import local

        return local.profile(options, name)

    found = asked_of(options, of("profiles", name), own)
    show.found(found, _profile_text, as_json=as_json)
    return int(bool(found["error"]))


def command(options: Options, slot: str, *, as_json: bool) -> int:
    """Print a slot's command line with the origin of each part."""

    def own() -> dict[str, Any]:
        from hal0.cli import local

        return local.resolved(options, slot)

    show.found(asked(options, of("slots", slot, "resolved"), own), _command_text, as_json=as_json)
    return 0


def _list_text(found: dict[str, Any]) -> Iterator[str]:
    profiles = found["profiles"]
    rows = [
        (
            own["name"],
            own["engine"],
            own["image"] or shlex.join(own["command"]),
            own["extends"] or "",
            ", ".join(own["slots"]),
            "seed" if own["seed"] else own["at"] + " (replaces the seed)" * own["replaces_seed"],
        )
        for own in profiles
    ]
    yield from show.table(("NAME", "ENGINE", "IMAGE OR COMMAND", "EXTENDS", "SLOTS", "FROM"), rows)
    for own in profiles:
        if own["error"]:
            yield show.paint(own["error"], "31")


def _profile_text(profile: dict[str, Any]) -> Iterator[str]:
    yield f"{profile['name']}  " + ("ships with hal0" if profile["seed"] else profile["at"])
    if profile["error"]:
        yield show.paint(profile["error"], "31")
        return
    if len(profile["profiles"]) > 1:
        yield "  extends " + ", ".join(f"{one['name']} ({one['at']})" for one in profile["profiles"][1:])
    said = [row for row in profile["keys"] if row["value"] not in (None, [], "")]
    rows = [(f"{row['key']:<14} {_value(row['value'])}", _default(row["origin"])) for row in said]
    yield from _aligned([*rows, *((f"{'args':<14} {words}", origin) for words, origin in _flags(profile["args"]))])
    if profile["slots"]:
        yield "  slots: " + ", ".join(profile["slots"])


def _command_text(found: dict[str, Any]) -> Iterator[str]:
    variables = [(f"{own['name']}={shlex.quote(own['value'])}", own["origin"]["text"]) for own in found["env"]]
    yield from _aligned([*variables, *_flags(found["parts"])])


def _flags(rows: list[dict[str, Any]]) -> Iterator[tuple[str, str]]:
    """Yield the words of each part as a shell takes them, and their origin with what they replaced."""
    for row in rows:
        replaced = (f"{shlex.join(old['words'])} of {old['origin']['text']}" for old in row["replaced"])
        yield shlex.join(row["words"]), ", in the place of ".join([row["origin"]["text"], *replaced])


def _aligned(rows: list[tuple[str, str]]) -> Iterator[str]:
    width = min(_WIDEST, max((len(words) for words, _ in rows), default=0))
    for words, origin in rows:
        yield f"  {words:<{width}}  " + show.paint(origin, "90")


def _value(value: object) -> str:
    return (
        ", ".join(map(str, value))
        if isinstance(value, list)
        else f"{value:g}"
        if isinstance(value, float)
        else str(value)
    )


def _default(origin: dict[str, Any]) -> str:
    return "default" if origin["by"] == "hal0" else str(origin["text"])
