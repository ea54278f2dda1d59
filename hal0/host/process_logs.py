"""Log files of child processes: the last lines, lines as they come, and rotation by copy and truncation.

The children hold the file open for appending, so it can't be renamed away from them: it is copied, then cut.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

LIMIT = 10 * 2**20  # bytes
KEEP = 2  # rotated files
_BLOCK = 64 * 2**10
_POLL = 0.2  # seconds between two looks at a followed file

_Identity: TypeAlias = tuple[int, int] | None


class LogFile:
    """One slot's log: ``path``, and older parts as ``path.1`` and ``path.2``. ``limit`` is in bytes."""

    def __init__(self, path: Path, *, limit: int = LIMIT) -> None:
        self.path = path
        self._limit = limit

    def is_full(self) -> bool:
        """Return whether the file is over its limit: one stat, cheap enough for every observation."""
        return _size(self.path) > self._limit

    def rotate(self) -> None:
        """Move the content to ``path.1`` and cut the file, dropping the oldest part. Raises ``OSError``.

        What is written between the copy and the cut is lost: a gap in a log is better than a full disk.
        """
        with _locked(self.path, fcntl.LOCK_EX):
            for number in range(KEEP, 1, -1):
                if (newer := self._part(number - 1)).exists():
                    newer.replace(self._part(number))
            copy = self.path.with_name(f".{self.path.name}.copy")
            shutil.copy2(self.path, copy)
            copy.replace(self._part(1))
            os.truncate(self.path, 0)

    def tail(self, lines: int) -> list[str]:
        """Return the last lines, oldest first, across rotated parts; a log that is not there has none."""
        found: list[str] = []
        for path in (self.path, *(self._part(number) for number in range(1, KEEP + 1))):
            if len(found) >= lines:
                break
            found = _last_lines(path, lines - len(found)) + found
        return found

    async def follow(self, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> AsyncIterator[str]:
        """Yield the lines written from now on, for ever; a line counts when its newline is there."""
        position, part = self._end()
        rest = b""
        while True:
            data, position, part = self._news(position, part)
            *whole, rest = (rest + data).split(b"\n")
            for line in whole:
                yield _text(line)
            if not data:
                await sleep(_POLL)

    def _end(self) -> tuple[int, _Identity]:
        with _locked(self.path, fcntl.LOCK_SH):
            return _size(self.path), self._rotation()

    def _news(self, position: int, part: _Identity) -> tuple[bytes, int, _Identity]:
        """Return what came after a position, the new position, and which rotation it is a position in."""
        with _locked(self.path, fcntl.LOCK_SH):
            if (now := self._rotation()) != part:
                return _read(self._part(1), position), 0, now
            if _size(self.path) < position:  # cut by someone else
                position = 0
            data = _read(self.path, position)
            return data, position + len(data), part

    def _rotation(self) -> _Identity:
        try:
            found = self._part(1).stat()
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns

    def _part(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.name}.{number}")


@contextlib.contextmanager
def _locked(path: Path, kind: int) -> Iterator[None]:
    """Keep readers and a rotation, perhaps of two processes, from seeing each other half done."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        yield  # a slot that never ran has nothing to rotate
        return
    try:
        fcntl.flock(descriptor, kind)
        yield
    finally:
        os.close(descriptor)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _read(path: Path, position: int, size: int = -1) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(position)
            return file.read(size)
    except OSError:
        return b""


def _last_lines(path: Path, lines: int) -> list[str]:
    """Return up to ``lines`` (1 or more) last lines, reading backwards in blocks."""
    data, position = b"", _size(path)
    while position > 0 and data.count(b"\n") <= lines:
        start = max(0, position - _BLOCK)
        data = _read(path, start, position - start) + data
        position = start
    return [_text(line) for line in data.removesuffix(b"\n").split(b"\n")[-lines:]] if data else []


def _text(line: bytes) -> str:
    return line.decode(errors="replace").rstrip("\r")
