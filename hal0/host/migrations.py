"""The tables of what happened, and how a store of an older hal0 gets them. Steps only ever add.

``PRAGMA user_version`` counts the steps that a file has behind it. What decides has its tables in ``store.py``.
"""

from __future__ import annotations

import sqlite3

STEPS: tuple[tuple[str, ...], ...] = (
    (
        """CREATE TABLE IF NOT EXISTS transitions (
          id INTEGER PRIMARY KEY, slot TEXT NOT NULL, before TEXT NOT NULL, after TEXT NOT NULL,
          at REAL NOT NULL) STRICT""",
        """CREATE TABLE IF NOT EXISTS acts (
          id INTEGER PRIMARY KEY, slot TEXT NOT NULL, action TEXT NOT NULL, drift INTEGER NOT NULL, why TEXT NOT NULL,
          at REAL NOT NULL) STRICT""",
    ),
    (
        *(
            f"ALTER TABLE acts ADD COLUMN {name} TEXT NOT NULL DEFAULT ''"
            for name in ("rule", "revision", "request", "by")
        ),
        "ALTER TABLE acts ADD COLUMN apply INTEGER",
        """CREATE TABLE applies (
          id INTEGER PRIMARY KEY, at REAL NOT NULL, who TEXT NOT NULL, generation INTEGER NOT NULL,
          revision TEXT NOT NULL, atomic INTEGER NOT NULL, changes INTEGER NOT NULL DEFAULT 0,
          result TEXT NOT NULL, ended REAL, summary TEXT NOT NULL) STRICT""",
        """CREATE TABLE revisions (
          id INTEGER PRIMARY KEY, at REAL NOT NULL, generation INTEGER NOT NULL, revision TEXT NOT NULL,
          digest TEXT NOT NULL, files BLOB NOT NULL) STRICT""",
    ),
)


def migrate(db: sqlite3.Connection) -> None:
    """Bring a file up to date, one whole step at a time: a kill leaves it between two of them.

    A file of a newer hal0 has more columns than are asked for here, and is used as it is.
    """
    (done,) = db.execute("PRAGMA user_version").fetchone()
    for number, step in enumerate(STEPS[done:], start=done + 1):
        with db:
            db.execute("BEGIN IMMEDIATE")
            for statement in step:
                db.execute(statement)
            db.execute(f"PRAGMA user_version = {number}")
