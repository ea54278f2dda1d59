"""One file, downloaded: an earlier try is gone on with, and it is put in place whole or not at all.

Its sha256 is taken as the bytes come. Decision 21 says why hal0 does this itself. All of it blocks: run it in a thread.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from hal0.core.model import Phase
from hal0.core.quantity import show_size
from hal0.errors import StepFailed, WrongFile
from hal0.host.machine import closest
from hal0.host.part import MAKE_ROOM, Origin, Part, held
from hal0.host.threads import Wire
from hal0.host.webfile import Body, Lost, NotResumed, Patience, Remote, opened

_BLOCK = 1 << 20
_LOOK_S = 0.25  # between two looks at a half file that another one fills
_LOOK_BYTES = 64 << 20  # between two looks at what is left of the disk

Told: TypeAlias = Callable[[int, int | None, Phase], None]
"""Is told the bytes that are done, those of the whole file where that is known, and what is done: for every block."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a download keeps to.

    ``reserve``: bytes that stay free on the disk. ``worth``: a connection that broke is made again at once if it
    brought so many bytes more than there ever were.
    """

    patience: Patience = field(default_factory=Patience)
    reserve: int = 1 << 30
    worth: int = 16 << 20


class Stopped(Exception):
    """Whoever wanted the file does not want it any more."""


def download(remote: Remote, path: Path, told: Told, wire: Wire, limits: Limits) -> None:
    """Put a file in place, unless it is there and right. While another one downloads it, wait for that and look again.

    Raises ``StepFailed``, which says what is wrong and what to do, ``WrongFile`` for another sha256; ``Stopped`` when
    ``wire`` is cut.
    """

    def wait(done: int, total: int | None) -> None:
        told(done, total, Phase.FETCHING)
        if wire.wait(_LOOK_S):
            raise Stopped

    before = _stamp(path)
    if is_right(path, remote.sha256, told, wire):
        return
    with held(path, wait) as part:
        if _stamp(path) != before and is_right(path, remote.sha256, told, wire):
            return
        _Download(remote, part, told, wire, limits).run()


def is_right(path: Path, sha256: str, told: Told, wire: Wire) -> bool:
    """Return whether a file is there, with that sha256 if one is known. Raises ``StepFailed`` if it can't be read."""
    if not path.is_file():
        return False
    if not sha256:
        return True
    digest, done = hashlib.sha256(), 0
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            while block := file.read(_BLOCK):
                digest.update(block)
                done += len(block)
                _check(wire)
                told(done, size, Phase.CHECKING)
    except OSError as error:
        raise StepFailed(f"can't read {path}: {error.strerror}", hint="Let hal0's user read it.") from error
    return digest.hexdigest() == sha256


def check_room(folder: Path, need: int, reserve: int) -> None:
    """Raise ``StepFailed`` unless a folder's disk has room for so many bytes, and some to spare."""
    found = os.statvfs(closest(folder))
    free = found.f_bavail * found.f_frsize
    if free < need + reserve:
        says = f"{show_size(free)} are free, {show_size(need)} are to come, and {show_size(reserve)} stay free"
        raise StepFailed(f"no room in {folder}: {says}", hint=MAKE_ROOM)


def _stamp(path: Path) -> tuple[int, ...] | None:
    try:
        seen = path.stat()
    except OSError:
        return None
    return seen.st_dev, seen.st_ino, seen.st_size, seen.st_mtime_ns


def _check(wire: Wire) -> None:
    if wire.is_cut:
        raise Stopped


@dataclass
class _Download:
    remote: Remote
    part: Part
    told: Told
    wire: Wire
    limits: Limits
    _looked: int = 0
    _has_ended: bool = False

    def run(self) -> None:
        """Go on with the half file until it is whole, check it, and put it in place."""
        self._resume()
        most = self.part.size
        while not self._is_whole():
            try:
                self._stream()
            except NotResumed:
                self.part.empty()
            except Lost as lost:
                _check(self.wire)
                if self.part.size - most < self.limits.worth:
                    raise self._broken(lost) from None
                most = self.part.size
        self._check_sum()
        self.part.place()

    @property
    def _size(self) -> int | None:
        return self.part.origin.size if self.part.origin else self.remote.size

    def _is_whole(self) -> bool:
        return self._has_ended or (self.part.size > 0 and self.part.size == self._size)

    def _resume(self) -> None:
        """Hash what an earlier try left, or empty it where it is a half of something else."""
        origin = self.part.origin
        if origin is None or not origin.is_of(self.remote) or self.part.kept > (origin.size or self.part.kept):
            self.part.empty()
        self.part.read_in(self._tell_checked)

    def _tell_checked(self, done: int) -> None:
        _check(self.wire)
        self.told(done, self._size, Phase.CHECKING)

    def _stream(self) -> None:
        with opened(self.remote, self.part.size, self._condition(), self.wire, self.limits.patience) as body:
            self._begin(body)
            while block := body.read():
                _check(self.wire)
                self._take(block)
        _check(self.wire)
        if self._size is not None and self.part.size < self._size:
            raise Lost("the connection ended early")
        if self._size is None and not body.is_framed and not self.remote.sha256:
            self.part.empty()
            hint = "State the model's sha256: then it can be told from a half one."
            raise StepFailed(f"the server of {self.remote.shown} does not say where it ends", hint=hint)
        self._has_ended = True

    def _condition(self) -> str:
        """Return what has to be true of the server's file still, for its rest to be of use.

        With a sha256, that judges the whole: the ETags of a file's mirrors may differ. A weak one is no condition.
        """
        validator = self.part.origin.validator if self.part.origin else ""
        return "" if self.remote.sha256 or validator.startswith("W/") else validator

    def _begin(self, body: Body) -> None:
        """Judge an answer before a byte of it is taken."""
        total, said = body.total, self.remote.size
        if None not in {total, said} and total != said:
            hint = "Try again; if it stays so, name another source."
            raise StepFailed(f"{self.remote.shown} has {total} bytes, and was said to have {said}", hint=hint)
        if body.start and self._is_changed(body):
            raise NotResumed
        if not body.start:
            self.part.empty()
        told = said if total is None else total
        size = self._size if body.start else told
        check_room(self.part.path.parent, max(0, (size or 0) - self.part.size), self.limits.reserve)
        self.part.remember(Origin.of(self.remote, size, body.validator))

    def _is_changed(self, body: Body) -> bool:
        """Return whether the server has another file by now, as it shows beside the bytes that it goes on with."""
        origin = self.part.origin
        if origin is None or body.total not in {None, origin.size}:
            return True
        if self._size is None:  # then the end of a part can't be told from that of the file
            return True
        same = {origin.validator, ""} if self._condition() else {origin.validator}
        return not self.remote.sha256 and body.validator not in same

    def _take(self, block: bytes) -> None:
        self.part.write(block)
        if self._size is not None and self.part.size > self._size:
            self.part.empty()
            raise StepFailed(f"{self.remote.shown} goes on after its end", hint="Name another source.")
        if self.part.size - self._looked > _LOOK_BYTES:
            # Others fill the disk as well. Half of the reserve is theirs.
            check_room(self.part.path.parent, 0, self.limits.reserve // 2)
            self._looked = self.part.size
        self.told(self.part.size, self._size, Phase.FETCHING)

    def _check_sum(self) -> None:
        found = self.part.digest.hexdigest()
        if self.remote.sha256 in {"", found}:
            return
        self.part.drop()
        hint = "Mend the model's sha256 if that is wrong; else name another source. The next try begins anew."
        raise WrongFile(f"{self.remote.shown} has the sha256 {found}, not {self.remote.sha256}: removed", hint=hint)

    def _broken(self, lost: Lost) -> StepFailed:
        of = f" of {show_size(self._size)}" if self._size is not None else ""
        kept = f"{show_size(self.part.size)}{of} are kept" if self.part.size else "nothing has come"
        hint = "The next try goes on from there." if self.part.size else "Look at the network, or name another source."
        return StepFailed(f"can't fetch {self.remote.shown}: {lost}; {kept}", hint=hint)
