"""How much memory slots really held, as the store keeps it: the last runs of each claim."""

from __future__ import annotations

import sqlite3

SCHEMA = """
CREATE TABLE IF NOT EXISTS measured (
  id INTEGER PRIMARY KEY, claim TEXT NOT NULL, run TEXT NOT NULL, bytes INTEGER NOT NULL, UNIQUE (claim, run)) STRICT;
"""
_RUNS = 5
_KEPT = 10_000


class Measured:
    """The most bytes that each of the last runs of a claim held. A claim goes by its key (``claim_key``)."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._most: dict[str, int] = dict(
            db.execute("SELECT claim, max(bytes) FROM measured GROUP BY claim").fetchall()
        )

    def of(self, claim: str) -> int | None:
        """Return the most that the last five runs of a claim held; None where there was none."""
        return self._most.get(claim)

    def note(self, claim: str, run: str, held: int) -> None:
        """Record what a run held; of what is recorded of one run the most counts."""
        with self._db as db:
            db.execute(
                "INSERT INTO measured (claim, run, bytes) VALUES (?, ?, ?)"
                " ON CONFLICT (claim, run) DO UPDATE SET bytes = max(bytes, excluded.bytes)",
                (claim, run, held),
            )
            db.execute(
                "DELETE FROM measured WHERE claim = ?1"
                " AND id NOT IN (SELECT id FROM measured WHERE claim = ?1 ORDER BY id DESC LIMIT ?2)",
                (claim, _RUNS),
            )
            db.execute("DELETE FROM measured WHERE id <= (SELECT max(id) FROM measured) - ?", (_KEPT,))
        row = self._db.execute("SELECT max(bytes) FROM measured WHERE claim = ?", (claim,)).fetchone()
        self._most[claim] = row[0]
