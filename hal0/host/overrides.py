"""What people asked of slots, as the store keeps it: a row for each slot and aspect."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterable

from hal0.core.override import Aspect, Override

SCHEMA = """
CREATE TABLE IF NOT EXISTS overrides (
  slot TEXT NOT NULL, aspect TEXT NOT NULL, value TEXT NOT NULL, who TEXT NOT NULL, at REAL NOT NULL, until REAL,
  PRIMARY KEY (slot, aspect)) STRICT;
"""
_KNOWN = frozenset(Aspect)
_log = logging.getLogger(__name__)


class Overrides:
    """The overrides of a store. One whose aspect is not known, of a later hal0, is left out and left in place."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._rows = self._read()

    @property
    def rows(self) -> tuple[Override, ...]:
        """All of them, by slot."""
        return self._rows

    def change(self, put: Iterable[Override] = (), drop: Iterable[tuple[str, Aspect]] = ()) -> None:
        """Keep some, each in the place of the one with its key, and drop others: all of it or nothing."""
        rows = [(own.slot, own.aspect.value, own.value, own.who, own.at, own.until) for own in put]
        gone = [(slot, aspect.value) for slot, aspect in drop]
        if not (rows or gone):
            return
        with self._db as db:
            db.executemany("DELETE FROM overrides WHERE slot = ? AND aspect = ?", gone)
            db.executemany("INSERT OR REPLACE INTO overrides VALUES (?, ?, ?, ?, ?, ?)", rows)
        self._rows = self._read()

    def _read(self) -> tuple[Override, ...]:
        query = "SELECT slot, aspect, value, who, at, until FROM overrides ORDER BY slot, aspect"
        found = []
        for slot, aspect, *rest in self._db.execute(query).fetchall():
            if aspect in _KNOWN:
                found.append(Override(slot, Aspect(aspect), *rest))
            else:
                _log.warning("the override %s of slot %s is of a later hal0: left as it is", aspect, slot)
        return tuple(found)
