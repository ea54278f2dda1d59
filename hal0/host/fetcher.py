"""Fetches models' files: by address, or from the hub. The port's adapter; the work is done in a daemon thread."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from hal0.core.model import ListedFile, Phase, Progress, Source, SourceKind, Version
from hal0.core.modelpath import parts
from hal0.core.registry import part_sources
from hal0.errors import StepFailed
from hal0.host.threads import Wire, in_thread

if TYPE_CHECKING:
    from hal0.host.download import Limits
    from hal0.host.webfile import Remote

T = TypeVar("T")
_EVERY_S = 0.25
_ASK_S = 60.0


class HttpFetcher:
    """Fetches files. However many ask for one, in however many processes, it is downloaded once: others wait for it."""

    def __init__(self, limits: Limits | None = None) -> None:
        self._limits = limits

    async def fetch(self, source: Source, path: str, sha256: str, told: Callable[[Progress], None]) -> None:
        """Do as the port says. ``told`` is called on the loop, at most four times a second, and once at the end."""
        loop, wire = asyncio.get_running_loop(), Wire()

        def pass_on(progress: Progress) -> None:
            if not wire.is_cut:
                told(progress)

        def tell(progress: Progress) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is gone, and with it who asked
                loop.call_soon_threadsafe(pass_on, progress)

        job = _Job(source, Path(path), sha256, Meter(tell), wire, self._limits)
        try:
            await in_thread(job.run, None)
        finally:
            wire.cut()

    async def size_of(self, source: Source) -> int | None:
        """Do as the port says: by one question to the server, or to the hub."""
        return await _asked(lambda: _size_of(source), source)

    async def listing(self, source: Source) -> tuple[ListedFile, ...]:
        """Do as the port says."""

        def ask() -> tuple[ListedFile, ...]:
            from hal0.host import hub

            return tuple(ListedFile(each.path, each.remote.size) for each in hub.repository(source))

        return await _asked(ask, source)

    async def look(self, source: Source) -> Version:
        """Do as the port says."""
        return await _asked(lambda: _look(source), source) if source.kind is SourceKind.HUB else Version()


def _look(source: Source) -> Version:
    from hal0.host import hub

    found = hub.look(source)
    return Version(found.commit, found.remote.sha256, found.remote.size)


@dataclass
class Meter:
    """Passes on how far a transfer is, not more often than anyone can read it."""

    tell: Callable[[Progress], None]
    clock: Callable[[], float] = time.monotonic
    _last: Progress | None = None
    _due: float = 0.0

    def __call__(self, done: int, total: int | None, phase: Phase) -> None:
        """Take in a step."""
        self._last = Progress(done, total, phase)
        if self.clock() >= self._due:
            self.flush()

    def flush(self) -> None:
        """Pass on the last step, if it was not."""
        if self._last is not None:
            self.tell(self._last)
            self._last, self._due = None, self.clock() + _EVERY_S


@dataclass
class _Job:
    """One call of ``fetch``, in its thread. What it needs is imported there: it is slow, and seldom needed."""

    source: Source
    path: Path
    sha256: str
    meter: Meter
    wire: Wire
    limits: Limits | None

    def run(self) -> None:
        from hal0.host.download import Limits, check_room, download, is_right

        limits = self.limits or Limits()
        if self.source.is_folder:
            from hal0.host.repository import fetch_folder

            fetch_folder(self.source, self.path, self.meter, self.wire, limits)
            self.meter.flush()
            return
        if is_right(self.path, self.sha256, self.meter, self.wire):
            return
        if self.source.kind is SourceKind.FILE:
            raise StepFailed(f"there is no {self.path}, and no source to fetch it from", hint="Put it there.")
        remote = _remote(self.source)
        if need := self._need_of_all():
            check_room(self.path.parent, need, limits.reserve)
        download(self._agreed(remote), self.path, self.meter, self.wire, limits)
        self.meter.flush()

    def _agreed(self, remote: Remote) -> Remote:
        """Return a file with the sha256 that is wanted. Raises ``StepFailed`` where the hub has another one."""
        if self.sha256 and remote.sha256 and self.sha256 != remote.sha256:
            hint = "Mend the model's sha256 if that is wrong; else name the revision that has it."
            said = f"{remote.shown} has the sha256 {remote.sha256}, not {self.sha256}"
            raise StepFailed(f"{said}: nothing was fetched", hint=hint)
        return replace(remote, sha256=self.sha256 or remote.sha256)

    def _need_of_all(self) -> int:
        """Return what is to come of all files of a split model: no use to begin it on a disk that can't hold it."""
        return sum(self._need_of(source, path) for source, path in _parts_of(self.source, str(self.path)))

    def _need_of(self, source: Source, path: Path) -> int:
        from hal0.host.part import kept_of

        if path.exists():
            return 0
        return max(0, (self._hinted(source) or 0) - kept_of(path))

    def _hinted(self, source: Source) -> int | None:
        """Return a part's size, where that is said. Raises ``StepFailed`` where the hub has no such file."""
        try:
            return _size_of(source)
        except StepFailed:
            if source.kind is SourceKind.HUB:
                raise
            return None  # a server that takes no such question may have the file all the same


def _remote(source: Source) -> Remote:
    """Return a source's file; what the hub has is looked up, an address is taken as it is. Raises ``StepFailed``."""
    from hal0.host.webfile import Remote

    if source.kind is SourceKind.URL:
        return Remote(source.url)
    from hal0.host import hub

    return hub.look(source).remote


def _size_of(source: Source) -> int | None:
    """Return how large a source's file is; None where its server does not say. Raises ``StepFailed``."""
    from hal0.host.webfile import Patience, size_of

    if source.is_folder:
        from hal0.host.repository import size_of_all

        return size_of_all(source)
    remote = _remote(source)
    return size_of(remote, Patience()) if source.kind is SourceKind.URL else remote.size


async def _asked(ask: Callable[[], T], source: Source) -> T:
    try:
        return await in_thread(ask, _ASK_S)
    except TimeoutError:
        what = source.repo or "the model's server"
        raise StepFailed(f"no answer about {what} in {_ASK_S:g} s", hint="Try again later.") from None


def _parts_of(source: Source, path: str) -> Iterator[tuple[Source, Path]]:
    """Yield each file of a split model with its source; none where it is one file."""
    sources, paths = part_sources(source), parts(path)
    if len(sources) == len(paths) > 1:
        yield from zip(sources, map(Path, paths), strict=True)
