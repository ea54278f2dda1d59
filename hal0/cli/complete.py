"""What a shell completes: names that the daemon knows. Where it does not answer at once, nothing is completed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import typer

_PROGRAM = "hal0"
_PATIENCE = 0.3
"""Seconds: somebody waits with a finger on the Tab key."""


def slots(context: typer.Context, incomplete: str) -> Iterator[tuple[str, str]]:
    """Yield the slots whose names begin so, each with its state and model."""
    for slot in _told(context, "/api/slots", "slots"):
        if slot["name"].startswith(incomplete):
            yield slot["name"], f"{slot['state']}, {slot['model']}"


def upstreams(context: typer.Context, incomplete: str) -> Iterator[tuple[str, str]]:
    """Yield the upstreams whose names begin so, each with its address."""
    for upstream in _told(context, "/api/upstreams", "upstreams"):
        if upstream["name"].startswith(incomplete):
            yield upstream["name"], upstream["base_url"]


def _told(context: typer.Context, path: str, key: str) -> list[dict[str, Any]]:
    from hal0.cli import client
    from hal0.errors import Hal0Error

    try:
        found: list[dict[str, Any]] = client.get(context.params.get("scope"), path, timeout=_PATIENCE)[key]
    except (Hal0Error, ValueError, LookupError, TypeError):  # no daemon, or an answer that is not its own
        return []
    return found


def script(shell: str) -> str:
    """Return the script that has bash, zsh or fish ask hal0 what may come next."""
    from typer._completion_shared import get_completion_script

    return get_completion_script(prog_name=_PROGRAM, complete_var=f"_{_PROGRAM.upper()}_COMPLETE", shell=shell)
