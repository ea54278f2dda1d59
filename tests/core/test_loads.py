from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hal0.core.loads import Move, expected, load_times, retry_after
from hal0.core.state import SlotState, way

LOADED = {"ready", "serving", "idle"}
seconds = st.floats(0, 1e9)
histories = st.lists(seconds, max_size=8)
states = st.sampled_from([*SlotState, "hibernating"])
anything = st.lists(st.builds(Move, states, states, st.floats(allow_nan=False)), max_size=30)


def life(text: str) -> list[Move]:
    """Return the moves of a life that is written as ``0 offline 1 starting``: since when it was in each state."""
    words = text.split()
    stays = list(zip(words[::2], words[1::2], strict=True))
    return [Move(before, after, float(at)) for (_, before), (at, after) in pairwise(stays)]


@pytest.mark.parametrize(
    ("text", "times"),
    [
        ("", []),
        ("0 offline 1 starting 3 warming 9 ready", [8]),
        ("0 error 1 starting 3 warming 9 ready", [8]),
        ("0 unloading 1 starting 9 serving", [8]),
        ("0 offline 1 warming 9 idle", [8]),
        ("0 hibernating 1 starting 9 ready", [8]),
        ("0 offline 1 starting 9 ready 20 unloading 21 offline 30 starting 35 warming 42 ready", [8, 12]),
        ("0 offline 1 starting 9 ready 20 error 30 starting 35 warming 42 ready", [8, 12]),
        ("0 offline 1 starting 9 error 20 starting 26 ready", [6]),
        ("0 offline 1 starting 9 unloading 10 offline 20 starting 26 ready", [6]),
        ("0 offline 1 starting 9 offline 20 serving", []),
        ("0 offline 1 pulling 9 starting 10 warming 20 ready", []),
        ("0 offline 1 pulling 9 ready", []),
        ("0 offline 1 pulling 9 error 10 starting 20 ready", [10]),
        ("0 offline 1 starting 2 pulling 5 starting 20 ready", []),
        ("0 starting 1 warming 9 ready", []),
        ("0 warming 9 ready", []),
        ("0 offline 1 ready", []),
        ("0 offline 9 starting 9 warming 9.001 ready", []),
        ("0 offline 9 starting 8 ready", []),
        ("0 offline 1 starting 90000 ready", []),
    ],
)
def test_a_load_goes_from_rest_to_where_requests_are_sent(text: str, times: list[float]) -> None:
    assert load_times(life(text)) == tuple(times)


def test_a_gap_in_the_record_makes_no_load_longer() -> None:
    begins = Move("offline", "starting", 1.0)
    assert load_times([begins, Move("idle", "serving", 50.0)]) == ()
    assert load_times([begins, begins._replace(at=50.0), Move("starting", "ready", 54.0)]) == (4.0,)


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from(SlotState), st.integers(1, 100)), max_size=10))
def test_a_legal_life_has_a_load_for_each_way_up_that_was_seen_and_pulled_nothing(
    looks: list[tuple[SlotState, int]],
) -> None:
    moves, state, now = [], SlotState.OFFLINE, 0.0
    for seen, later in looks:
        now += later
        for step in way(state, seen):
            moves.append(Move(state, step, now))
            state = step
    assert list(load_times(moves)) == list(told(moves))


def told(moves: list[Move]) -> list[float]:
    """Return the load times as the words say: look back from each end of a load."""
    times = []
    for end, move in enumerate(moves):
        if move.after in LOADED and move.before not in LOADED:
            first = end
            while moves[first].before in {"starting", "warming"} and first:
                first -= 1
            took = move.at - moves[first].at
            if first < end and moves[first].before in {"offline", "error", "unloading"} and took:
                times.append(took)
    return times


@settings(deadline=None)
@given(anything)
def test_any_record_can_be_read_and_no_time_is_beyond_belief(moves: list[Move]) -> None:
    assert all(0 < time <= 3600 for time in load_times(moves))


@settings(deadline=None)
@given(anything, st.integers(-1000, 1000))
def test_only_durations_count(moves: list[Move], offset: int) -> None:
    whole = [move._replace(at=float(number)) for number, move in enumerate(moves)]
    assert load_times([move._replace(at=move.at + offset) for move in whole]) == load_times(whole)


@pytest.mark.parametrize(
    ("times", "elapsed", "left"),
    [
        ([20.0], 0.0, 20.0),
        ([20.0], 5.0, 15.0),
        ([20.0], -5.0, 20.0),
        ([20.0], 19.5, 1.0),
        ([20.0], 20.0, 2.0),
        ([20.0], 300.0, 30.0),
        ([0.2], 0.0, 1.0),
        ([10.0, 20.0], 0.0, 15.0),
        ([900.0, 10.0, 20.0, 30.0, 40.0, 500.0], 0.0, 30.0),
        ([], 0.0, 10.0),
        ([], 20.0, 10.0),
        ([], 60.0, 30.0),
    ],
)
def test_the_median_of_the_last_loads_tells_how_long_it_will_go_on(
    times: list[float], elapsed: float, left: float
) -> None:
    assert expected(times, elapsed) == left


@settings(deadline=None)
@given(histories, st.floats(allow_nan=False))
def test_there_is_always_an_answer(times: list[float], elapsed: float) -> None:
    assert expected(times, elapsed) >= 1
    assert isinstance(retry_after(times, elapsed), int)
    assert 1 <= retry_after(times, elapsed) <= 60


@settings(deadline=None)
@given(histories, seconds)
def test_a_client_that_asks_again_as_told_comes_after_the_load_is_expected_to_end_or_in_a_minute(
    times: list[float], elapsed: float
) -> None:
    assert retry_after(times, elapsed) >= min(60, expected(times, elapsed))


@settings(deadline=None)
@given(histories, seconds, seconds)
def test_an_overdue_load_is_guessed_to_go_on_ever_longer(times: list[float], one: float, other: float) -> None:
    overdue = max(times, default=0.0)
    sooner, later = sorted([overdue + one, overdue + other])
    assert expected(times, sooner) <= expected(times, later)


@settings(deadline=None)
@given(st.lists(seconds, min_size=1), seconds)
def test_what_is_left_is_within_what_loads_took(times: list[float], elapsed: float) -> None:
    assert expected(times, elapsed) <= max(1.0, *times, elapsed)
