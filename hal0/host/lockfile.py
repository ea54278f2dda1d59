"""hal0.lock on disk: beside the manifests, and read with them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hal0.core.documents import ManifestError
from hal0.core.lock import LOCK_NAME, parse_lock
from hal0.core.pins import Lock


@dataclass(frozen=True, slots=True)
class LockFile:
    """What is there: ``lock`` is None where it can't be read, ``text`` None where there is none, or nobody may."""

    lock: Lock | None
    text: str | None = None
    error: ManifestError | None = None

    @property
    def exists(self) -> bool:
        """Whether there is a file, be it good or not."""
        return self.text is not None or self.error is not None


def read_lock(base: Path) -> LockFile:
    """Read the lock of a folder of manifests; where there is none, nothing is locked."""
    path = base / LOCK_NAME
    try:
        return _parsed(path, path.read_bytes().decode())
    except FileNotFoundError:
        return LockFile(Lock())
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        return LockFile(None, None, ManifestError(str(path), 0, f"can't be read: {reason}"))


def lock_among(base: Path, texts: Mapping[str, str]) -> LockFile:
    """Return the lock that some texts would give as files below a folder."""
    text = texts.get(LOCK_NAME)
    return LockFile(Lock()) if text is None else _parsed(base / LOCK_NAME, text)


def _parsed(path: Path, text: str) -> LockFile:
    found = parse_lock(str(path), text.replace("\r\n", "\n"))
    return LockFile(None, text, found) if isinstance(found, ManifestError) else LockFile(found, text)
