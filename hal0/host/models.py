"""Model files on disk."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path

from hal0.core.facts import Fact, Known, Unknown
from hal0.host.folder import is_folder_model


def are_files(paths: Iterable[str]) -> Fact[bool]:
    """Return whether all files of a model are there; one that is known to be missing decides."""
    found = [is_there(path) for path in paths]
    if Known(value=False) in found:
        return Known(value=False)
    return next((fact for fact in found if isinstance(fact, Unknown)), Known(value=True))


def is_there(path: str) -> Fact[bool]:
    """Return whether a model's file or folder is there; unknown where it can't be looked at."""
    try:
        return Known(stat.S_ISREG((seen := Path(path).stat()).st_mode) or _is_folder(path, seen))
    except (FileNotFoundError, NotADirectoryError):
        return Known(value=False)
    except OSError as error:
        return Unknown(f"{path}: {error.strerror}")


def _is_folder(path: str, seen: os.stat_result) -> bool:
    return stat.S_ISDIR(seen.st_mode) and is_folder_model(Path(path))
