"""The drop-in files that define slots: written whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from hal0.core.engines import STAND_IN
from hal0.core.facts import Fact, Known, Unknown
from hal0.core.observed import Definition
from hal0.core.spec import unit_name
from hal0.errors import StepFailed
from hal0.host.whole import put_aside, replace

if TYPE_CHECKING:
    from collections.abc import Iterator

FILE = "50-hal0.conf"
_SLOT = re.compile(rf"[a-z0-9][a-z0-9-]*({re.escape(STAND_IN)})?")
_FOLDER = re.compile(rf"hal0-slot@(?P<slot>{_SLOT.pattern})\.service\.d")
_HINTS = {
    errno.EACCES: "Run hal0 as root, or give it the `user` scope.",
    errno.EPERM: "Run hal0 as root, or give it the `user` scope.",
    errno.EROFS: "The file system is mounted read-only: remount it, or make the unit folder writable.",
    errno.ENOSPC: "The disk is full: free some space.",
}


def is_slot(name: str) -> bool:
    """Return whether a name can be a slot's, or its stand-in's: one that systemd and paths take as it is."""
    return _SLOT.fullmatch(name) is not None


class Dropins:
    """The ``50-hal0.conf`` of every slot under one unit folder. Calls block for as long as the disk does."""

    def __init__(self, unit_dir: Path) -> None:
        self._unit_dir = unit_dir

    def path(self, slot: str) -> Path:
        """Return where a slot's drop-in lies. Raises ``StepFailed`` for a name that can't be a slot's."""
        if not is_slot(slot):
            raise StepFailed(f"{slot!r} can't name a slot", hint="Use a-z, 0-9 and `-`.")
        return self._unit_dir / f"{unit_name(slot)}.d" / FILE

    def names(self) -> Fact[frozenset[str]]:
        """Return the slots that have a drop-in; a unit folder that is not there has none."""
        try:
            folders = [entry.name for entry in os.scandir(self._unit_dir)]
        except FileNotFoundError:
            return Known(frozenset())
        except OSError as error:
            return Unknown(f"{self._unit_dir}: {error.strerror}")
        slots = (match["slot"] for folder in folders if (match := _FOLDER.fullmatch(folder)))
        return Known(frozenset(slot for slot in slots if not _is_absent(self.path(slot))))

    def read(self, slot: str) -> Fact[Definition | None]:
        """Return a slot's drop-in as it lies on disk, or None where there is none."""
        path = self.path(slot)
        try:
            return Known(Definition(str(path), path.read_text()))
        except (FileNotFoundError, NotADirectoryError):
            return Known(None)
        except UnicodeDecodeError:
            return Unknown(f"{path}: not UTF-8 text")
        except OSError as error:
            return Unknown(f"{path}: {error.strerror}")

    def write(self, slot: str, text: str) -> None:
        """Put a drop-in in place, readable by all: a crash leaves the old one or the new one.

        Raises ``StepFailed``.
        """
        path = self.path(slot)
        with _explained(f"can't write {path}"):
            path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            replace(path, text, mode=0o644)

    def remove(self, slot: str) -> None:
        """Remove a drop-in, and its folder unless an operator keeps files there. Raises ``StepFailed``."""
        path = self.path(slot)
        with _explained(f"can't remove {path}"):
            path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            path.parent.rmdir()

    def put_aside(self, slot: str) -> None:
        """Rename a drop-in, so that systemd does not read it. Raises ``StepFailed``."""
        path = self.path(slot)
        with _explained(f"can't rename {path}"):
            put_aside(path)


def _is_absent(path: Path) -> bool:
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False


@contextlib.contextmanager
def _explained(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        hint = _HINTS.get(error.errno or 0, "")
        raise StepFailed(f"{what}: {error.strerror}", hint=hint) from error
