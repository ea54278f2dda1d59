"""The history of applies: who had which manifests taken up, what came of it, and the manifests themselves.

Each pass may begin a row or end one, by what it sees alone. So a row that a killed hal0 left is ended by the next.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from hal0.core.ending import Ending, ending
from hal0.core.spec import Desired
from hal0.core.status import Snapshot
from hal0.core.wire import VERSION, Json
from hal0.host.ledger import Apply, Ledger, Result, Revision
from hal0.host.ports import Clock

BY_ITSELF = "manifests"
"""Who is named where hal0 took changed files up by itself."""


@dataclass(frozen=True, slots=True)
class Asked:
    """Who asked for an apply, and what is to be said of it besides. ``atomic``: specs have to prove themselves."""

    who: str
    note: str = ""
    atomic: bool = False


@dataclass
class History:
    """Begins and ends the rows of applies."""

    ledger: Ledger
    clock: Clock
    _kept: tuple[int, Mapping[str, str]] | None = field(default=None, repr=False)

    def archive(self, desired: Desired, texts: Mapping[str, str]) -> None:
        """Keep the manifests' texts, if they are sound: a generation can be gone back to."""
        if not desired.problems and self._kept != (desired.generation, texts):
            self.ledger.archive(Revision(self.clock.wall(), desired.generation, desired.revision, texts))
            self._kept = (desired.generation, texts)

    def begin(self, asked: Asked, desired: Desired) -> None:
        """Begin a row for an act of a person; the row of files that hal0 saw before the command came becomes theirs."""
        row = self._under_way()
        if row and (row.generation, row.who) == (desired.generation, BY_ITSELF):
            self.ledger.update(replace(row, who=asked.who, summary=asked.note, atomic=asked.atomic))
        else:
            self._begin(asked, desired.generation, desired.revision)

    def note(self, snapshot: Snapshot, limit: frozenset[str] | None) -> None:
        """Begin a row for a generation that nobody asked for, and end the one under way where all is settled."""
        if self.ledger.newest is None or self.ledger.newest.generation != snapshot.generation:
            self._begin(Asked(BY_ITSELF), snapshot.generation, snapshot.revision)
        row = self._under_way()
        if row and (found := ending(snapshot, limit)):
            self._end(row, _result(row, found), found.summary)

    @property
    def by(self) -> str:
        """Who asked for the apply that is under way; empty where nobody did."""
        row = self._under_way()
        return row.who if row and row.who != BY_ITSELF else ""

    def _begin(self, asked: Asked, generation: int, revision: str) -> None:
        if row := self._under_way():
            self._end(row, Result.SUPERSEDED, "")
        row = Apply(0, self.clock.wall(), asked.who, generation, revision, asked.atomic, summary=asked.note)
        self.ledger.open(row)

    def _end(self, row: Apply, result: Result, summary: str) -> None:
        told = "; ".join(filter(None, (row.summary, summary)))
        self.ledger.update(replace(row, result=result, ended=self.clock.wall(), summary=told))

    def _under_way(self) -> Apply | None:
        row = self.ledger.newest
        return row if row and row.ended is None else None


def _result(row: Apply, found: Ending) -> Result:
    if found.converged:
        return Result.CONVERGED
    is_its_own = row.atomic and found.rejected is not None and found.rejected >= row.at
    return Result.ROLLED_BACK if is_its_own else Result.FAILED


def history_json(ledger: Ledger, *, limit: int) -> Json:
    """Return the last applies, newest first."""
    return {"version": VERSION, "applies": [_apply_json(apply) for apply in ledger.applies(limit=limit)]}


def _apply_json(apply: Apply) -> Json:
    return {
        "id": apply.id,
        "at": apply.at,
        "who": apply.who,
        "generation": apply.generation,
        "revision": apply.revision,
        "atomic": apply.atomic,
        "changes": apply.changes,
        "result": apply.result,
        "seconds": None if apply.ended is None else round(max(0.0, apply.ended - apply.at), 3),
        "summary": apply.summary,
    }
