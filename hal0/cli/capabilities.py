"""``hal0 capability …``: by the daemon where one runs, else in this process."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

from hal0.cli import show
from hal0.cli.ask import asked_of, of, told
from hal0.cli.options import Options, who
from hal0.core.quantity import show_size

_NOT_SETTLED = 3


@dataclass(frozen=True, slots=True)
class Keys:
    """What enable and disable are told of children; none are all of them."""

    children: tuple[str, ...] = ()
    model: str | None = None
    device: str | None = None


def listed(options: Options, *, as_json: bool) -> int:
    """Print the table of capabilities."""

    def own() -> dict[str, Any]:
        from hal0.cli import local

        return local.capabilities(options)

    show.found(asked_of(options, "/api/capabilities", own), list_text, as_json=as_json)
    return 0


def enabled(options: Options, name: str, keys: Keys, *, as_json: bool) -> int:
    """Turn children on, and return the exit code: a model that is not here is no failure."""
    return _switched(options, "enable", name, keys, as_json=as_json)


def disabled(options: Options, name: str, keys: Keys, *, as_json: bool) -> int:
    """Turn children off, and return the exit code."""
    return _switched(options, "disable", name, keys, as_json=as_json)


def list_text(found: dict[str, Any]) -> Iterator[str]:
    """Yield the table of capabilities, and below it what is wrong or missing."""
    children = [(own["name"], child) for own in found["capabilities"] for child in own["children"]]
    rows = [
        (
            name,
            child["name"],
            (child["state"] or "on") if child["on"] else "off",
            child["type"],
            child["model"] + (" (not here)" if child["model_present"] is False else ""),
            "{kind} {name}".format_map(child["served_by"]) if child["served_by"] else "-",
        )
        for name, child in children
    ]
    yield from show.table(("CAPABILITY", "CHILD", "STATE", "TYPE", "MODEL", "SERVED BY"), rows)
    yield from dict.fromkeys(show.paint(child["problem"], "31") for _, child in children if child["problem"])
    for _, child in children:
        yield from _missing(child["slot"], child)


def switched_text(found: dict[str, Any]) -> Iterator[str]:
    """Yield what was written to a capability's manifest, and what comes of it."""
    name, what = found["capability"], "on" if found["act"] == "enable" else "off"
    if not found["changes"]:
        where = f": {found['file']} says so" if found["file"] else ""
        yield f"capability {name} is {what} already{where}"
    else:
        commit = f", commit {found['commit']}" if found["commit"] else ""
        changed = ", ".join(row["key"] for row in found["changes"])
        yield f"capability {name}: {changed} {what} in {found['file']}{commit}"
    yield from _device(found)
    for slot in found["slots"] if found["changes"] else ():
        yield f"  slot {slot['slot']}: takes effect {slot['effect']['message']}"
    for slot in found["slots"]:
        yield from _missing(slot["slot"], slot)
    if not found["settled"]:
        yield "not done yet: hal0 capability list"


def _device(found: dict[str, Any]) -> Iterator[str]:
    """Yield why children have the device that nobody asked for."""
    default, tables = found.get("default"), [row["after"] for row in found["changes"] if isinstance(row["after"], dict)]
    if default and any(table.get("device") == default["device"] for table in tables):
        yield f"  device {default['device']}: {default['why']}"


def _missing(slot: str, about: dict[str, Any]) -> Iterator[str]:
    """Yield what can be done about a model that is not here."""
    if about.get("model_present") is False:
        size = f" ({show_size(about['size_bytes'])})" if about["size_bytes"] else ""
        yield f"{slot}: its model is not here{size}: {about['mend']}"


def _switched(options: Options, act: str, name: str, keys: Keys, *, as_json: bool) -> int:
    body = {key: value for key, value in asdict(keys).items() if value} | {"who": who()}
    found = told(
        options,
        "POST",
        of("capabilities", name, act),
        body,
        lambda: _by_self(options, act, name, keys),
    )
    show.found(found, switched_text, as_json=as_json)
    if found["warning"]:
        show.warn(found["warning"])
    return 0 if found["settled"] else _NOT_SETTLED


def _by_self(options: Options, act: str, name: str, keys: Keys) -> dict[str, Any]:
    import asyncio

    from hal0.cli.local import acting
    from hal0.loop import capabilities

    switch = capabilities.Switch(name, **asdict(keys), who=who())
    verb = capabilities.enable if act == "enable" else capabilities.disable

    async def run() -> dict[str, Any]:
        async with acting(replace(options, limit=[*switch.names])) as reconciler:
            return await verb(reconciler, switch)

    return asyncio.run(run())
