"""The half file of a download: ``PATH.part``, locked by whoever fills it, and ``PATH.part.json``: a half of what."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from hal0.errors import StepFailed
from hal0.host.whole import replace, sync

if TYPE_CHECKING:
    from hal0.host.webfile import Remote

_BLOCK = 1 << 20
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


@dataclass(frozen=True, slots=True)
class Origin:
    """What a half file is a half of. ``url`` is the digest of an address: its query may be a secret."""

    url: str
    size: int | None
    sha256: str
    validator: str

    @classmethod
    def of(cls, remote: Remote, size: int | None = None, validator: str = "") -> Origin:
        """Return the origin of a file, with what its server said of it."""
        return cls(_digest(remote.url), remote.size if size is None else size, remote.sha256, validator)

    def is_of(self, remote: Remote) -> bool:
        """Return whether bytes of this origin are bytes of that file, as far as can be said before all are there.

        The same sha256 is the same file, wherever it comes from. Else it takes the same address and a validator.
        """
        if self.size is not None and remote.size is not None and self.size != remote.size:
            return False
        if self.sha256 and remote.sha256:
            return self.sha256 == remote.sha256
        return bool(self.validator) and self.url == _digest(remote.url)


@dataclass
class Part:
    """A half file that this process holds. ``digest`` is that of its first ``size`` bytes."""

    path: Path
    descriptor: int
    size: int = 0
    origin: Origin | None = None
    digest: hashlib._Hash = field(default_factory=hashlib.sha256)

    @property
    def kept(self) -> int:
        """The bytes on the disk, those included that were not hashed yet."""
        return os.fstat(self.descriptor).st_size

    def read_in(self, told: Callable[[int], None]) -> None:
        """Hash what an earlier try left. ``told`` gets the bytes that are done, and may raise to end it."""
        while block := os.pread(self.descriptor, _BLOCK, self.size):
            self.digest.update(block)
            self.size += len(block)
            told(self.size)

    def empty(self) -> None:
        """Begin anew."""
        os.ftruncate(self.descriptor, 0)
        self.size, self.digest = 0, hashlib.sha256()

    def remember(self, origin: Origin) -> None:
        """Keep what its bytes are a half of, before any of them is written."""
        if origin != self.origin:
            replace(_notes(self.path), json.dumps(asdict(origin)))
            self.origin = origin

    def write(self, data: bytes) -> None:
        """Append bytes. Raises ``OSError``."""
        view = memoryview(data)
        while view:
            count = os.pwrite(self.descriptor, view, self.size)
            self.digest.update(view[:count])
            self.size += count
            view = view[count:]

    def place(self) -> None:
        """Give the whole file its name. Raises ``OSError``, and ``StepFailed`` where somebody removed it meanwhile."""
        os.fsync(self.descriptor)
        if not is_at(self.descriptor, _half(self.path)):  # it would be another one's half file that is put in place
            raise StepFailed(f"{_half(self.path)} was removed while it was filled", hint="Fetch it again.")
        _half(self.path).replace(self.path)
        _notes(self.path).unlink(missing_ok=True)
        sync(self.path.parent)

    def drop(self) -> None:
        """Remove it, with what was kept of its origin."""
        _half(self.path).unlink(missing_ok=True)
        _notes(self.path).unlink(missing_ok=True)


@contextmanager
def held(path: Path, wait: Callable[[int, int | None], None]) -> Iterator[Part]:
    """Hold the half file of a path, alone on this host: the kernel lets go of it with the process.

    While another one fills it, ``wait`` is called again and again with its bytes and the whole file's: it sleeps, and
    may raise. A half file that has no bytes at the end is removed. Raises ``StepFailed`` where the folder can't be
    written to, or its disk is full.
    """
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = _locked(path, wait)
        try:
            part = Part(path, descriptor, origin=_origin(path))
            yield part
        finally:
            if not os.fstat(descriptor).st_size and is_at(descriptor, _half(path)):
                Part(path, descriptor).drop()
            os.close(descriptor)


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Say what is wrong with the disk or the folder of a path, and what a person can do: raises ``StepFailed``."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            kept = "what has come is kept for the next try"
            raise StepFailed(f"no room left in {path.parent}: {error.strerror}; {kept}", hint=MAKE_ROOM) from error
        hint = (
            "Let hal0's user write there. Where hal0 runs as a unit, its ProtectHome= and ReadWritePaths= count too:"
            " `systemctl edit hal0-api.service`."
        )
        raise StepFailed(f"can't write {path}: {error.strerror}", hint=hint) from error


MAKE_ROOM = "Remove what is not needed (`hal0 model rm`), or put the model on another disk."


def kept_of(path: Path) -> int:
    """Return the bytes that are kept of a file that is not in place yet."""
    try:
        return _half(path).stat().st_size
    except OSError:
        return 0


def discard(path: Path, wait: Callable[[int, int | None], None]) -> int:
    """Remove what is kept of a file that is not in place, and return its bytes; ``wait`` is as ``held`` has it."""
    if not _half(path).exists():  # no file is made on a disk that may be full
        _notes(path).unlink(missing_ok=True)
        return 0
    with held(path, wait) as part:
        kept = part.kept
        part.drop()
    return kept


def _locked(path: Path, wait: Callable[[int, int | None], None]) -> int:
    while True:
        # A link would have a daemon that is root write wherever somebody who may write to the folder says.
        descriptor = os.open(_half(path), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        try:
            _acquire(descriptor, path, wait)
            # Who held it may have given it its final name, or removed it: then the lock is that of another file.
            if is_at(descriptor, _half(path)):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _acquire(descriptor: int, path: Path, wait: Callable[[int, int | None], None]) -> None:
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            origin = _origin(path)
            wait(os.fstat(descriptor).st_size, origin.size if origin else None)
        else:
            return


def is_at(descriptor: int, path: Path) -> bool:
    """Return whether what was opened still has its name: who held it may have put it in place, or removed it."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _origin(path: Path) -> Origin | None:
    """Return what was kept of a half file's origin; None where that is not to be read."""
    try:
        kept = json.loads(_notes(path).read_bytes())
        origin = Origin(**kept)
    except (OSError, ValueError, TypeError):
        return None
    texts = (origin.url, origin.sha256, origin.validator)
    is_sound = isinstance(origin.size, int | None) and all(isinstance(text, str) for text in texts)
    return origin if is_sound else None


def _half(path: Path) -> Path:
    return path.with_name(f"{path.name}.part")


def _notes(path: Path) -> Path:
    return path.with_name(f"{path.name}.part.json")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
