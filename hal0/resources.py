"""Files that travel with hal0: templates, units, seed manifests. Found in a checkout and in an installed wheel."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Literal

_PACKAGE = Path(__file__).parent


@cache
def folder(name: Literal["templates", "systemd"]) -> Path:
    """Return the folder of shipped files: beside the package in a checkout, inside it in a wheel."""
    inside = _PACKAGE / "_data" / name
    return inside if inside.is_dir() else _PACKAGE.parent / name


def read(name: Literal["templates", "systemd"], file: str) -> str:
    """Return the text of one shipped file."""
    return (folder(name) / file).read_text(encoding="utf-8")


def seeds() -> list[tuple[str, str]]:
    """Return (file, text) of every seed file."""
    files = sorted((_PACKAGE / "seeds").glob("*.yaml"))
    return [(f"seed:{path.name}", path.read_text(encoding="utf-8")) for path in files]
