"""The manifests as they were in a revision that git knows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from hal0.core.lock import LOCK_NAME
from hal0.errors import NotFound, UsageError
from hal0.host import git
from hal0.host.manifests import SUFFIXES

_LINK = "120000"


def texts_at(folder: Path, name: str) -> Mapping[str, str]:
    """Return the manifests below a folder, and their lock, as they were in a revision that git knows.

    Their paths are as in ``ManifestSet.texts``.

    Raises ``NotFound`` for a revision that it doesn't, and ``UsageError`` for a link or what can't be read.
    """
    found = git.read(folder, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}")
    commit = (found or b"").strip()
    listed = git.read(folder, "ls-tree", "-r", "-z", commit.decode()) if commit else None
    if listed is None:
        raise NotFound(f"git knows no revision {name!r} in {folder}", hint="see hal0 history, or git log")
    entries = [entry.partition("\t") for entry in listed.decode(errors="surrogateescape").split("\0") if entry]
    return {path: _blob(folder, about.split(), f"{name}:{path}") for about, _, path in entries if _is_of_root(path)}


def _is_of_root(path: str) -> bool:
    parts = PurePosixPath(path)
    is_manifest = parts.suffix in SUFFIXES and not any(part.startswith(".") for part in parts.parts)
    return is_manifest or path == LOCK_NAME


def _blob(folder: Path, entry: list[str], what: str) -> str:
    mode, _, blob = entry
    if mode == _LINK:
        raise UsageError(f"{what} is a link, and links are not followed", hint="restore it with git")
    found = git.read(folder, "cat-file", "blob", blob)
    if found is None:
        raise UsageError(f"git can't read {what}", hint="run git fsck")
    try:
        return found.decode()
    except UnicodeDecodeError as error:
        raise UsageError(f"{what} can't be read: {error}") from error
