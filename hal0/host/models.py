"""Model files on disk."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path

from hal0.core.facts import Fact, Known, Unknown
from hal0.core.pins import FilePin
from hal0.host.digests import Digests
from hal0.host.folder import is_folder_model


def are_files(paths: Iterable[str]) -> Fact[bool]:
    """Return whether all files of a model are there; one that is known to be missing decides."""
    found = [is_there(path) for path in paths]
    if Known(value=False) in found:
        return Known(value=False)
    return next((fact for fact in found if isinstance(fact, Unknown)), Known(value=True))


def are_right(paths: Iterable[str], pins: tuple[FilePin, ...], digests: Digests) -> Fact[bool]:
    """Return whether all files of a model are there, and none is known not to be what it is locked to.

    One that nobody has hashed is known by its size alone.
    """
    paths = tuple(paths)
    found = are_files(paths)
    if found != Known(value=True) or not pins:
        return found
    return Known(value=all(may_be(path, pin, digests) for path, pin in zip(paths, pins, strict=True)))


def may_be(path: str, pin: FilePin | None, digests: Digests) -> bool:
    """Return whether a file that is there may be the one that is locked, as far as its size and its known sum tell."""
    if pin is None:
        return True
    try:
        seen = Path(path).stat()
    except OSError:
        return True  # it can't be looked at: that is told elsewhere
    return pin.allows(seen.st_size, digests.of(path, seen.st_size, seen.st_mtime_ns))


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
