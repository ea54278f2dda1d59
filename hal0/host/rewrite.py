"""Puts other manifests in the place of those below a root: each file whole, with the owner and the mode that it had."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from hal0.errors import Conflict, Hal0Error

_NEW_FILE = 0o644


def rewrite(base: Path, before: Mapping[str, str], after: Mapping[str, str]) -> None:
    """Make the files below a folder ``after`` where they are ``before`` now; both map paths below it to texts.

    A kill leaves each file old or new. Files go last: until then what moved is declared twice, which removes nothing.
    Raises ``Conflict`` for a file that leads outside the folder, before anything is changed, and ``Hal0Error`` for one
    that can't be written.
    """
    targets = {file: _target(base, file) for file in {*before, *after}}
    for file in sorted(after):
        if before.get(file) != after[file]:
            with _explained(targets[file]):
                put(targets[file], after[file])
    for file in sorted(set(before) - set(after)):
        with _explained(base / file):
            (base / file).unlink(missing_ok=True)


def put(path: Path, text: str) -> None:
    """Write a file whole: beside it, to the disk, then in its place. Raises ``OSError``.

    Owner and mode stay; a new file gets its folder's owner.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    like, mode = (path.stat(), path.stat().st_mode & 0o7777) if path.exists() else (path.parent.stat(), _NEW_FILE)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", newline="", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            if (like.st_uid, like.st_gid) != (os.geteuid(), os.getegid()):
                os.fchown(descriptor, like.st_uid, like.st_gid)
            os.fchmod(descriptor, mode)
            os.fsync(descriptor)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _target(base: Path, file: str) -> Path:
    """Return the file behind a path; a link may lead to another place below the folder."""
    path, root = (base / file).resolve(), base.resolve()
    if not path.is_relative_to(root):
        raise Conflict(f"{base / file} leads to {path}, outside {root}", hint="change it by hand")
    return path


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        read_only = "the daemon's unit may not write below /home: keep manifests elsewhere, or do this with it stopped"
        hint = read_only if error.errno == errno.EROFS else ""
        raise Hal0Error(f"can't write {path}: {error.strerror}", hint=hint) from error
