"""Transfers run beside the loop: image pulls and models' downloads, one for each however many slots wait for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from hal0.core.facts import Known
from hal0.core.model import Progress
from hal0.core.registry import Download, RemoteFile
from hal0.core.steps import Wanted
from hal0.core.transfer import Transfer
from hal0.errors import Hal0Error, StepFailed, StepWaits, WrongFile
from hal0.host.digests import Digests
from hal0.host.models import is_there, may_be
from hal0.host.ports import USE, Clock, Fetcher, Runtime
from hal0.host.tasks import end
from hal0.loop.news import Feed, TransferNews

_AT_ONCE = 2
"""Models that are fetched at the same time: more of them share one line, and none is there any sooner."""
_NEWS_S = 1.0


@dataclass
class Transfers:
    """Transfers under way.

    ``look`` is called with the slots that wait when a transfer of theirs has ended, and with ``USE`` while one goes on:
    the picture tells how far it is. A model's download goes on until it ends, or the model is no longer declared so:
    whoever asked for it may have gone away, and will come again. One that had come as a whole and was refused, for its
    checksum, is not begun again by itself: it would be fetched for ever.
    """

    runtime: Runtime
    fetcher: Fetcher
    clock: Clock
    feed: Feed
    digests: Digests
    look: Callable[[frozenset[str]], None]
    _tasks: dict[Wanted, asyncio.Task[None]] = field(default_factory=dict)
    _waiting: dict[Wanted, set[str]] = field(default_factory=dict)
    _failed: dict[tuple[Wanted, str], BaseException] = field(default_factory=dict)
    _refused: dict[Wanted, WrongFile] = field(default_factory=dict)
    _far: dict[Download, Transfer] = field(default_factory=dict)
    _told_at: dict[Wanted, float] = field(default_factory=dict)
    _line: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_AT_ONCE))

    def need(self, wanted: Wanted, slot: str) -> None:
        """Ask for an image or a model: raises ``StepWaits`` while it is on the way, ``StepFailed`` once when it failed.

        What has come is seen on the host: nobody asks for it.
        """
        if error := self._failed.pop((wanted, slot), None) or self._refused.get(wanted):
            raise StepFailed(str(error), hint=error.hint if isinstance(error, Hal0Error) else "")
        self._begun(wanted)
        self._waiting.setdefault(wanted, set()).add(slot)
        raise StepWaits(self._said(wanted))

    def join(self, wanted: Wanted) -> asyncio.Task[None]:
        """Return the transfer of an image or a model: the one that is under way, else a new one. A person asks for it.

        Of a model whose file was refused that means: fetch it all over again.
        """
        self._refused.pop(wanted, None)
        return self._begun(wanted)

    def _begun(self, wanted: Wanted) -> asyncio.Task[None]:
        if wanted not in self._tasks:
            task = asyncio.create_task(self._carry(wanted), name=self._said(wanted))
            task.add_done_callback(lambda task: self._end(wanted, task))
            self._tasks[wanted] = task
        return self._tasks[wanted]

    def is_waiting(self, slot: str, wanted: Wanted) -> bool:
        """Return whether a slot waits for something that is on the way."""
        return slot in self._waiting.get(wanted, ())

    @property
    def waiting(self) -> Mapping[str, str]:
        """All that wait for what is on the way, and a sentence that says how far that is."""
        return {slot: self._progress(wanted) for wanted, slots in self._waiting.items() for slot in slots}

    @property
    def models(self) -> Mapping[str, Transfer]:
        """The models that are on their way, by name."""
        return {download.model: transfer for download, transfer in self._far.items()}

    def keep(self, downloads: Iterable[Download | None]) -> None:
        """Give up the downloads that are none of these; what is here of them is gone on with when they come again."""
        kept = frozenset(downloads) if self._tasks or self._refused else frozenset()
        for wanted, task in self._tasks.items():
            if isinstance(wanted, Download) and wanted not in kept:
                task.cancel()
        self._refused = {wanted: error for wanted, error in self._refused.items() if wanted in kept}

    async def give_up(self, wanted: Wanted) -> None:
        """End a transfer, if it is under way, and wait until it has ended."""
        if task := self._tasks.get(wanted):
            await end([task])

    async def close(self) -> None:
        """Give up all that is under way. podman keeps the layers that it has, and the fetcher its parts of files."""
        await end(self._tasks.values())

    async def _carry(self, wanted: Wanted) -> None:
        if isinstance(wanted, str):
            await self.runtime.pull(wanted)
            return
        self._far[wanted] = Transfer(wanted.model, len(wanted.files), queued=self._line.locked())
        async with self._line:
            self._far[wanted] = replace(self._far[wanted], queued=False)
            for number, file in enumerate(wanted.files, start=1):
                if is_there(file.path) != Known(value=True) or not may_be(file.path, file.pin, self.digests):
                    await self._fetch(file, partial(self._note, wanted, number))

    async def _fetch(self, file: RemoteFile, told: Callable[[Progress], None]) -> None:
        await self.fetcher.fetch(file.source, file.path, file.sha256, told)
        try:
            seen = Path(file.path).stat()
        except OSError as error:
            why = f"{file.path} was fetched and can't be seen: {error.strerror}"
            raise StepFailed(why, hint="did somebody remove it?") from error
        if file.sha256:
            self.digests.note(file.path, seen.st_size, seen.st_mtime_ns, file.sha256)

    def _note(self, wanted: Download, number: int, progress: Progress) -> None:
        if wanted not in self._far:
            return  # it has ended meanwhile
        now = self.clock.now()
        transfer = self._far[wanted] = self._far[wanted].at(number, progress, now)
        if now - self._told_at.get(wanted, -_NEWS_S) >= _NEWS_S:
            self._told_at[wanted] = now
            self.feed.publish(TransferNews(transfer, tuple(sorted(self._waiting.get(wanted, ())))))
            self.look(frozenset({USE}))

    def _end(self, wanted: Wanted, task: asyncio.Task[None]) -> None:
        """Wake the slots that waited; each of them is told of a failure when it asks again."""
        del self._tasks[wanted]
        if isinstance(wanted, Download):
            self._far.pop(wanted, None)
        self._told_at.pop(wanted, None)
        slots = frozenset(self._waiting.pop(wanted, ()))
        if not task.cancelled() and (error := task.exception()):
            self._failed |= {(wanted, slot): error for slot in slots}
            if isinstance(error, WrongFile):
                self._refused[wanted] = error
        self.look(slots)

    def _progress(self, wanted: Wanted) -> str:
        if isinstance(wanted, str):
            return "its image is being pulled"
        return str(self._far.get(wanted) or self._said(wanted))

    @staticmethod
    def _said(wanted: Wanted) -> str:
        return f"pulling {wanted}" if isinstance(wanted, str) else f"fetching {wanted.model}"
