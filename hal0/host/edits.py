"""Manifest files written by hal0: whole or not at all, and only where nobody has written since. Owner and mode stay."""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from hal0.errors import Conflict
from hal0.host.whole import sync

_NEW_MODE = 0o644
_FOR_WRITING = 0o222
_MAY_NOT = "see that hal0 may write there"
_BELOW_HOME = "hal0's unit may not write below /home: keep manifests elsewhere, or do this while the daemon is stopped"


class NotWritten(Conflict):
    """A manifest file could not be written, and is as it was."""


def place(root: Path, file: Path) -> Path:
    """Return where a manifest's text really is: a link is followed, but not out of the root. Raises ``NotWritten``."""
    with _told(file):
        found, top = file.resolve(), root.resolve()
    if found != top and top not in found.parents:
        raise NotWritten(f"{file} leads to {found}, outside of {top}", hint="edit it there by hand")
    return found


def read(file: Path) -> str | None:
    """Return a file's text with its line ends as they are; None where there is no file. Raises ``NotWritten``."""
    with _told(file):
        try:
            return file.read_bytes().decode()
        except FileNotFoundError:
            return None
        except UnicodeDecodeError as error:
            raise NotWritten(f"{file} is not UTF-8: {error.reason}", hint="edit it by hand") from error


def replace(file: Path, before: str | None, after: str | None) -> None:
    """Put one text in the place of another; None is: no file.

    Raises ``NotWritten``, and ``Conflict`` where the text is not ``before`` any more. A reader sees the one text or the
    other, also after a crash. There is no lock between the last look and the write: an editor that saves in that very
    moment is overwritten.
    """
    if read(file) != before:
        raise Conflict(f"{file} was changed meanwhile", hint="try again")
    with _told(file):
        if before is not None and not file.stat().st_mode & _FOR_WRITING:
            raise NotWritten(f"{file} is read-only", hint="make it writable, or edit it by hand")
        if after is None:
            file.unlink()
        else:
            _put(file, after, is_new=before is None)
        sync(file.parent)


def _put(file: Path, text: str, *, is_new: bool) -> None:
    """Write a text beside the file and move it there. What is new belongs to whom the folder belongs to."""
    like = (file.parent if is_new else file).stat()
    handle, name = tempfile.mkstemp(prefix=f".{file.name}.", dir=file.parent)  # hidden: no manifest to any reader
    beside = Path(name)
    try:
        with os.fdopen(handle, "wb") as out:
            out.write(text.encode())
            if not is_new or os.geteuid() == 0:
                _give(out.fileno(), like)
            os.fchmod(out.fileno(), _NEW_MODE if is_new else stat.S_IMODE(like.st_mode))
            out.flush()
            os.fsync(out.fileno())
        if is_new:
            os.link(beside, file)  # fails where a file has come meanwhile, as a rename would not
        else:
            beside.replace(file)
    finally:
        with suppress(FileNotFoundError):
            beside.unlink()


def _give(handle: int, like: os.stat_result) -> None:
    """Hand a file to the owner of another one. Who may not is told: the file would change hands."""
    mine = os.fstat(handle)
    if (mine.st_uid, mine.st_gid) != (like.st_uid, like.st_gid):
        os.fchown(handle, like.st_uid, like.st_gid)


@contextmanager
def _told(file: Path) -> Iterator[None]:
    try:
        yield
    except FileExistsError as error:
        raise Conflict(f"{file} was made meanwhile", hint="try again") from error
    except (OSError, RuntimeError) as error:  # RuntimeError: a loop of links
        why = error.strerror if isinstance(error, OSError) else str(error)
        is_mounted_so = isinstance(error, OSError) and error.errno == errno.EROFS
        raise NotWritten(f"{file} can't be written: {why}", hint=_BELOW_HOME if is_mounted_so else _MAY_NOT) from error
