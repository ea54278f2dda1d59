"""Files that are written whole or not at all: beside their place, then moved there."""

from __future__ import annotations

import os
import tempfile
from itertools import count
from pathlib import Path


def replace(path: Path, text: str, *, mode: int = 0o600) -> None:
    """Write a file whole: temporary file, fsync, rename, fsync of the folder. Raises ``OSError``.

    The temporary file is hidden, and may be read by its owner alone until it has ``mode``.
    """
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    sync(path.parent)


def put_aside(path: Path) -> None:
    """Rename a file to ``NAME.bak``, or ``NAME.bak2`` and so on where that is taken. None there is no error.

    Raises ``OSError``.
    """
    names = (path.with_name(f"{path.name}.bak{number if number > 1 else ''}") for number in count(1))
    if os.path.lexists(path):
        path.rename(next(name for name in names if not os.path.lexists(name)))
        sync(path.parent)


def sync(folder: Path) -> None:
    """Have a folder's names on the disk. Raises ``OSError``."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
