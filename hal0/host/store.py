"""What hal0 remembers: SQLite in the state directory. Never the truth about the host, only about what was applied.

A store that is damaged is put aside and begun anew: what hal0 owns is then recognised by its marks.
"""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from urllib.parse import quote

from hal0.core.engines import is_stand_in
from hal0.core.spec import SlotSpec
from hal0.errors import HostUnreachable
from hal0.host.digests import SCHEMA as DIGESTS
from hal0.host.digests import Digests
from hal0.host.ledger import Ledger
from hal0.host.measured import SCHEMA as MEASURED
from hal0.host.measured import Measured
from hal0.host.migrations import migrate
from hal0.host.overrides import SCHEMA as OVERRIDES
from hal0.host.overrides import Overrides
from hal0.host.specs import dumped, loaded
from hal0.host.trials import SCHEMA as TRIALS
from hal0.host.trials import TrialRows

_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS inventory (slot TEXT PRIMARY KEY, spec TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS started (slot TEXT PRIMARY KEY, boot TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS deletions (slot TEXT PRIMARY KEY) STRICT;
"""
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Known:
    """The specs last applied, by engine; those of slots and of stand-ins apart, made once for all who look."""

    engines: Mapping[str, SlotSpec]

    @cached_property
    def slots(self) -> Mapping[str, SlotSpec]:
        return {key: spec for key, spec in self.engines.items() if not is_stand_in(key)}

    @cached_property
    def stand_ins(self) -> Mapping[str, SlotSpec]:
        return {key: spec for key, spec in self.engines.items() if is_stand_in(key)}


class Store:
    """Inventory (the spec last applied to each slot), generation, when changes were last applied; and the ledger.

    The inventory has the stand-ins of slots too, by their keys. ``measured`` is what slots held of memory,
    ``overrides`` what people asked of slots, ``trials`` which of their specs are good, on trial or rejected,
    ``digests`` the sha256 of models' files.
    """

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        self.path = path
        self._db = _open_read_only(path) if read_only else _open(path)
        rows = self._db.execute("SELECT slot, spec FROM inventory").fetchall()
        self._known = _Known({slot: spec for slot, text in rows if (spec := loaded(slot, text))})
        self._boot = _BOOT_ID.read_text().strip()
        running = self._db.execute("SELECT slot FROM started WHERE boot = ?", (self._boot,)).fetchall()
        self._started = frozenset(slot for (slot,) in running)
        applied = self._db.execute("SELECT value FROM meta WHERE key = 'applied'").fetchone()
        self._applied = float(applied[0]) if applied else None
        self.measured = Measured(self._db)
        self._deletions = frozenset(slot for (slot,) in self._db.execute("SELECT slot FROM deletions").fetchall())
        self.ledger = Ledger(self._db, self._write)
        self.overrides = Overrides(self._db)
        self.trials = TrialRows(self._db)
        self.digests = Digests(self._db)

    @property
    def specs(self) -> Mapping[str, SlotSpec]:
        """The spec that was last applied to each slot that hal0 owns; one that can't be read is left out."""
        return self._known.slots

    @property
    def stand_ins(self) -> Mapping[str, SlotSpec]:
        """The spec that was last applied to each stand-in, by its key: a stand-in is no slot."""
        return self._known.stand_ins

    def applied_to(self, engine: str) -> SlotSpec | None:
        """Return the spec that was last applied to an engine; None where there is none."""
        return self._known.engines.get(engine)

    def remember(self, spec: SlotSpec) -> None:
        """Record the spec that was applied to an engine."""
        with self._write() as db:
            db.execute("INSERT OR REPLACE INTO inventory VALUES (?, ?)", (spec.key, dumped(spec)))
        self._known = _Known({**self._known.engines, spec.key: spec})

    def forget(self, slot: str) -> None:
        """Drop a slot whose removal is confirmed."""
        with self._write() as db:
            db.execute("DELETE FROM inventory WHERE slot = ?", (slot,))
            db.execute("DELETE FROM started WHERE slot = ?", (slot,))
            db.execute("DELETE FROM deletions WHERE slot = ?", (slot,))
        self._started -= {slot}
        self._deletions -= {slot}
        self._known = _Known({key: spec for key, spec in self._known.engines.items() if key != slot})
        self.trials.forget(slot)

    @property
    def deletions(self) -> frozenset[str]:
        """The slots that an operator asked to remove by name, and that are not removed yet."""
        return self._deletions

    def note_deletion(self, slot: str) -> None:
        """Record that a slot is to be removed, however many others are."""
        with self._write() as db:
            db.execute("INSERT OR REPLACE INTO deletions VALUES (?)", (slot,))
        self._deletions |= {slot}

    def drop_deletions(self, slots: Collection[str]) -> None:
        """Drop the record of those that are declared again."""
        if again := self._deletions.intersection(slots):
            with self._write() as db:
                db.executemany("DELETE FROM deletions WHERE slot = ?", [(slot,) for slot in again])
            self._deletions -= again

    @property
    def started(self) -> frozenset[str]:
        """The slots that hal0 last started, in this boot of the machine, and has not stopped since."""
        return self._started

    def note_start(self, slot: str) -> None:
        """Record that hal0 started a slot, or found it running as declared."""
        if slot not in self._started:
            with self._write() as db:
                db.execute("INSERT OR REPLACE INTO started VALUES (?, ?)", (slot, self._boot))
            self._started |= {slot}

    def note_stop(self, slot: str) -> None:
        """Record that hal0 stopped a slot."""
        with self._write() as db:
            db.execute("DELETE FROM started WHERE slot = ?", (slot,))
        self._started -= {slot}

    def generation(self, content: str) -> int:
        """Return the generation of a content: the last one where it is the same, else the next."""
        rows = dict(self._db.execute("SELECT key, value FROM meta WHERE key IN ('generation', 'content')").fetchall())
        number = int(rows.get("generation", 0))
        return number if rows.get("content") == content else number + 1

    def set_generation(self, number: int, content: str) -> None:
        """Record that a content is a generation."""
        with self._write() as db:
            pairs = [("generation", str(number)), ("content", content)]
            db.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", pairs)

    @property
    def applied(self) -> float | None:
        """When changes were last carried out in full, in seconds since the epoch; None: never."""
        return self._applied

    def note_apply(self, at: float) -> None:
        """Record when changes were carried out in full, in seconds since the epoch."""
        with self._write() as db:
            db.execute("INSERT OR REPLACE INTO meta VALUES ('applied', ?)", (str(at),))
        self._applied = at

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    @contextmanager
    def _write(self) -> Iterator[sqlite3.Connection]:
        with self._db:
            yield self._db


def _open(path: Path) -> sqlite3.Connection:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        return _connect(path)
    except sqlite3.OperationalError as error:
        # Locked or a full disk: what is in it may be sound.
        raise HostUnreachable(f"can't use the store {path}: {error}") from error
    except sqlite3.DatabaseError as error:
        aside = path.with_suffix(f".corrupt-{int(time.time())}")
        path.replace(aside)
        for side in ("-wal", "-shm"):
            path.with_name(path.name + side).unlink(missing_ok=True)
        _log.warning("the store was damaged (%s): put aside as %s and begun anew", error, aside)
        return _connect(path)


def _connect(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, timeout=5.0, check_same_thread=False)
    try:
        _prepare(db)
    except sqlite3.Error:
        db.close()
        raise
    return db


def _prepare(db: sqlite3.Connection) -> None:
    # WAL with NORMAL survives a kill -9 at any point, and costs no disk wait on the loop.
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL"):
        db.execute(f"PRAGMA {pragma}")
    if db.execute("PRAGMA quick_check").fetchone()[0] != "ok":
        raise sqlite3.DatabaseError("quick_check failed")
    _make_tables(db)


def _make_tables(db: sqlite3.Connection) -> None:
    db.executescript(_SCHEMA + MEASURED + OVERRIDES + TRIALS + DIGESTS)
    migrate(db)


def _open_read_only(path: Path) -> sqlite3.Connection:
    """Return a copy in memory: what a view derives is written there and is gone with it."""
    copy = sqlite3.connect(":memory:", check_same_thread=False)
    if path.exists():
        try:
            with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, timeout=5.0)) as db:
                db.backup(copy)
        except sqlite3.DatabaseError as error:
            _log.warning("the store can't be read (%s): what was applied before is not known", error)
    _make_tables(copy)
    return copy
