"""What happened, in the store's file: transitions, acts, applies, and the manifests' last contents.

Nothing here decides what hal0 does to a slot: without it only the past is lost.
"""

from __future__ import annotations

import gzip
import json
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import astuple, dataclass, replace
from enum import StrEnum
from typing import Any

from hal0.core.definition import digest

_KEPT = 10_000
_KEPT_APPLIES = 1_000
_KEPT_REVISIONS = 50
Files = Mapping[str, str]
"""The manifests of a root: path below it -> text."""


@dataclass(frozen=True, slots=True)
class Transition:
    """One step of a slot's life; ``at`` is in seconds since the epoch."""

    slot: str
    before: str
    after: str
    at: float


@dataclass(frozen=True, slots=True)
class Act:
    """What hal0 did to a slot and why. ``drift``: to undo what was done outside hal0. ``at``: since the epoch.

    ``rule`` is a word of ``hal0.core.why.Rule``, ``revision`` the manifests' git commit, ``request`` the id of the
    request that wanted it, ``by`` the person who applied it. Each is empty where it is not known.
    """

    slot: str
    action: str
    drift: bool
    why: str
    at: float
    rule: str = ""
    revision: str = ""
    request: str = ""
    by: str = ""


class Result(StrEnum):
    """How an apply ended."""

    CONVERGED = "converged"
    FAILED = "failed"
    ROLLED_BACK = "rolled-back"  # an atomic one, some spec of which was rejected
    SUPERSEDED = "superseded"  # other manifests came before it was done


@dataclass(frozen=True, slots=True)
class Apply:
    """One taking up of the manifests. ``at`` and ``ended`` are since the epoch; ``ended`` None: it is under way.

    ``atomic``: new specs were put on trial. ``changes`` counts the slots that were touched. ``result`` is a
    ``Result``, empty while it is under way.
    """

    id: int
    at: float
    who: str
    generation: int
    revision: str
    atomic: bool = False
    changes: int = 0
    result: str = ""
    ended: float | None = None
    summary: str = ""


@dataclass(frozen=True, slots=True)
class Revision:
    """Manifests as they were in a generation, written down at ``at`` (since the epoch); ``revision``: git's commit."""

    at: float
    generation: int
    revision: str
    files: Files


_ADD_ACT = """INSERT INTO acts (slot, action, drift, why, at, rule, revision, request, by, apply)
  VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"""
_ACTS = """SELECT slot, action, drift, why, at, rule, revision, request, by FROM acts
  WHERE slot = ? ORDER BY id DESC LIMIT ?"""
_TOUCHED = """UPDATE applies SET changes = (SELECT count(DISTINCT slot) FROM acts WHERE apply = applies.id)
  WHERE id = ?"""
_ADD_APPLY = """INSERT INTO applies (at, who, generation, revision, atomic, changes, result, ended, summary)
  VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"""
_APPLIES = "SELECT id, at, who, generation, revision, atomic, changes, result, ended, summary FROM applies "
_ADD_REVISION = "INSERT INTO revisions (at, generation, revision, digest, files) VALUES (?, ?, ?, ?, ?)"
_REVISIONS = "SELECT at, generation, revision, files FROM revisions "


class Ledger:
    """Writes down what happens, each piece of it in a transaction of the store's."""

    def __init__(self, db: sqlite3.Connection, write: Callable[[], AbstractContextManager[sqlite3.Connection]]) -> None:
        self._db = db
        self._write = write
        self._newest = next(iter(self.applies(limit=1)), None)
        self._archived = db.execute("SELECT generation, digest FROM revisions ORDER BY id DESC LIMIT 1").fetchone()

    def add_transitions(self, transitions: list[Transition]) -> None:
        """Record transitions; the oldest beyond some thousands go."""
        with self._write() as db:
            rows = [astuple(moved) for moved in transitions]
            db.executemany("INSERT INTO transitions (slot, before, after, at) VALUES (?, ?, ?, ?)", rows)
            _trim(db, "transitions", _KEPT)

    def transitions(self, slot: str, *, limit: int = 20) -> list[Transition]:
        """Return a slot's last transitions, newest first."""
        query = "SELECT slot, before, after, at FROM transitions WHERE slot = ? ORDER BY id DESC LIMIT ?"
        return [Transition(*row) for row in self._db.execute(query, (slot, limit)).fetchall()]

    def add_acts(self, acts: list[Act]) -> None:
        """Record what was done, as a part of the apply that is under way; the oldest beyond some thousands go."""
        apply = self._newest.id if self._newest and self._newest.ended is None else None
        with self._write() as db:
            db.executemany(_ADD_ACT, [(*astuple(act), apply) for act in acts])
            db.execute(_TOUCHED, (apply,))
            _trim(db, "acts", _KEPT)

    def acts(self, slot: str, *, limit: int = 20) -> list[Act]:
        """Return what was last done to a slot, newest first."""
        found = self._db.execute(_ACTS, (slot, limit)).fetchall()
        return [Act(name, action, bool(drift), *rest) for name, action, drift, *rest in found]

    @property
    def newest(self) -> Apply | None:
        """The last apply as it was begun; it is under way while ``ended`` is None."""
        return self._newest

    def open(self, apply: Apply) -> Apply:
        """Begin an apply and return it with its ``id``."""
        with self._write() as db:
            cursor = db.execute(_ADD_APPLY, astuple(apply)[1:])
            _trim(db, "applies", _KEPT_APPLIES)
        self._newest = replace(apply, id=cursor.lastrowid or 0)
        return self._newest

    def update(self, apply: Apply) -> None:
        """Write down who asked for an apply, and how it ended."""
        values = (apply.who, apply.atomic, apply.result, apply.ended, apply.summary, apply.id)
        with self._write() as db:
            db.execute(
                "UPDATE applies SET who = ?, atomic = ?, result = ?, ended = ?, summary = ? WHERE id = ?", values
            )
        self._newest = apply

    def applies(self, *, limit: int = 20) -> list[Apply]:
        """Return the last applies, newest first."""
        return self._applies("ORDER BY id DESC LIMIT ?", limit)

    def _applies(self, which: str, *values: object) -> list[Apply]:
        found = self._db.execute(_APPLIES + which, values).fetchall()
        return [_apply(row) for row in found]

    def archive(self, found: Revision) -> None:
        """Keep a content of the manifest root, unless it is the last one that was kept; the oldest go."""
        text = _text(found.files)
        mark = (found.generation, digest(text))
        if mark == self._archived:
            return
        packed = gzip.compress(text.encode(), mtime=0)
        with self._write() as db:
            db.execute(_ADD_REVISION, (found.at, found.generation, found.revision, mark[1], packed))
            _trim(db, "revisions", _KEPT_REVISIONS)
        self._archived = mark

    def latest(self) -> Revision | None:
        """Return the content of the manifest root that was kept last."""
        return next(iter(self._revisions("ORDER BY id DESC LIMIT 1")), None)

    def revision(self, generation: int) -> Revision | None:
        """Return the last content of a generation that was kept."""
        found = self._revisions("WHERE generation = ? ORDER BY id DESC LIMIT 1", generation)
        return found[0] if found else None

    def converged(self) -> list[Revision]:
        """Return every kept content of a generation whose apply converged, newest first."""
        applied = "SELECT generation FROM applies WHERE result = ?"
        return self._revisions(f"WHERE generation IN ({applied}) ORDER BY id DESC", Result.CONVERGED)

    def _revisions(self, which: str, *values: object) -> list[Revision]:
        found = self._db.execute(_REVISIONS + which, values).fetchall()
        return [_revision(row) for row in found]


def _apply(row: tuple[Any, ...]) -> Apply:
    found = Apply(*row)
    return replace(found, atomic=bool(found.atomic))


def _revision(row: tuple[Any, ...]) -> Revision:
    at, generation, revision, packed = row
    return Revision(at, generation, revision, json.loads(gzip.decompress(packed)))


def _text(files: Files) -> str:
    return json.dumps(files, sort_keys=True)


def _trim(db: sqlite3.Connection, table: str, kept: int) -> None:
    db.execute(f"DELETE FROM {table} WHERE id <= (SELECT max(id) FROM {table}) - ?", (kept,))  # noqa: S608  (names of ours)
