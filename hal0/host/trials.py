"""The last good spec of each slot, open trials, and specs that were rejected, as the store keeps them."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping

from hal0.core.spec import SlotSpec
from hal0.core.trial import Rejection, Trial
from hal0.host.specs import dumped, loaded

SCHEMA = """
CREATE TABLE IF NOT EXISTS good (slot TEXT PRIMARY KEY, spec TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS trials (
  slot TEXT PRIMARY KEY, spec_hash TEXT NOT NULL, who TEXT NOT NULL, began REAL NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS rejections (
  id INTEGER PRIMARY KEY, slot TEXT NOT NULL, spec_hash TEXT NOT NULL, why TEXT NOT NULL, at REAL NOT NULL,
  UNIQUE (slot, spec_hash)) STRICT;
"""
_KEPT = 20
"""Rejections of a slot."""


class TrialRows:
    """What decides which specs are tried, taken back to, and not tried again. Each change is all or nothing."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        rows = db.execute("SELECT slot, spec FROM good").fetchall()
        self._good = {slot: spec for slot, text in rows if (spec := loaded(slot, text))}
        self._read()

    @property
    def good(self) -> Mapping[str, SlotSpec]:
        """The spec with which each slot was last ready; one that can't be read is left out."""
        return self._good

    @property
    def open(self) -> Mapping[str, Trial]:
        """The trials that are open, by slot."""
        return self._open

    @property
    def rejections(self) -> Mapping[tuple[str, str], Rejection]:
        """The specs that were rejected, by slot and hash."""
        return self._rejections

    def begin(self, trials: Iterable[Trial]) -> None:
        """Open trials, each in the place of the slot's last one. A spec that was rejected gets another chance."""
        rows = [(trial.slot, trial.spec_hash, trial.who, trial.began) for trial in trials]
        with self._db as db:
            db.executemany("INSERT OR REPLACE INTO trials VALUES (?, ?, ?, ?)", rows)
            db.executemany("DELETE FROM rejections WHERE slot = ? AND spec_hash = ?", [row[:2] for row in rows])
        self._read()

    def note_good(self, spec: SlotSpec) -> None:
        """Record that a slot is good with a spec, and end its trial."""
        if self._good.get(spec.name) == spec and spec.name not in self._open:
            return
        with self._db as db:
            db.execute("INSERT OR REPLACE INTO good VALUES (?, ?)", (spec.name, dumped(spec)))
            db.execute("DELETE FROM trials WHERE slot = ?", (spec.name,))
        self._good = {**self._good, spec.name: spec}
        self._read()

    def drop(self, slot: str) -> None:
        """End a slot's trial without a judgement."""
        with self._db as db:
            db.execute("DELETE FROM trials WHERE slot = ?", (slot,))
        self._read()

    def reject(self, found: Rejection) -> None:
        """End a slot's trial with a rejection; the slot's oldest ones go."""
        row = (found.slot, found.spec_hash, found.why, found.at)
        newest = "SELECT id FROM rejections WHERE slot = ?1 ORDER BY id DESC LIMIT ?2"
        with self._db as db:
            db.execute("DELETE FROM trials WHERE slot = ?", (found.slot,))
            db.execute("INSERT OR REPLACE INTO rejections (slot, spec_hash, why, at) VALUES (?, ?, ?, ?)", row)
            db.execute(f"DELETE FROM rejections WHERE slot = ?1 AND id NOT IN ({newest})", (found.slot, _KEPT))  # noqa: S608  (a text of ours)
        self._read()

    def forget(self, slot: str) -> None:
        """Drop all that is known of a slot that is gone."""
        with self._db as db:
            for table in ("good", "trials", "rejections"):
                db.execute(f"DELETE FROM {table} WHERE slot = ?", (slot,))  # noqa: S608  (names of ours)
        self._good = {name: spec for name, spec in self._good.items() if name != slot}
        self._read()

    def _read(self) -> None:
        trials = self._db.execute("SELECT slot, spec_hash, who, began FROM trials ORDER BY slot").fetchall()
        rejected = self._db.execute("SELECT slot, spec_hash, why, at FROM rejections ORDER BY id").fetchall()
        self._open = {row[0]: Trial(*row) for row in trials}
        self._rejections = {row[:2]: Rejection(*row) for row in rejected}
