from __future__ import annotations

import asyncio

import pytest
from fakes import FakeClock

from hal0.core.facts import Known
from hal0.core.observed import Activity, Observed, Service, SlotObservation, unobserved
from hal0.core.steps import Action, Change, Reason, Step, StepKind
from hal0.loop.counts import Counts, Restart, Result

OUTSIDE = Reason("image", "a", "b", drift=True)
DECLARED = Reason("context_size", "512", "2048")
STOP, WRITE, RELOAD, START = (
    Step(StepKind.STOP, "chat"),
    Step(StepKind.WRITE, "chat", "text"),
    Step(StepKind.RELOAD),
    Step(StepKind.START, "chat"),
)


def seen(restarts: int | None) -> Observed:
    """Return a host on which the service manager has restarted a slot so often; None: it has not loaded its unit."""
    service = None if restarts is None else Service(Activity.ACTIVE, restarts=restarts)
    return Observed({"chat": SlotObservation(Known(None), Known(service), Known(None), Known(None))})


UNSEEN = Observed({"chat": unobserved("the bus is gone")})


@pytest.mark.parametrize(
    ("looks", "count"),
    [
        ([seen(4)], 0),
        ([seen(4), seen(4), seen(6)], 2),
        ([seen(None), seen(3)], 3),
        ([UNSEEN, seen(4), seen(5)], 1),
        ([seen(4), UNSEEN, seen(5)], 1),
        ([seen(4), seen(0), seen(1)], 1),
        ([seen(0), seen(4), seen(2)], 6),
        ([seen(0), seen(4), seen(None), seen(2)], 6),
    ],
)
def test_what_the_service_manager_restarts_adds_up(looks: list[Observed], count: int) -> None:
    counts = Counts()
    for look in looks:
        counts.look(look)
    assert counts.restarts["chat", Restart.CRASH] == count


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (Change("chat", Action.RESTART, (OUTSIDE,), (STOP, START)), Restart.DRIFT),
        (Change("chat", Action.UPDATE, (OUTSIDE,), (STOP, WRITE, RELOAD, START)), Restart.DRIFT),
        (Change("chat", Action.UPDATE, (DECLARED, OUTSIDE), (STOP, WRITE, RELOAD, START)), Restart.UPDATE),
        (Change("chat", Action.UPDATE, (DECLARED,), (WRITE, RELOAD, START)), Restart.UPDATE),
        (Change("chat", Action.RESTART, (Reason("service", "failed", "running"),), (START,)), Restart.FAILED),
    ],
)
def test_a_restart_by_hal0_has_one_reason(change: Change, reason: Restart) -> None:
    counts = Counts()
    counts.restarted(change)
    assert counts.restarts == {("chat", reason): 1}


def test_a_pass_that_is_cancelled_is_none() -> None:
    counts, clock = Counts(), FakeClock()
    with pytest.raises(asyncio.CancelledError), counts.timed(clock):
        raise asyncio.CancelledError
    assert (counts.passes, sum(counts.durations.counts)) == ({}, 0)


def test_a_pass_that_breaks_is_timed_too() -> None:
    counts, clock = Counts(), FakeClock()

    def fill_the_disk() -> None:
        clock.forward(3)
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="the disk is full"), counts.timed(clock):
        fill_the_disk()
    assert counts.passes == {Result.ERROR: 1}
    assert counts.durations.total == 3
