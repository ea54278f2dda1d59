from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from fakes import FakeClock

from hal0.core.state import SlotState, way
from hal0.host.ledger import Transition
from hal0.host.store import Store
from hal0.loop.loads import Loads

OFFLINE, PULLING, STARTING, WARMING = SlotState.OFFLINE, SlotState.PULLING, SlotState.STARTING, SlotState.WARMING
READY, IDLE, ERROR = SlotState.READY, SlotState.IDLE, SlotState.ERROR


class Life:
    """A slot that moves as a publisher tells it: each step is noted, then recorded."""

    def __init__(self, store: Store, name: str = "chat") -> None:
        self.store, self.name, self.clock = store, name, FakeClock()
        self.loads = Loads(store)
        self.state = OFFLINE

    def to(self, end: SlotState, *, after: float = 0.0) -> list[float]:
        """Return the loads that the way to a state completed, ``after`` seconds."""
        self.clock.forward(after)
        done, moved = [], []
        for step in way(self.state, end):
            done.append(self.loads.note(self.name, self.state, step, self.clock.now()))
            moved.append(Transition(self.name, self.state, step, self.clock.wall()))
            self.state = step
        self.store.ledger.add_transitions(moved)
        return [seconds for seconds in done if seconds is not None]

    def load(self, seconds: float) -> list[float]:
        """Return what a load of so many seconds is measured as."""
        self.to(OFFLINE)
        self.to(STARTING, after=100.0)
        self.to(WARMING, after=seconds / 2)
        return self.to(READY, after=seconds / 2)

    def restart(self) -> None:
        """Begin anew, as after a reboot: on another monotonic clock, with the store as it is."""
        self.loads = Loads(self.store)
        self.clock.time = 5.0


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with closing(Store(tmp_path / "hal0.db")) as made:
        yield made


@pytest.fixture
def life(store: Store) -> Life:
    return Life(store)


def test_a_load_is_measured_where_it_ends(life: Life) -> None:
    assert life.to(STARTING) == []
    assert life.to(WARMING, after=2.0) == []
    assert life.to(READY, after=6.0) == [8.0]
    assert life.to(IDLE, after=60.0) == []
    assert life.loads.of("chat") == (8.0,)


def test_loads_add_up_oldest_first_and_the_last_twenty_are_kept(life: Life) -> None:
    for seconds in range(2, 32):
        assert life.load(float(seconds)) == [float(seconds)]
    assert life.loads.of("chat") == tuple(map(float, range(12, 32)))


def test_slots_are_apart(store: Store) -> None:
    chat, code = Life(store), Life(store, "code")
    code.loads = chat.loads
    chat.to(STARTING)
    code.to(STARTING, after=1.0)
    assert (chat.to(READY, after=4.0), code.to(READY, after=7.0)) == ([4.0], [7.0])
    assert (chat.loads.of("chat"), chat.loads.of("code"), chat.loads.of("none")) == ((4.0,), (7.0,), ())


def test_a_load_that_fails_or_pulls_is_not_kept(life: Life) -> None:
    life.to(STARTING)
    assert life.to(ERROR, after=3.0) == []
    assert life.loads.started("chat") is None
    life.to(PULLING, after=1.0)
    life.to(STARTING, after=600.0)
    assert life.to(READY, after=8.0) == []
    assert life.loads.of("chat") == ()


def test_a_slot_that_was_ready_before_anyone_looked_tells_nothing(life: Life) -> None:
    assert life.to(READY, after=60.0) == []
    life.restart()
    assert life.loads.of("chat") == ()


def test_what_is_left_of_a_load(life: Life) -> None:
    life.load(20.0)
    assert life.loads.expected("chat", life.clock.now()) == 20.0
    life.to(OFFLINE)
    life.to(STARTING)
    began = life.clock.now()
    life.to(WARMING, after=5.0)
    assert life.loads.started("chat") == began
    assert life.loads.elapsed("chat", life.clock.now()) == 5.0
    assert life.loads.expected("chat", life.clock.now()) == 15.0


def test_a_slot_that_is_not_loading_has_not_begun(life: Life) -> None:
    life.load(20.0)
    assert life.loads.started("chat") is None
    assert life.loads.elapsed("chat", life.clock.now() + 50.0) == 0.0


def test_after_a_pull_the_load_is_expected_to_take_as_long_as_others(life: Life) -> None:
    life.load(20.0)
    life.to(ERROR)
    life.to(PULLING)
    life.to(STARTING, after=600.0)
    assert life.loads.elapsed("chat", life.clock.now()) == 0.0
    assert life.loads.expected("chat", life.clock.now()) == 20.0


def test_history_survives_a_restart(life: Life) -> None:
    for seconds in (10.0, 20.0, 30.0):
        life.load(seconds)
    life.restart()
    assert life.loads.of("chat") == pytest.approx((10.0, 20.0, 30.0))
    assert life.loads.expected("chat", life.clock.now()) == pytest.approx(20.0)
    life.load(40.0)
    assert life.loads.of("chat") == pytest.approx((10.0, 20.0, 30.0, 40.0))


def test_the_step_that_reads_the_history_is_not_counted_twice(life: Life) -> None:
    life.load(10.0)
    life.restart()
    assert life.load(20.0) == [20.0]
    assert life.loads.of("chat") == pytest.approx((10.0, 20.0))


def test_a_load_that_a_restart_cuts_in_two_mixes_no_clocks(life: Life) -> None:
    life.load(20.0)
    life.to(OFFLINE)
    life.to(STARTING)
    life.restart()
    assert life.loads.started("chat") is None
    life.to(WARMING, after=5.0)
    assert life.loads.started("chat") == life.clock.now()
    assert life.to(READY, after=3.0) == []
    assert life.loads.of("chat") == pytest.approx((20.0,))


def test_a_busy_idle_slot_does_not_push_its_loads_out_of_the_history(life: Life) -> None:
    life.load(10.0)
    for _ in range(100):
        life.to(IDLE, after=60.0)
        life.to(READY, after=1.0)
    life.restart()
    assert life.loads.of("chat") == pytest.approx((10.0,))
