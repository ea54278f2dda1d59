"""``hal0 slot create``, ``edit`` and ``delete``: by the daemon where one runs, else in this process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from hal0.cli import show
from hal0.cli.ask import of, told
from hal0.cli.options import Options, who
from hal0.errors import UsageError

_NOT_SETTLED = 3


@dataclass(frozen=True, slots=True)
class SlotOptions:
    """What create and edit are told, in the manifest's words. None: not said."""

    model: str | None = None
    device: str | None = None
    port: int | None = None
    context_size: int | None = None
    profile: str | None = None
    type: str | None = None
    run: str | None = None

    def given(self) -> dict[str, str | int | None]:
        """Return what was said; empty or 0 is null, which takes a key out."""
        said = {name: getattr(self, name) for name in self.__slots__}
        return {name: value or None for name, value in said.items() if value is not None}


def create(options: Options, name: str, keys: SlotOptions, *, as_json: bool) -> int:
    """Write a new slot's manifest, and return the exit code."""
    body = {"name": name, **keys.given(), "who": who()}
    return _told(options, "POST", "/api/slots", body, name, as_json=as_json)


def edit(options: Options, name: str, keys: SlotOptions, *, as_json: bool) -> int:
    """Change a slot's manifest, and return the exit code."""
    if not keys.given():
        raise UsageError(
            "nothing is to be changed",
            hint="give at least one of --model, --port, --ctx-size, --provider, --hardware",
        )
    return _told(options, "PATCH", of("slots", name), {**keys.given(), "who": who()}, name, as_json=as_json)


def delete(options: Options, name: str, *, force: bool, as_json: bool) -> int:
    """Remove a slot and its manifest, and return the exit code."""
    if not force and not _confirmed(name):
        raise UsageError(f"slot {name!r} stays: nothing was changed", hint="--force does not ask")
    return _told(options, "DELETE", of("slots", name), {"who": who()}, name, as_json=as_json)


def _confirmed(name: str) -> bool:
    from typer import confirm

    return confirm(f"Stop and remove slot {name!r}, and take it out of its manifest?", err=True)


def _told(options: Options, method: str, path: str, body: dict[str, Any], name: str, *, as_json: bool) -> int:
    found = told(options, method, path, body, lambda: _by_self(options, method, body, name))
    show.found(found, show.authored_text, as_json=as_json)
    if found["warning"]:
        show.warn(found["warning"])
    return 0 if found["settled"] else _NOT_SETTLED


def _by_self(options: Options, method: str, body: Mapping[str, Any], name: str) -> dict[str, Any]:
    import asyncio

    from hal0.cli.local import acting
    from hal0.loop import authoring

    keys = {key: value for key, value in body.items() if key not in {"name", "who"}}

    async def run() -> dict[str, Any]:
        async with acting(replace(options, limit=[name])) as reconciler:
            if method == "POST":
                said = {key: value for key, value in keys.items() if value is not None}
                return await authoring.create(reconciler, name, said, who=body["who"])
            if method == "PATCH":
                return await authoring.edit(reconciler, name, keys, who=body["who"])
            return await authoring.delete(reconciler, name, who=body["who"])

    return asyncio.run(run())
