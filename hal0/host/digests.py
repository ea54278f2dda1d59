"""The sha256 of files: computed once, and remembered for as long as size and time of change agree."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable
from pathlib import Path
from threading import Event

from hal0.errors import UsageError

SCHEMA = """
CREATE TABLE IF NOT EXISTS digests (
  path TEXT PRIMARY KEY, size INTEGER NOT NULL, modified INTEGER NOT NULL, sha256 TEXT NOT NULL) STRICT;
"""
_BLOCK = 4 << 20


class Digests:
    """In the store: what files were when they were last hashed."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def of(self, path: str, size: int, modified: int) -> str | None:
        """Return the sha256 of a file of that size and time of change (ns); None where it is not known."""
        query = "SELECT sha256 FROM digests WHERE path = ? AND size = ? AND modified = ?"
        row = self._db.execute(query, (path, size, modified)).fetchone()
        return row[0] if row else None

    def note(self, path: str, size: int, modified: int, sha256: str) -> None:
        """Record the sha256 of a file."""
        with self._db as db:
            db.execute("INSERT OR REPLACE INTO digests VALUES (?, ?, ?, ?)", (path, size, modified, sha256))

    def forget(self, path: str) -> None:
        """Drop what is known of a file."""
        with self._db as db:
            db.execute("DELETE FROM digests WHERE path = ?", (path,))


def hash_file(path: str, told: Callable[[int, int], None], stop: Event) -> tuple[int, int, str]:
    """Return size, time of change (ns) and sha256 of a file. Blocks; ``told`` gets the bytes done and those of all.

    Raises ``UsageError`` where it can't be read or changes meanwhile, and when it is to ``stop``.
    """
    try:
        with Path(path).open("rb") as file:
            before, digest, done = Path(path).stat(), hashlib.sha256(), 0
            while block := file.read(_BLOCK):
                if stop.is_set():
                    raise UsageError(f"{path}: not hashed to its end")
                digest.update(block)
                done += len(block)
                told(done, before.st_size)
        after = Path(path).stat()
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from error
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise UsageError(f"{path} changes while it is read", hint="wait until it is whole, and try again")
    return after.st_size, after.st_mtime_ns, digest.hexdigest()
