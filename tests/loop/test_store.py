from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from worlds import desired, slots

from hal0.core.trial import Rejection, Trial
from hal0.host.ledger import Act, Apply, Revision, Transition
from hal0.host.store import Store

SPECS = {
    name: slot.spec
    for name, slot in desired(
        slots("a", "b", env="{KEY: 'va\"lue'}", defaults="{temperature: 0.7, stop: [x]}", limits="{memory: 1Gi}")
    ).slots.items()
}
WRITER = """
import sys
from pathlib import Path
from hal0.host.ledger import Transition
from hal0.host.store import Store

store = Store(Path(sys.argv[1]))
count = 0
while True:
    store.ledger.add_transitions([Transition("a", str(count), str(part), float(count)) for part in range(50)])
    count += 1
    print(count, flush=True)
"""
HISTORIAN = """
import sys
from dataclasses import replace
from pathlib import Path
from hal0.host.ledger import Act, Apply, Revision
from hal0.host.store import Store

ledger = Store(Path(sys.argv[1])).ledger
count = ledger.newest.generation if ledger.newest else 0
while True:
    count += 1
    ledger.archive(Revision(0.0, count, "abc", {"chat.toml": f"# {count}" * 1000}))
    row = ledger.open(Apply(0, 0.0, "eve", count, "abc"))
    ledger.add_acts([Act(slot, "update", False, "why", 0.0) for slot in ("a", "b", "a")])
    ledger.update(replace(row, result="converged", ended=1.0))
    print(count, flush=True)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "hal0.db"


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    with closing(Store(path)) as made:
        yield made


def again(store: Store) -> Store:
    """Open the same file anew."""
    store.close()
    return Store(store.path)


def test_specs_come_back_as_they_were(store: Store) -> None:
    for spec in SPECS.values():
        store.remember(spec)
    with closing(again(store)) as found:
        assert found.specs == SPECS


def test_the_last_spec_of_a_slot_is_the_one_that_is_remembered(store: Store) -> None:
    store.remember(SPECS["a"])
    other = desired(slots("a", context_size=9)).slots["a"].spec
    store.remember(other)
    assert store.specs == {"a": other}
    with closing(again(store)) as found:
        assert found.specs == {"a": other}


def test_what_is_forgotten_is_gone(store: Store) -> None:
    for spec in SPECS.values():
        store.remember(spec)
    store.forget("a")
    store.forget("a")
    assert set(store.specs) == {"b"}
    with closing(again(store)) as found:
        assert set(found.specs) == {"b"}


def test_deletions_are_remembered_until_the_slot_is_gone_or_declared_again(store: Store) -> None:
    for name in ("a", "b", "c", "a"):
        store.note_deletion(name)
    store.forget("a")
    store.drop_deletions({"b", "other"})
    assert store.deletions == {"c"}
    with closing(again(store)) as found:
        assert found.deletions == {"c"}


def test_specs_that_were_handed_out_do_not_change(store: Store) -> None:
    before = store.specs
    store.remember(SPECS["a"])
    assert before == {}


def test_a_new_content_is_a_new_generation_and_the_same_one_is_not(store: Store) -> None:
    assert store.generation("x") == 1
    store.set_generation(1, "x")
    assert (store.generation("x"), store.generation("y")) == (1, 2)
    store.set_generation(2, "y")
    with closing(again(store)) as found:
        assert (found.generation("y"), found.generation("x")) == (2, 3)


def test_transitions_come_newest_first_and_for_one_slot(store: Store) -> None:
    store.ledger.add_transitions([Transition("a", "offline", "starting", 1.0), Transition("b", "x", "y", 1.0)])
    store.ledger.add_transitions([Transition("a", "starting", "warming", 2.0)])
    with closing(again(store)) as found:
        assert found.ledger.transitions("a") == [
            Transition("a", "starting", "warming", 2.0),
            Transition("a", "offline", "starting", 1.0),
        ]
        assert len(found.ledger.transitions("a", limit=1)) == 1


def test_transitions_do_not_grow_for_ever(store: Store) -> None:
    for _ in range(11):
        store.ledger.add_transitions([Transition("a", "x", "y", 0.0)] * 1000)
    assert len(store.ledger.transitions("a", limit=100_000)) == 10_000


def test_acts_come_newest_first(store: Store) -> None:
    acts = [Act("a", "create", drift=False, why="absent", at=1.0), Act("a", "restart", drift=True, why="gone", at=2.0)]
    store.ledger.add_acts(acts)
    with closing(again(store)) as found:
        assert found.ledger.acts("a") == acts[::-1]


def test_a_spec_of_an_unknown_shape_is_left_out_with_a_warning(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    for spec in SPECS.values():
        store.remember(spec)
    with closing(sqlite3.connect(store.path)) as db, db:
        db.execute("UPDATE inventory SET spec = '{\"name\": 1}' WHERE slot = 'a'")
    with closing(again(store)) as found:
        assert set(found.specs) == {"b"}
    assert "the stored spec of a can't be read" in caplog.text


@pytest.mark.parametrize("damage", [b"not a database at all" * 100, b"SQLite format 3\0" + b"\xff" * 4096])
def test_a_damaged_file_is_put_aside_and_begun_anew(
    path: Path, damage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    path.parent.mkdir()
    path.write_bytes(damage)
    with closing(Store(path)) as store:
        assert store.specs == {}
        store.remember(SPECS["a"])
    assert [found.read_bytes() for found in path.parent.glob("*.corrupt-*")] == [damage]
    assert "the store was damaged" in caplog.text
    with closing(Store(path)) as found:
        assert set(found.specs) == {"a"}


def test_a_page_that_rotted_is_noticed(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    store.ledger.add_transitions([Transition("a", "x" * 500, "y", 0.0)] * 1000)
    store.close()
    damaged = bytearray(store.path.read_bytes())
    damaged[8192 : len(damaged) // 2] = b"\xff" * (len(damaged) // 2 - 8192)
    store.path.write_bytes(damaged)
    with closing(Store(store.path)) as found:
        assert found.ledger.transitions("a") == []
    assert "the store was damaged" in caplog.text


def test_a_read_only_store_writes_nothing(store: Store) -> None:
    store.remember(SPECS["a"])
    store.close()
    before = store.path.read_bytes()
    with closing(Store(store.path, read_only=True)) as copy:
        assert set(copy.specs) == {"a"}
        copy.forget("a")
        copy.set_generation(7, "x")
        copy.ledger.add_transitions([Transition("a", "x", "y", 0.0)])
        assert copy.specs == {}
    assert store.path.read_bytes() == before


def test_a_read_only_store_reads_beside_a_writer(store: Store) -> None:
    store.remember(SPECS["a"])
    with closing(Store(store.path, read_only=True)) as copy:
        assert set(copy.specs) == {"a"}
    store.remember(SPECS["b"])


def test_a_read_only_store_of_nothing_is_empty_and_makes_nothing(path: Path) -> None:
    with closing(Store(path, read_only=True)) as copy:
        assert copy.specs == {}
    assert not path.parent.exists()


def test_a_damaged_file_is_left_where_it_is_by_a_reader(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path.parent.mkdir()
    path.write_bytes(b"not a database at all" * 100)
    with closing(Store(path, read_only=True)) as copy:
        assert copy.specs == {}
    assert [file.name for file in path.parent.iterdir()] == ["hal0.db"]
    assert "the store can't be read" in caplog.text


def test_a_writer_that_is_killed_loses_nothing_that_it_had_recorded_and_halves_nothing(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    words = [sys.executable, "-c", WRITER, str(path)]
    for round_ in range(3):
        with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout
            told = [int(writer.stdout.readline()) for _ in range(20 + 7 * round_)]
            writer.send_signal(signal.SIGKILL)
            told += [int(line) for line in writer.stdout.read().split()]
        with closing(Store(path)) as found:
            rows = found.ledger.transitions("a", limit=1_000_000)
        newest = [row for row in rows if row.at == rows[0].at]
        assert len(newest) % 50 == 0
        assert rows[0].at >= told[-1] - 1
    assert "damaged" not in caplog.text


def test_a_historian_that_is_killed_leaves_at_most_one_apply_open_and_each_with_all_it_touched(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for round_ in range(3):
        with subprocess.Popen(
            [sys.executable, "-c", HISTORIAN, str(path)], stdout=subprocess.PIPE, text=True
        ) as writer:
            assert writer.stdout
            told = [int(writer.stdout.readline()) for _ in range(5 + 11 * round_)]
            writer.send_signal(signal.SIGKILL)
            told += [int(line) for line in writer.stdout.read().split()]
        with closing(Store(path)) as found:
            rows = found.ledger.applies(limit=10_000)
            done = {row.generation for row in rows if row.ended is not None}
            assert {row.changes for row in rows if row.ended is not None} == {2}
            assert len(rows) - len(done) <= round_ + 1
            assert set(told) <= done
            kept = found.ledger.revision(told[-1])
            assert kept is not None
            assert kept.files == {"chat.toml": f"# {told[-1]}" * 1000}
    assert "damaged" not in caplog.text


OLDER = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE inventory (slot TEXT PRIMARY KEY, spec TEXT NOT NULL) STRICT;
CREATE TABLE started (slot TEXT PRIMARY KEY, boot TEXT NOT NULL) STRICT;
CREATE TABLE transitions (
  id INTEGER PRIMARY KEY, slot TEXT NOT NULL, before TEXT NOT NULL, after TEXT NOT NULL, at REAL NOT NULL) STRICT;
CREATE TABLE acts (
  id INTEGER PRIMARY KEY, slot TEXT NOT NULL, action TEXT NOT NULL, drift INTEGER NOT NULL, why TEXT NOT NULL,
  at REAL NOT NULL) STRICT;
INSERT INTO acts VALUES (1, 'a', 'create', 0, 'absent', 1.0);
INSERT INTO transitions VALUES (1, 'a', 'offline', 'starting', 1.0);
"""


@pytest.mark.parametrize("read_only", [True, False])
def test_the_file_of_an_older_hal0_gets_what_it_lacks_and_keeps_what_it_has(path: Path, *, read_only: bool) -> None:
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as db, db:
        db.executescript(OLDER)
    for _ in range(2):
        with closing(Store(path, read_only=read_only)) as store:
            assert store.ledger.acts("a") == [Act("a", "create", drift=False, why="absent", at=1.0)]
            assert store.ledger.transitions("a") == [Transition("a", "offline", "starting", 1.0)]
            assert store.ledger.applies() == []
            assert store.ledger.converged() == []


def test_the_file_of_a_newer_hal0_is_used_as_it_is(store: Store) -> None:
    store.ledger.open(Apply(0, 1.0, "eve", 1, "abc"))
    with closing(sqlite3.connect(store.path)) as db, db:
        db.execute("ALTER TABLE applies ADD COLUMN more TEXT")
        db.execute("PRAGMA user_version = 99")
    with closing(again(store)) as found:
        found.ledger.open(Apply(0, 2.0, "bob", 2, "abc"))
        assert [row.who for row in found.ledger.applies()] == ["bob", "eve"]


def test_the_archive_keeps_the_last_fifty_contents(store: Store) -> None:
    for number in range(60):
        store.ledger.archive(Revision(0.0, number, "abc", {"a.toml": str(number)}))
    with closing(again(store)) as found:
        assert found.ledger.revision(9) is None
        assert found.ledger.revision(10) == Revision(0.0, 10, "abc", {"a.toml": "10"})
        assert found.ledger.latest() == Revision(0.0, 59, "abc", {"a.toml": "59"})


def test_the_last_apply_is_remembered(store: Store) -> None:
    assert store.applied is None
    for at in (1_700_000_000.25, 1_700_000_060.5):
        store.note_apply(at)
        assert store.applied == at
    with closing(again(store)) as found:
        assert found.applied == 1_700_000_060.5


# Trials.


def test_what_decides_of_trials_comes_back_as_it_was(store: Store) -> None:
    store.trials.note_good(SPECS["a"])
    store.trials.begin([Trial("a", "h1", "eve", 1.0), Trial("b", "h2", "eve", 1.0)])
    store.trials.reject(Rejection("b", "h2", "it crashed", 2.0))
    with closing(again(store)) as found:
        assert found.trials.good == {"a": SPECS["a"]}
        assert found.trials.open == {"a": Trial("a", "h1", "eve", 1.0)}
        assert found.trials.rejections == {("b", "h2"): Rejection("b", "h2", "it crashed", 2.0)}


def test_a_spec_on_trial_is_not_rejected_and_a_good_one_not_on_trial(store: Store) -> None:
    store.trials.reject(Rejection("a", "h1", "it crashed", 1.0))
    store.trials.begin([Trial("a", "h1", "eve", 2.0)])
    assert store.trials.rejections == {}
    store.trials.note_good(SPECS["a"])
    with closing(again(store)) as found:
        assert (found.trials.open, found.trials.rejections) == ({}, {})


def test_a_slot_keeps_its_last_twenty_rejections_and_others_theirs(store: Store) -> None:
    store.trials.reject(Rejection("b", "h", "it crashed", 0.0))
    for number in range(30):
        store.trials.reject(Rejection("a", f"h{number}", "it crashed", 1.0))
    kept = [f"h{number}" for number in range(10, 30)]
    with closing(again(store)) as found:
        assert [spec_hash for slot, spec_hash in found.trials.rejections if slot == "a"] == kept
        assert ("b", "h") in found.trials.rejections


def test_nothing_of_trials_is_left_of_a_slot_that_is_gone(store: Store) -> None:
    store.remember(SPECS["a"])
    store.trials.note_good(SPECS["a"])
    store.trials.begin([Trial("a", "h1", "eve", 1.0)])
    store.trials.reject(Rejection("a", "h2", "it crashed", 1.0))
    store.forget("a")
    assert (store.trials.good, store.trials.open, store.trials.rejections) == ({}, {}, {})
    with closing(again(store)) as found:
        assert (found.trials.good, found.trials.open, found.trials.rejections) == ({}, {}, {})
