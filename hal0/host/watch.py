"""Changes of files, settled: a git checkout is a burst, and comes as one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path

from watchfiles import awatch
from watchfiles.main import FileChange

_SETTLED_MS = 200
_LONGEST_MS = 2000
_IDENTITY_MS = 2000
_ABSENT = 2.0


async def settled_changes(folder: Path, wanted: Callable[[Path], bool]) -> AsyncIterator[frozenset[Path]]:
    """Yield the paths that changed below a folder, once they have been quiet for a moment.

    A folder that is not there yet, or is replaced, is watched as soon as it is there (and that is a change). A single
    file is watched likewise: editors replace it.
    """
    while True:
        watched = _identity(folder)
        with suppress(OSError):  # where nothing can be watched (too many watches), it is a poll
            async for burst in _bursts(folder, wanted):
                paths = frozenset(Path(path) for _, path in burst)
                if paths:
                    yield paths
                if folder in paths or _identity(folder) != watched:
                    break
            watched = None
        if watched is not None:
            await asyncio.sleep(_ABSENT)
        while _identity(folder) is None:  # noqa: ASYNC110  (nothing tells when a folder that is not there appears)
            await asyncio.sleep(_ABSENT)
        yield frozenset({folder})


def _bursts(folder: Path, wanted: Callable[[Path], bool]) -> AsyncIterator[set[FileChange]]:
    return awatch(
        folder,
        watch_filter=lambda _, path: Path(path) == folder or wanted(Path(path)),
        step=_SETTLED_MS,
        debounce=_LONGEST_MS,
        rust_timeout=_IDENTITY_MS,
        yield_on_timeout=True,
    )


def _identity(folder: Path) -> tuple[int, int] | None:
    """Return what tells a folder from another one of its name; None where there is none."""
    try:
        found = folder.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
