from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from fakes import FakeRuntime
from scenes import calm

from hal0.errors import StepFailed, StepWaits
from hal0.loop.pulls import Pulls


class Bench:
    """Pulls over a host in memory, and what they reported."""

    def __init__(self) -> None:
        self.runtime = FakeRuntime(pulls=asyncio.Event())
        self.woken: list[frozenset[str]] = []
        self.pulls = Pulls(self.runtime, self.woken.append)

    def wait(self, image: str, *names: str) -> None:
        for name in names:
            with pytest.raises(StepWaits, match=f"pulling {image}"):
                self.pulls.need(image, name)

    async def end(self) -> None:
        """Let the pulls under way end."""
        await calm()
        assert self.runtime.pulls
        self.runtime.pulls.set()
        await calm()


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    made = Bench()
    yield made
    await made.pulls.close()


async def test_an_image_is_pulled_once_for_all_who_wait_and_all_are_woken(bench: Bench) -> None:
    bench.wait("one", "chat", "embed", "chat")
    await bench.end()
    assert bench.runtime.calls == ["pull one"]
    assert bench.woken == [frozenset({"chat", "embed"})]


async def test_images_are_pulled_at_the_same_time(bench: Bench) -> None:
    bench.wait("one", "chat")
    bench.wait("two", "embed")
    await calm()
    assert bench.runtime.calls == ["pull one", "pull two"]


async def test_a_slot_waits_only_while_its_own_image_is_on_the_way(bench: Bench) -> None:
    bench.wait("one", "chat")
    assert bench.pulls.is_waiting("chat")
    assert bench.pulls.is_waiting("chat", "one")
    assert not bench.pulls.is_waiting("chat", "two")
    assert not bench.pulls.is_waiting("embed")
    await bench.end()
    assert not bench.pulls.is_waiting("chat")


async def test_a_failure_is_told_once_to_each_who_waited_with_its_hint(bench: Bench) -> None:
    bench.runtime.faults["pull one"] = StepFailed("manifest unknown", hint="check the tag")
    bench.wait("one", "chat", "embed")
    await calm()
    assert bench.woken == [frozenset({"chat", "embed"})]
    for name in ("chat", "embed"):
        with pytest.raises(StepFailed, match="manifest unknown") as caught:
            bench.pulls.need("one", name)
        assert caught.value.hint == "check the tag"
    bench.wait("one", "chat")


async def test_a_pull_that_broke_is_a_failed_step(bench: Bench) -> None:
    bench.runtime.faults["pull one"] = RuntimeError("a bug of ours")
    bench.wait("one", "chat")
    await calm()
    with pytest.raises(StepFailed, match="a bug of ours"):
        bench.pulls.need("one", "chat")


async def test_closing_ends_the_pulls_under_way(bench: Bench) -> None:
    bench.wait("one", "chat")
    await calm()
    await bench.pulls.close()
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert bench.runtime.host.images == {}
