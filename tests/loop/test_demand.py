"""What requests want of slots, where they are, and the doors of engines."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from fakes import FakeClock
from hypothesis import given
from hypothesis import strategies as st

from hal0.core.engines import slot_of
from hal0.core.schedule import Demand
from hal0.host.ports import USE
from hal0.loop.demand import Demands
from hal0.loop.queue import WorkQueue

OWN, BESIDE, OTHER = "chat", "chat.next", "code"
LONG = 3600.0


@pytest.fixture
def demands() -> Demands:
    return Demands(WorkQueue(), FakeClock())


def looked(demands: Demands) -> frozenset[str]:
    """Return what is to be looked at, and forget it."""
    return demands.queue.take(demands.clock.now() + LONG)


def test_requests_at_both_engines_of_a_slot_are_its_demand_and_each_engine_has_its_own(demands: Demands) -> None:
    demands.enter(OWN)
    demands.begin(OWN, is_up=True)
    demands.serve(BESIDE)
    demands.begin(OWN, is_up=True)
    assert demands.all == {OWN: Demand(1000.0, serving=2, waiting=1, beside=1, since=1000.0)}
    assert [demands.serving(engine) for engine in (OWN, BESIDE, OTHER)] == [1, 1, 0]
    assert [demands.all[OWN].at(engine) for engine in (OWN, BESIDE)] == [1, 1]


async def test_an_engine_is_drained_while_requests_go_to_the_other(demands: Demands) -> None:
    demands.enter(OWN)
    draining = asyncio.create_task(demands.drain(OWN, LONG))
    await asyncio.sleep(0)
    for _ in range(3):
        demands.enter(BESIDE)
    demands.end(OWN, served=True)
    await asyncio.wait_for(draining, 10)
    assert demands.serving(BESIDE) == 3


async def test_a_drain_waits_for_the_last_request_and_no_longer_than_its_patience(demands: Demands) -> None:
    demands.enter(OWN)
    demands.enter(OWN)
    draining = asyncio.create_task(demands.drain(OWN, LONG))
    await asyncio.sleep(0)
    demands.end(OWN, served=True)
    await asyncio.sleep(0)
    assert not draining.done()
    demands.end(OWN, served=True)
    await asyncio.wait_for(draining, 10)
    await demands.drain(BESIDE, LONG)  # nobody was ever there
    demands.enter(OWN)
    await demands.drain(OWN, 0.001)
    assert demands.serving(OWN) == 1


def test_the_door_of_an_engine_is_its_own(demands: Demands) -> None:
    demands.close([OWN])
    assert (demands.is_open(OWN), demands.is_open(BESIDE)) == (False, True)
    demands.reopen([OWN, BESIDE])
    assert demands.is_open(OWN)


@pytest.mark.parametrize("others", ["wait", "are at the other engine"])
def test_the_last_request_at_a_closed_engine_is_told_of_while_others_want_the_slot(
    demands: Demands, others: str
) -> None:
    demands.enter(OWN)
    demands.enter(OWN)
    demands.close([OWN])
    if others == "wait":
        demands.begin(OWN, is_up=False)
    else:
        demands.enter(BESIDE)
    looked(demands)
    demands.end(OWN, served=True)
    assert not looked(demands)
    demands.end(OWN, served=True)
    assert looked(demands) == {USE}


def test_the_last_request_at_an_open_engine_is_not_told_of_while_others_want_the_slot(demands: Demands) -> None:
    demands.enter(OWN)
    demands.begin(OWN, is_up=True)
    looked(demands)
    demands.end(OWN, served=True)
    assert not looked(demands)
    demands.end(OWN, served=False)
    assert looked(demands) == {USE}


def test_an_engine_that_did_not_listen_is_closed_and_looked_at_and_its_request_waits(demands: Demands) -> None:
    demands.enter(BESIDE)
    looked(demands)
    demands.hold(BESIDE)
    assert (demands.is_open(BESIDE), demands.is_open(OWN)) == (False, True)
    assert looked(demands) == {BESIDE}
    assert demands.all == {OWN: Demand(1000.0, waiting=1, since=1000.0)}


@pytest.mark.parametrize("waits", [True, False])
def test_the_first_request_at_a_slots_engines_is_seen_soon(demands: Demands, waits: bool) -> None:
    if waits:
        demands.begin(OWN, is_up=True)
        looked(demands)
    demands.enter(OWN)
    assert looked(demands) == {USE}
    demands.enter(BESIDE)
    assert not looked(demands)


@given(st.lists(st.tuples(st.sampled_from([OWN, BESIDE, OTHER]), st.integers(0, 5)), max_size=60))
def test_counts_follow_requests_wherever_they_go(moves: list[tuple[str, int]]) -> None:
    demands, at, waiting = Demands(WorkQueue(), FakeClock()), Counter[str](), Counter[str]()
    for engine, move in moves:
        _moved(demands, engine, move, at, waiting)
    for slot, use in demands.all.items():
        assert use.serving == sum(count for engine, count in at.items() if slot_of(engine) == slot)
        assert use.waiting == demands.waiting(slot) == waiting[slot]
    assert {engine: demands.serving(engine) for engine in at} == dict(at)


def _moved(demands: Demands, engine: str, move: int, at: Counter[str], waiting: Counter[str]) -> None:
    """Have a request come to an engine or its slot, or one that is there go on, come back or end."""
    slot = slot_of(engine)
    if move == 0:
        demands.enter(engine)
        at[engine] += 1
    elif move == 1:
        demands.begin(slot, is_up=True)
        waiting[slot] += 1
    elif move == 2 and waiting[slot]:
        demands.serve(engine)
        at[engine] += 1
        waiting[slot] -= 1
    elif move == 3 and at[engine]:
        demands.hold(engine)
        at[engine] -= 1
        waiting[slot] += 1
    elif move == 4 and at[engine]:
        demands.end(engine, served=True)
        at[engine] -= 1
    elif move == 5 and waiting[slot]:
        demands.end(slot, served=False)
        waiting[slot] -= 1
