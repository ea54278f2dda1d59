"""The manifest root: every TOML and YAML file below it, and the git commit it is at."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from hal0 import resources
from hal0.core.documents import ManifestError, parse_file
from hal0.core.schema import Manifest
from hal0.core.validate import Located, validate

SUFFIXES = frozenset({".toml", ".yaml", ".yml"})
_GIT_DEADLINE = 5.0


@dataclass(frozen=True, slots=True)
class ManifestSet:
    """What one reading of the root gave. ``revision`` is empty where the root is in no git repository."""

    manifests: tuple[Located[Manifest], ...] = ()
    errors: tuple[ManifestError, ...] = ()
    revision: str = ""
    files: int = 0


@dataclass
class ManifestRoot:
    """Reads manifests from a folder, or from one file. Unchanged files are not parsed and validated again."""

    path: Path
    _parsed: dict[str, tuple[str, list[Located[Manifest]], list[ManifestError]]] = field(default_factory=dict)

    async def load(self) -> ManifestSet:
        """Read the root in a worker thread: never raises; what can't be read is an error of the set."""
        return await asyncio.to_thread(self.read)

    def read(self) -> ManifestSet:
        """Read all files."""
        try:
            paths = sorted(self._paths())
        except OSError as error:
            return ManifestSet(errors=(_unreadable(self.path, error),))
        manifests: list[Located[Manifest]] = []
        errors: list[ManifestError] = []
        for path in paths:
            found, wrong = self._parse(path)
            manifests += found
            errors += wrong
        self._forget_all_but({str(path) for path in paths})
        return ManifestSet(tuple(manifests), tuple(errors), revision(self.path), len(paths))

    def _paths(self) -> Iterator[Path]:
        if self.path.is_file():
            yield self.path
            return
        for path in _walk(self.path):
            if path.suffix in SUFFIXES:
                yield path

    def _parse(self, path: Path) -> tuple[list[Located[Manifest]], list[ManifestError]]:
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            return [], [_unreadable(path, error)]
        known = self._parsed.get(str(path))
        if known is None or known[0] != text:
            documents, errors = parse_file(str(path), text)
            good, invalid = validate(documents)
            known = self._parsed[str(path)] = (text, good, [*errors, *invalid])
        return known[1], known[2]

    def _forget_all_but(self, files: set[str]) -> None:
        for gone in set(self._parsed) - files:
            del self._parsed[gone]


def _walk(folder: Path) -> Iterator[Path]:
    """Yield the files below a folder; hidden files and folders (.git, an editor's) are not manifests."""
    for path in folder.iterdir():
        if path.name.startswith("."):
            continue
        if path.is_dir():
            yield from _walk(path)
        else:
            yield path


def _unreadable(path: Path, error: Exception) -> ManifestError:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return ManifestError(str(path), 0, f"can't be read: {reason}")


def revision(path: Path) -> str:
    """Return the commit of the repository that holds ``path``, with ``-dirty`` for uncommitted changes below it."""
    folder = path if path.is_dir() else path.parent
    commit = _git(folder, "rev-parse", "--short=12", "HEAD")
    if not commit:
        return ""
    return commit + ("-dirty" if _git(folder, "status", "--porcelain", "--", str(path.resolve())) else "")


def _git(folder: Path, *words: str) -> str:
    # The daemon is root and the checkout may be anyone's: trust it for reading, and run none of its hooks.
    options = ("-c", "safe.directory=*", "-c", "core.fsmonitor=false", "--no-optional-locks")
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *options, *words],
            capture_output=True,
            text=True,
            timeout=_GIT_DEADLINE,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def seed_profiles() -> tuple[Located[Manifest], ...]:
    """Return the profiles that ship with hal0."""
    documents = [document for file, text in resources.seeds() for document in parse_file(file, text)[0]]
    return tuple(validate(documents)[0])
