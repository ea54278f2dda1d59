"""The port's adapter: on the loop's side of a download."""

from __future__ import annotations

import asyncio
import hashlib
import os
import subprocess
import sys
import threading
from collections import namedtuple
from itertools import pairwise
from pathlib import Path

import pytest

from hal0.core.model import Phase, Progress, Source, SourceKind
from hal0.errors import StepFailed
from hal0.host.download import Limits
from hal0.host.fetcher import HttpFetcher, Meter
from hal0.host.webfile import Patience

from .file_server import FileServer

DATA = bytes(range(256)) * 1000
SPLIT = "small-0000{}-of-00003.gguf"


@pytest.fixture
def fetcher() -> HttpFetcher:
    return HttpFetcher(Limits(reserve=0))


def at(server: FileServer, path: str) -> Source:
    return Source(SourceKind.URL, url=f"{server.url}{path}")


def ignore(_: Progress) -> None: ...


async def test_progress_is_told_on_the_loop_and_ends_with_the_whole(
    server: FileServer, fetcher: HttpFetcher, tmp_path: Path
) -> None:
    server.put("/a.gguf", DATA)
    told: list[tuple[Progress, int]] = []
    await fetcher.fetch(
        at(server, "/a.gguf"), str(tmp_path / "a.gguf"), "", lambda step: told.append((step, threading.get_ident()))
    )
    assert told[-1][0] == Progress(len(DATA), len(DATA), Phase.FETCHING)
    assert {thread for _, thread in told} == {threading.get_ident()}
    assert (tmp_path / "a.gguf").read_bytes() == DATA


async def test_a_server_says_how_large_a_file_is(server: FileServer, fetcher: HttpFetcher) -> None:
    server.put("/a.gguf", DATA)
    server.put("/b.gguf", DATA, framing="chunked")
    server.put("/c.gguf", DATA, head=405)
    assert await fetcher.size_of(at(server, "/a.gguf")) == len(DATA)
    assert [await fetcher.size_of(at(server, path)) for path in ("/b.gguf", "/c.gguf")] == [None, None]
    assert server.ranges == []
    with pytest.raises(StepFailed, match=r"answered 404 .*: it is not there"):
        await fetcher.size_of(at(server, "/d.gguf?key=s3cret"))
    with pytest.raises(StepFailed, match="can't be asked for") as caught:
        await fetcher.size_of(Source(SourceKind.URL, url="http://127.0.0.1:9/d.gguf?key=s3cret"))
    assert "s3cret" not in str(caught.value)


def test_a_meter_passes_on_four_a_second_and_the_last() -> None:
    passed: list[tuple[float, int]] = []
    now = 100.0
    meter = Meter(lambda step: passed.append((now, step.done)), clock=lambda: now)
    for done in range(1000):
        meter(done, None, Phase.FETCHING)
        now += 0.01
    meter.flush()
    meter.flush()
    assert passed[-1][1] == 999
    assert len(passed) == 41
    assert all(later - earlier >= 0.25 for (earlier, _), (later, _) in pairwise(passed[:-1]))


async def test_many_who_ask_are_one_download(server: FileServer, fetcher: HttpFetcher, tmp_path: Path) -> None:
    gate = threading.Event()
    server.put("/a.gguf", DATA, gate=gate)
    waiting: set[int] = set()

    def tell(who: int) -> None:
        waiting.add(who)
        if len(waiting) == 5:
            gate.set()

    tasks = [
        fetcher.fetch(at(server, "/a.gguf"), str(tmp_path / "a.gguf"), "", lambda _, who=who: tell(who))  # type: ignore[misc]
        for who in range(5)
    ]
    await asyncio.gather(*tasks)
    assert len(server.ranges) == 1


async def test_one_that_is_cancelled_ends_and_the_next_goes_on(server: FileServer, tmp_path: Path) -> None:
    fetcher = HttpFetcher(Limits(Patience(silence_s=3600), reserve=0))
    gate = threading.Event()
    server.put("/a.gguf", DATA, gate=gate)
    path, has_begun = str(tmp_path / "a.gguf"), asyncio.Event()
    task = asyncio.create_task(fetcher.fetch(at(server, "/a.gguf"), path, "", lambda _: has_begun.set()))
    await has_begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not Path(path).exists()
    server.put("/a.gguf", DATA)  # while the first answer is still held up
    async with asyncio.timeout(60):  # the first one would hold the half file for an hour
        await fetcher.fetch(at(server, "/a.gguf"), path, "", ignore)
    gate.set()
    assert server.ranges[1] is not None
    assert Path(path).read_bytes() == DATA


async def test_a_file_without_a_source_is_not_made_up(fetcher: HttpFetcher, tmp_path: Path) -> None:
    with pytest.raises(StepFailed, match="no source to fetch it from"):
        await fetcher.fetch(Source(), str(tmp_path / "a.gguf"), "", ignore)
    (tmp_path / "a.gguf").write_bytes(DATA)
    await fetcher.fetch(Source(), str(tmp_path / "a.gguf"), hashlib.sha256(DATA).hexdigest(), ignore)


@pytest.mark.parametrize(("free", "kept"), [(299, 0), (300, 0), (200, 100)])
async def test_a_split_model_is_begun_where_all_of_it_has_room(
    server: FileServer, fetcher: HttpFetcher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, free: int, kept: int
) -> None:
    for part in (1, 2, 3):
        server.put("/" + SPLIT.format(part), DATA[:150])
    (tmp_path / SPLIT.format(2)).write_bytes(DATA[:150])
    (tmp_path / f"{SPLIT.format(1)}.part").write_bytes(DATA[:kept])
    disk = namedtuple("disk", ["f_bavail", "f_frsize"])  # noqa: PYI024 - as os.statvfs has it
    monkeypatch.setattr(os, "statvfs", lambda _: disk(free, 1))
    path = tmp_path / SPLIT.format(1)
    fetching = fetcher.fetch(at(server, f"/{SPLIT.format(1)}?sig=1"), str(path), "", ignore)
    if free + kept < 300:
        with pytest.raises(StepFailed, match=r"no room .* 300 B are to come"):
            await fetching
        assert server.ranges == []
    else:
        await fetching
        assert path.read_bytes() == DATA[:150]


async def test_a_server_that_does_not_tell_sizes_is_asked_for_a_split_model_all_the_same(
    server: FileServer, fetcher: HttpFetcher, tmp_path: Path
) -> None:
    server.put("/" + SPLIT.format(1), DATA, head=403)
    path = tmp_path / SPLIT.format(1)
    await fetcher.fetch(at(server, "/" + SPLIT.format(1)), str(path), "", ignore)
    assert path.read_bytes() == DATA


def test_what_is_slow_to_import_is_not_imported_before_it_is_needed() -> None:
    code = (
        "import sys, hal0.loop.daemon, hal0.host.fetcher; print({'requests', 'huggingface_hub'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "set()\n"
