"""Models that are folders, as vLLM takes them: a configuration, and weights beside it."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from hal0.core.catalog import PART, FoundFile
from hal0.host.part import is_at

CONFIG = "config.json"
WEIGHTS = ".safetensors"
_MOST = 10_000  # files of a folder


def is_folder_model(path: Path) -> bool:
    """Return whether a folder holds a model: its configuration and its weights. Raises ``OSError``."""
    with os.scandir(path) as entries:
        names = [entry.name for entry in entries]
    return CONFIG in names and any(name.endswith(WEIGHTS) for name in names)


def files_in(path: Path) -> list[Path]:
    """Return the files of a folder and of those below it, its configuration first. Raises ``OSError``."""
    found = [each for each in _walk(path) if each.is_file()]
    return sorted(found[:_MOST], key=lambda each: (each != path / CONFIG, each))


def as_one(path: Path) -> FoundFile | None:
    """Return a model's folder as if it were one file; None where it is none. Half a one (``PART``) may be anything."""
    with suppress(OSError):
        if path.name.endswith(PART) or is_folder_model(path):
            seen = [each.stat() for each in files_in(path)]
            return FoundFile(
                str(path), sum(each.st_size for each in seen), max((each.st_mtime_ns for each in seen), default=0)
            )
    return None


def remove(path: Path) -> int:
    """Remove a folder with all that is in it, and return how large that was. Raises ``OSError``."""
    size = sum(each.stat().st_size for each in files_in(path))
    shutil.rmtree(path)
    return size


@contextmanager
def held(half: Path, wait: Callable[[], None]) -> Iterator[None]:
    """Hold a half folder, alone on this host. While another process fills it, ``wait`` is called: it may raise.

    One that is empty at the end is removed. Raises ``OSError``.
    """
    while True:
        descriptor = _opened(half)
        if descriptor is None:
            continue
        try:
            if _is_locked(descriptor) and is_at(descriptor, half):
                try:
                    yield
                finally:
                    with suppress(OSError):  # it is not empty, or in place by now
                        half.rmdir()
                return
        finally:
            os.close(descriptor)
        wait()


def _opened(half: Path) -> int | None:
    """Open a half folder, which is made where there is none; None where its holder put it in place just then."""
    try:
        half.mkdir(parents=True, exist_ok=True)
        return os.open(half, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except FileExistsError:
        if half.exists() and not half.is_dir():
            raise
        return None


def discard(half: Path, wait: Callable[[], None]) -> int:
    """Remove a half folder once nobody fills it, and return how large it was; ``wait`` is as ``held`` has it."""
    with held(half, wait):
        return remove(half)


def _is_locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _walk(path: Path) -> Iterator[Path]:
    for folder, _, names in os.walk(path):
        yield from (Path(folder) / name for name in names)
