from __future__ import annotations

import asyncio
import errno
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from watchfiles.main import FileChange

from hal0.host import watch
from hal0.host.watch import settled_changes

DEADLINE = 10.0
BEACON = "beacon"


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "_ABSENT", 0.02)
    monkeypatch.setattr(watch, "_IDENTITY_MS", 100)
    monkeypatch.setattr(watch, "_SETTLED_MS", 20)


class Watcher:
    """The changes that a watch tells of."""

    def __init__(self, changes: AsyncIterator[frozenset[Path]]) -> None:
        self._changes = changes
        self._told = asyncio.Event()
        self._lit = 0
        self._beacons: set[Path] = set()
        self.bursts: list[frozenset[Path]] = []

    async def run(self) -> None:
        async for burst in self._changes:
            beacons = {path for path in burst if path.name.startswith(BEACON)}
            self._beacons |= beacons
            if burst != beacons:
                self.bursts.append(burst - beacons)
            self._told.set()

    async def sees(self, path: Path) -> int:
        """Wait until a path is told of, and return in how many bursts it was."""
        async with asyncio.timeout(DEADLINE):
            while not any(path in burst for burst in self.bursts):
                self._told.clear()
                await self._told.wait()
        return sum(path in burst for burst in self.bursts)

    async def is_on(self, folder: Path) -> None:
        """Wait until the watch is really there, and has told of all so far: what it does not see yet, it never will."""
        own: list[Path] = []
        async with asyncio.timeout(DEADLINE):
            while not self._beacons.intersection(own):
                self._lit += 1
                own.append(folder / f"{BEACON}{self._lit}.toml")
                own[-1].touch()
                await asyncio.sleep(0.1)
            while own[-1] not in self._beacons:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        self.bursts.clear()


@asynccontextmanager
async def watching(path: Path, suffix: str = ".toml") -> AsyncIterator[Watcher]:
    made = Watcher(settled_changes(path, lambda path: path.suffix == suffix))
    task = asyncio.create_task(made.run())
    try:
        yield made
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@pytest.fixture
async def watcher(tmp_path: Path) -> AsyncIterator[Watcher]:
    async with watching(tmp_path / "root") as made:
        yield made


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "root"
    folder.mkdir()
    return folder


async def test_a_burst_of_changes_comes_at_once(root: Path, watcher: Watcher) -> None:
    await watcher.is_on(root)
    files = [root / f"{number}.toml" for number in range(50)]
    for file in files:
        file.write_text("x")
    await watcher.sees(files[-1])
    assert {path for burst in watcher.bursts for path in burst} == set(files)
    assert len(watcher.bursts) < len(files) / 2  # it is one, but where the machine stops in the middle


async def test_files_that_are_not_wanted_wake_nobody(root: Path, watcher: Watcher) -> None:
    await watcher.is_on(root)
    (root / "notes.txt").write_text("x")
    (root / "a.toml").write_text("x")
    await watcher.sees(root / "a.toml")
    assert not any(root / "notes.txt" in burst for burst in watcher.bursts)


async def test_changes_in_folders_below_are_seen(root: Path, watcher: Watcher) -> None:
    (root / "deep").mkdir()
    await watcher.is_on(root)
    (root / "deep" / "a.toml").write_text("x")
    await watcher.sees(root / "deep" / "a.toml")


async def test_a_removed_file_and_a_replaced_one_are_changes(root: Path, watcher: Watcher, tmp_path: Path) -> None:
    (root / "gone.toml").write_text("x")
    (root / "kept.toml").write_text("x")
    await watcher.is_on(root)
    (root / "gone.toml").unlink()
    await watcher.sees(root / "gone.toml")
    (tmp_path / "new").write_text("y")
    (tmp_path / "new").replace(root / "kept.toml")
    await watcher.sees(root / "kept.toml")


async def test_a_folder_that_appears_later_is_a_change_and_is_watched_from_then_on(
    tmp_path: Path, watcher: Watcher
) -> None:
    folder = tmp_path / "root"
    await asyncio.sleep(0.1)
    assert watcher.bursts == []
    folder.mkdir()
    await watcher.sees(folder)
    await watcher.is_on(folder)
    (folder / "a.toml").write_text("x")
    await watcher.sees(folder / "a.toml")


async def test_a_folder_that_is_removed_and_made_again_is_watched_again(root: Path, watcher: Watcher) -> None:
    await watcher.is_on(root)
    shutil.rmtree(root)
    await asyncio.sleep(0.5)
    root.mkdir()
    await watcher.is_on(root)
    (root / "a.toml").write_text("x")
    await watcher.sees(root / "a.toml")


async def test_a_folder_that_another_takes_the_place_of_is_watched(
    root: Path, watcher: Watcher, tmp_path: Path
) -> None:
    await watcher.is_on(root)
    (tmp_path / "other").mkdir()
    root.rename(tmp_path / "old")
    (tmp_path / "other").rename(root)
    await watcher.is_on(root)
    (root / "a.toml").write_text("x")
    await watcher.sees(root / "a.toml")


async def test_a_single_file_is_watched_through_replacements(tmp_path: Path) -> None:
    file = tmp_path / "one.toml"
    file.write_text("0")
    async with watching(file) as watcher:
        await asyncio.sleep(0)  # it begins with the file that is there now
        for number in range(1, 4):
            watcher.bursts.clear()
            (tmp_path / "new").write_text(str(number))
            (tmp_path / "new").replace(file)
            await watcher.sees(file)
            await asyncio.sleep(0)


async def test_a_folder_that_cant_be_watched_is_polled(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(*_: object) -> AsyncIterator[set[FileChange]]:
        raise OSError(errno.ENOSPC, "OS file watch limit reached")

    monkeypatch.setattr(watch, "_bursts", none_left)
    async with watching(root) as watcher:
        await watcher.sees(root)
        watcher.bursts.clear()
        await watcher.sees(root)
