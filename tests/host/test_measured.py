from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hal0.host.measured import SCHEMA, Measured
from hal0.host.store import Store


@pytest.fixture
def db() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:")) as made:
        made.executescript(SCHEMA)
        yield made


def test_of_a_run_the_most_counts(db: sqlite3.Connection) -> None:
    measured = Measured(db)
    assert measured.of("k") is None
    for held in (5, 9, 7):
        measured.note("k", "run", held)
    measured.note("other", "run", 100)
    assert measured.of("k") == 9


@given(st.lists(st.tuples(st.sampled_from("abcdefgh"), st.integers(1, 1000)), min_size=1, max_size=20))
def test_the_most_of_the_last_five_runs_counts_here_and_in_the_file(notes: list[tuple[str, int]]) -> None:
    with closing(sqlite3.connect(":memory:")) as db:
        db.executescript(SCHEMA)
        measured, runs = Measured(db), dict[str, int]()
        for run, held in notes:
            measured.note("k", run, held)
            runs[run] = max(held, runs.get(run, 0))
            runs = dict(list(runs.items())[-5:])
        assert measured.of("k") == Measured(db).of("k") == max(runs.values())


def test_it_is_in_the_store_and_a_store_of_before_gets_it(tmp_path: Path) -> None:
    path = tmp_path / "hal0.db"
    with closing(Store(path)) as store:
        store._db.execute("DROP TABLE measured")
    with closing(Store(path)) as store:
        store.measured.note("k", "run", 7)
    with closing(Store(path, read_only=True)) as copy:
        assert copy.measured.of("k") == 7
        copy.measured.note("k", "next", 9)
    with closing(Store(path)) as store:
        assert store.measured.of("k") == 7
