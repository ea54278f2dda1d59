from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from fakes import FakeClock, FakeFetcher, FakeRuntime
from scenes import calm
from worlds import desired, slots

from hal0.core.steps import Action, Change, Plan, Step, StepKind
from hal0.errors import HostUnreachable, StepFailed
from hal0.host.store import Store
from hal0.loop.act import Actor, Halt
from hal0.loop.demand import Demands
from hal0.loop.news import Feed, Outcome, StepNews
from hal0.loop.queue import WorkQueue
from hal0.loop.transfers import Transfers

SPECS = {name: slot.spec for name, slot in desired(slots("a", "b", "c")).slots.items()}
TEXTS = {name: slot.body for name, slot in desired(slots("a", "b", "c")).slots.items()}
FRESH = (StepKind.WRITE, StepKind.RELOAD, StepKind.RESET_FAILED, StepKind.START)


@dataclass
class Bench:
    runtime: FakeRuntime
    store: Store
    feed: Feed

    async def act(self, **steps: tuple[StepKind, ...]) -> dict[str, Halt]:
        """Run some steps of some slots."""
        transfers = Transfers(self.runtime, FakeFetcher(), FakeClock(), self.feed, self.store.digests, lambda _: None)
        demands = Demands(WorkQueue(), FakeClock())
        found = await Actor(self.runtime, self.store, transfers, demands, self.feed).act(planned(**steps), SPECS)
        await transfers.close()
        return found


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    store = Store(tmp_path / "hal0.db")
    yield Bench(FakeRuntime(), store, Feed())
    store.close()


def planned(**steps: tuple[StepKind, ...]) -> Plan:
    return Plan(
        tuple(
            Change(name, Action.UPDATE, (), tuple(step(kind, name) for kind in kinds)) for name, kinds in steps.items()
        )
    )


def step(kind: StepKind, name: str) -> Step:
    if kind is StepKind.RELOAD:
        return Step(kind)
    return Step(kind, name, {StepKind.WRITE: TEXTS[name], StepKind.PULL: "image:1"}.get(kind, ""))


async def test_steps_of_one_kind_run_for_all_slots_before_those_of_the_next(bench: Bench) -> None:
    halted = await bench.act(a=(StepKind.STOP, *FRESH), b=FRESH)
    assert halted == {}
    assert bench.runtime.calls == [
        *("stop a", "write a", "write b", "reload", "reset_failed a", "reset_failed b", "start a", "start b"),
    ]


async def test_steps_of_one_kind_run_at_once(bench: Bench) -> None:
    bench.runtime.stops = asyncio.Event()
    acting = asyncio.create_task(bench.act(a=(StepKind.STOP,), b=(StepKind.STOP,)))
    await calm()
    assert bench.runtime.calls == ["stop a", "stop b"]
    bench.runtime.stops.set()
    assert await acting == {}


@pytest.mark.parametrize("fault", [StepFailed("no", hint="do this"), HostUnreachable("no", hint="do this")])
async def test_a_failing_step_halts_only_its_slot(bench: Bench, fault: Exception) -> None:
    bench.runtime.faults["write a"] = fault
    halted = await bench.act(a=FRESH, b=FRESH)
    assert halted == {"a": Halt(waits=False, message="no do this")}
    assert [call for call in bench.runtime.calls if call.endswith(" a")] == ["write a"]
    assert bench.runtime.host.starts == {"b": 1}


async def test_a_fault_of_hal0s_own_halts_only_its_slot_and_is_logged(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.runtime.faults["write a"] = KeyError("a bug of ours")
    halted = await bench.act(a=FRESH, b=FRESH)
    assert set(halted) == {"a"}
    assert "a bug of ours" in halted["a"].message
    assert "Traceback" in caplog.text
    assert bench.runtime.host.starts == {"b": 1}


async def test_a_failing_reload_halts_all_that_needed_it_and_nothing_else(bench: Bench) -> None:
    bench.runtime.faults["reload"] = StepFailed("bad unit")
    bench.runtime.host.loaded["c"] = ("engine",)
    halted = await bench.act(a=FRESH, b=FRESH, c=(StepKind.START,))
    assert set(halted) == {"a", "b"}
    assert bench.runtime.host.starts == {"c": 1}


async def test_a_reload_that_nobody_needs_any_more_is_left_out(bench: Bench) -> None:
    bench.runtime.faults["write a"] = StepFailed("disk full")
    await bench.act(a=FRESH)
    assert bench.runtime.calls == ["write a"]


async def test_a_slot_whose_pull_is_under_way_waits_and_the_others_go_on(bench: Bench) -> None:
    bench.runtime.pulls = asyncio.Event()
    halted = await bench.act(a=(StepKind.PULL, *FRESH), b=FRESH)
    assert halted == {"a": Halt(waits=True, message="pulling image:1")}
    assert bench.runtime.host.starts == {"b": 1}


async def test_what_was_written_is_remembered_and_what_was_not_is_not(bench: Bench) -> None:
    bench.runtime.faults["write b"] = StepFailed("disk full")
    await bench.act(a=(StepKind.WRITE,), b=(StepKind.WRITE,))
    assert bench.store.specs == {"a": SPECS["a"]}


async def test_a_slot_is_forgotten_only_after_all_of_its_removal(bench: Bench) -> None:
    for name in "ab":
        bench.store.remember(SPECS[name])
    bench.runtime.faults["remove b"] = StepFailed("busy")
    removal = (StepKind.STOP, StepKind.REMOVE, StepKind.RELOAD, StepKind.FORGET)
    await bench.act(a=removal, b=removal)
    assert set(bench.store.specs) == {"b"}


async def test_every_step_is_told_with_how_it_went(bench: Bench) -> None:
    bench.runtime.faults["reset_failed a"] = StepFailed("no")
    with bench.feed.subscribe() as news:
        await bench.act(a=FRESH)
        told = [news.get_nowait() for _ in range(news.qsize())]
    assert [(item.step, item.outcome.value) for item in told if isinstance(item, StepNews)] == [
        ("write", "started"),
        ("write", "ok"),
        ("reload", "started"),
        ("reload", "ok"),
        ("reset_failed", "started"),
        ("reset_failed", "failed"),
        ("start", "skipped"),
    ]


async def test_a_reload_is_told_to_each_slot_that_it_is_for(bench: Bench) -> None:
    with bench.feed.subscribe() as news:
        await bench.act(a=FRESH, b=FRESH, c=(StepKind.STOP,))
        told = [news.get_nowait() for _ in range(news.qsize())]
    reloaded = {item.slot for item in told if isinstance(item, StepNews) and item.step == "reload"}
    assert reloaded == {"a", "b"}
    assert bench.runtime.host.reloads == 1


async def test_a_watcher_that_falls_behind_loses_the_oldest_news_and_holds_nobody_up(bench: Bench) -> None:
    with bench.feed.subscribe() as news:
        for number in range(1500):
            bench.feed.publish(StepNews("a", str(number), Outcome.OK))
        assert news.qsize() == 1000
        first = news.get_nowait()
    assert isinstance(first, StepNews)
    assert first.step == "500"
