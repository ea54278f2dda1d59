from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from fakes import FakeClock, FakeFetcher, FakeRuntime
from scenes import calm

from hal0.core.model import Source, SourceKind
from hal0.core.registry import Download, RemoteFile
from hal0.errors import StepFailed, StepWaits, WrongFile
from hal0.host.ports import USE
from hal0.host.store import Store
from hal0.loop.news import Feed, News, TransferNews
from hal0.loop.transfers import Transfers


class Bench:
    """Transfers over a host in memory, and what they reported."""

    def __init__(self, folder: Path) -> None:
        self.store = Store(folder / "hal0.db")
        self.runtime = FakeRuntime(pulls=asyncio.Event())
        self.fetcher = FakeFetcher()
        self.clock = FakeClock()
        self.feed = Feed()
        self.woken: list[frozenset[str]] = []
        self.transfers = Transfers(
            self.runtime, self.fetcher, self.clock, self.feed, self.store.digests, self.woken.append
        )

    def wait(self, image: str, *names: str) -> None:
        for name in names:
            with pytest.raises(StepWaits, match=f"pulling {image}"):
                self.transfers.need(image, name)

    async def end(self) -> None:
        """Let the pulls under way end."""
        await calm()
        assert self.runtime.pulls
        self.runtime.pulls.set()
        await calm()


def drained(news: asyncio.Queue[News]) -> Iterator[News]:
    while not news.empty():
        yield news.get_nowait()


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    made = Bench(tmp_path)
    yield made
    await made.transfers.close()
    made.store.close()


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
    assert bench.transfers.is_waiting("chat", "one")
    assert not bench.transfers.is_waiting("chat", "two")
    assert not bench.transfers.is_waiting("embed", "one")
    await bench.end()
    assert not bench.transfers.is_waiting("chat", "one")


async def test_a_failure_is_told_once_to_each_who_waited_with_its_hint(bench: Bench) -> None:
    bench.runtime.faults["pull one"] = StepFailed("manifest unknown", hint="check the tag")
    bench.wait("one", "chat", "embed")
    await calm()
    assert bench.woken == [frozenset({"chat", "embed"})]
    for name in ("chat", "embed"):
        with pytest.raises(StepFailed, match="manifest unknown") as caught:
            bench.transfers.need("one", name)
        assert caught.value.hint == "check the tag"
    bench.wait("one", "chat")


async def test_a_pull_that_broke_is_a_failed_step(bench: Bench) -> None:
    bench.runtime.faults["pull one"] = RuntimeError("a bug of ours")
    bench.wait("one", "chat")
    await calm()
    with pytest.raises(StepFailed, match="a bug of ours"):
        bench.transfers.need("one", "chat")


async def test_closing_ends_the_pulls_under_way(bench: Bench) -> None:
    bench.wait("one", "chat")
    await calm()
    await bench.transfers.close()
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert bench.runtime.host.images == {}


# Models.


def download(folder: Path, *names: str) -> Download:
    files = [RemoteFile(Source(SourceKind.URL, url=f"https://x/{name}"), str(folder / name)) for name in names]
    return Download("-".join(names), tuple(files))


async def test_a_model_is_fetched_once_for_all_who_wait_and_all_are_woken(bench: Bench, tmp_path: Path) -> None:
    wanted = download(tmp_path, "a", "b")
    for name in ("chat", "embed"):
        with pytest.raises(StepWaits, match="fetching a-b"):
            bench.transfers.need(wanted, name)
    joined = bench.transfers.join(wanted)
    await joined
    await calm()
    assert [path for path, _ in bench.fetcher.begun] == [str(tmp_path / "a"), str(tmp_path / "b")]
    assert frozenset({"chat", "embed"}) in bench.woken
    assert not bench.transfers.waiting


async def test_files_that_are_there_are_not_fetched_again(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    await bench.transfers.join(download(tmp_path, "a", "b"))
    assert [path for path, _ in bench.fetcher.begun] == [str(tmp_path / "b")]


async def test_how_far_a_model_is_is_told_once_a_second_at_the_most(bench: Bench, tmp_path: Path) -> None:
    bench.fetcher.go, bench.fetcher.block = asyncio.Semaphore(0), 10
    with bench.feed.subscribe() as news:
        with pytest.raises(StepWaits):
            bench.transfers.need(download(tmp_path, "a"), "chat")
        for seconds in (0.0, 0.4, 0.7, 0.2):
            bench.clock.forward(seconds)
            bench.fetcher.go.release()
            await calm()
        told = [item for item in drained(news) if isinstance(item, TransferNews)]
    assert [(item.transfer.progress.done, item.slots) for item in told] == [(10, ("chat",)), (30, ("chat",))]
    assert bench.transfers.waiting == {"chat": "fetching a: 40 of 100 B, 18 B/s"}
    assert bench.woken == [frozenset({USE})] * 2


async def test_no_more_than_two_models_are_fetched_at_once(bench: Bench, tmp_path: Path) -> None:
    bench.fetcher.go = asyncio.Semaphore(0)
    tasks = [bench.transfers.join(download(tmp_path, name)) for name in ("a", "b", "c")]
    await calm()
    assert len(bench.fetcher.begun) == 2
    assert str(bench.transfers.models["c"]) == "c is fetched after others"
    for _ in tasks:
        bench.fetcher.go.release()
    await asyncio.gather(*tasks)
    assert len(bench.fetcher.begun) == 3


async def test_a_download_that_nobody_declares_any_more_is_given_up(bench: Bench, tmp_path: Path) -> None:
    bench.fetcher.go = asyncio.Semaphore(0)
    one, other = download(tmp_path, "a"), download(tmp_path, "b")
    tasks = [bench.transfers.join(wanted) for wanted in (one, other)]
    bench.wait("image", "chat")
    await calm()
    bench.transfers.keep([other])
    await calm()
    assert [task.done() for task in tasks] == [True, False]
    assert bench.transfers.is_waiting("chat", "image")


async def test_a_fetcher_that_leaves_nothing_is_not_believed(bench: Bench, tmp_path: Path) -> None:
    bench.fetcher.lost, bench.fetcher.size = True, 0
    wanted = download(tmp_path, "a")
    with pytest.raises(StepWaits):
        bench.transfers.need(wanted, "chat")
    await calm()
    with pytest.raises(StepFailed, match="was fetched and can't be seen"):
        bench.transfers.need(wanted, "chat")


async def test_a_file_that_came_as_a_whole_and_was_refused_is_fetched_again_only_for_a_person(
    bench: Bench, tmp_path: Path
) -> None:
    wanted = download(tmp_path, "a")
    bench.fetcher.faults[str(tmp_path / "a")] = [WrongFile("it has another sha256", hint="mend the model's sha256")]
    with pytest.raises(StepWaits):
        bench.transfers.need(wanted, "chat")
    await calm()
    for name in ("chat", "chat", "embed"):
        with pytest.raises(StepFailed, match="another sha256") as caught:
            bench.transfers.need(wanted, name)
        assert caught.value.hint == "mend the model's sha256"
    assert len(bench.fetcher.begun) == 1
    await bench.transfers.join(wanted)
    assert len(bench.fetcher.begun) == 2
    assert (tmp_path / "a").exists()


async def test_another_failure_once_all_bytes_have_come_is_no_refusal(bench: Bench, tmp_path: Path) -> None:
    wanted = download(tmp_path, "a")
    bench.fetcher.faults[str(tmp_path / "a")] = [StepFailed("no room left")]
    with pytest.raises(StepFailed):
        await bench.transfers.join(wanted)
    await calm()
    with pytest.raises(StepWaits):
        bench.transfers.need(wanted, "chat")
    await calm()
    assert (tmp_path / "a").exists()


async def test_another_declaration_ends_a_refusal(bench: Bench, tmp_path: Path) -> None:
    wanted = download(tmp_path, "a")
    bench.fetcher.faults[str(tmp_path / "a")] = [WrongFile("it has another sha256")]
    with pytest.raises(StepFailed):
        await bench.transfers.join(wanted)
    await calm()
    with pytest.raises(StepFailed):
        bench.transfers.need(wanted, "chat")
    bench.transfers.keep([])
    with pytest.raises(StepWaits):
        bench.transfers.need(wanted, "chat")
