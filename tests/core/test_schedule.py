from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds import MODEL, desired

from hal0.core.schedule import Demand, Verdict, next_deadline, placement

MANIFESTS = MODEL + "".join(
    f"---\nkind: Slot\nname: {name}\nmodel: m\nrun: {run}\nidle_timeout: {idle}\n"
    for name, run, idle in [("a", "always", 10), ("n", "never", 10), ("d", "on-demand", 10), ("e", "on-demand", 20)]
)
WANTED = desired(MANIFESTS)
NEVER = Verdict(up=False, why="run: never", barred=True)
NAMES = ["a", "n", "d", "e", "gone"]
# Whole seconds: at a deadline itself, fractions may be rounded to either side.
demand = st.builds(
    Demand,
    last_used=st.integers(0, 50),
    serving=st.integers(0, 1),
    waiting=st.integers(0, 1),
    keep=st.none() | st.integers(0, 30),
)
demands = st.dictionaries(st.sampled_from(NAMES), demand, max_size=5)


def up(demand: dict[str, Demand], now: float) -> set[str]:
    return {name for name, verdict in placement(WANTED, demand, now).items() if verdict.up}


@pytest.mark.parametrize(
    ("name", "demand", "verdict"),
    [
        ("a", None, Verdict(up=True, why="run: always")),
        ("n", None, NEVER),
        ("n", Demand(100.0, 3), NEVER),
        ("d", None, Verdict(up=False, why="on demand: no request wants it")),
        ("d", Demand(100.0), Verdict(up=True, why="on demand: used 0.0s ago")),
        ("d", Demand(91.0), Verdict(up=True, why="on demand: used 9.0s ago")),
        ("d", Demand(90.0), Verdict(up=False, why="on demand: no request wants it")),
        ("d", Demand(0.0, 2), Verdict(up=True, why="on demand: 2 requests in flight")),
        ("d", Demand(0.0, waiting=1), Verdict(up=True, why="on demand: 1 requests in flight")),
        ("d", Demand(0.0, 2, 1, keep=0.0), Verdict(up=True, why="on demand: 3 requests in flight")),
        ("d", Demand(60.0, keep=41.0), Verdict(up=True, why="on demand: used 40s ago")),
        ("d", Demand(60.0, keep=40.0), Verdict(up=False, why="on demand: no request wants it")),
        ("d", Demand(99.0, keep=1.0), Verdict(up=False, why="on demand: no request wants it")),
        ("d", Demand(100.0, keep=0.0), Verdict(up=False, why="on demand: no request wants it")),
        ("n", Demand(100.0, 1, 1, keep=60.0), NEVER),
        ("a", Demand(0.0, keep=0.0), Verdict(up=True, why="run: always")),
    ],
)
def test_the_run_policy_and_the_demand_decide(name: str, demand: Demand | None, verdict: Verdict) -> None:
    assert placement(WANTED, {name: demand} if demand else {}, 100.0)[name] == verdict


@settings(deadline=None)
@given(demands, st.integers(0, 100))
def test_every_desired_slot_has_a_verdict_and_no_other(demand: dict[str, Demand], now: int) -> None:
    assert set(placement(WANTED, demand, now)) == set(WANTED.slots)


@settings(deadline=None)
@given(demands, st.integers(0, 100))
def test_verdicts_change_by_time_at_the_next_deadline_and_not_before(demand: dict[str, Demand], now: int) -> None:
    deadline = next_deadline(WANTED, demand, now)
    last = int(deadline) if deadline is not None else now + 1000
    assert all(up(demand, moment) == up(demand, now) for moment in range(now, last))
    assert deadline is None or up(demand, deadline) < up(demand, now)


@pytest.mark.parametrize(
    ("demand", "deadline"),
    [
        ({}, None),
        ({"d": Demand(95.0)}, 105.0),
        ({"d": Demand(95.0), "e": Demand(92.0)}, 105.0),
        ({"d": Demand(95.0, 1), "e": Demand(92.0)}, 112.0),
        ({"d": Demand(95.0, waiting=1), "e": Demand(92.0)}, 112.0),
        ({"d": Demand(95.0, keep=60.0), "e": Demand(92.0)}, 112.0),
        ({"d": Demand(95.0, keep=6.0), "e": Demand(92.0, keep=60.0)}, 101.0),
        ({"d": Demand(95.0, keep=0.0)}, None),
        ({"d": Demand(50.0)}, None),
        ({"a": Demand(95.0), "n": Demand(95.0), "gone": Demand(95.0)}, None),
    ],
)
def test_the_next_deadline_is_that_of_the_first_idle_slot(demand: dict[str, Demand], deadline: float | None) -> None:
    assert next_deadline(WANTED, demand, 100.0) == deadline


@settings(deadline=None)
@given(demand, st.integers(0, 30), st.integers(0, 100))
def test_to_keep_a_slot_for_longer_never_stops_it_earlier(use: Demand, more: int, now: int) -> None:
    longer = replace(use, keep=(10 if use.keep is None else use.keep) + more)
    assert up({"d": use}, now) <= up({"d": longer}, now)
    assert longer.idle_at(WANTED.slots["d"].spec) == use.idle_at(WANTED.slots["d"].spec) + more


@settings(deadline=None)
@given(demand, st.integers(0, 100))
def test_a_request_that_has_no_answer_yet_keeps_its_slot_up_wherever_it_is(use: Demand, now: int) -> None:
    assert use.in_flight == use.serving + use.waiting
    assert not use.in_flight or "d" in up({"d": use}, now)
