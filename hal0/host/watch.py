"""Changes of files, settled: a git checkout is a burst, and comes as one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path

from watchfiles import awatch
from watchfiles.main import FileChange

_SETTLED_MS = 100
_LONGEST_MS = 2000
_ABSENT = 2.0


async def settled_changes(folder: Path, wanted: Callable[[Path], bool]) -> AsyncIterator[frozenset[Path]]:
    """Yield the paths that changed below a folder, once they have been quiet for a moment.

    A folder that is not there yet, or is replaced, is watched as soon as it is there (and that is a change).
    """
    while True:
        with suppress(FileNotFoundError, OSError):
            async for burst in _bursts(folder, wanted):
                yield frozenset(Path(path) for _, path in burst)
                if _is_gone(folder):
                    break
        while _is_gone(folder):  # noqa: ASYNC110  (nothing tells when a folder that is not there appears)
            await asyncio.sleep(_ABSENT)
        yield frozenset({folder})


def _bursts(folder: Path, wanted: Callable[[Path], bool]) -> AsyncIterator[set[FileChange]]:
    return awatch(
        folder,
        watch_filter=lambda _, path: wanted(Path(path)),
        step=_SETTLED_MS,
        debounce=_LONGEST_MS,
        raise_interrupt=False,
    )


def _is_gone(folder: Path) -> bool:
    return not folder.exists()
