"""Model files on disk."""

from __future__ import annotations

import stat
from collections.abc import Iterable
from pathlib import Path

from hal0.core.facts import Fact, Known, Unknown


def are_files(paths: Iterable[str]) -> Fact[bool]:
    """Return whether all files of a model are there; one that is known to be missing decides."""
    found = [is_file(path) for path in paths]
    if Known(value=False) in found:
        return Known(value=False)
    return next((fact for fact in found if isinstance(fact, Unknown)), Known(value=True))


def is_file(path: str) -> Fact[bool]:
    """Return whether a model's file is there; unknown where its folder can't be looked into."""
    try:
        return Known(stat.S_ISREG(Path(path).stat().st_mode))
    except (FileNotFoundError, NotADirectoryError):
        return Known(value=False)
    except OSError as error:
        return Unknown(f"{path}: {error.strerror}")
