"""The manifest root: every TOML and YAML file below it, and the git commit it is at."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from hal0 import resources
from hal0.core.documents import ManifestError, parse_file
from hal0.core.kinds import Manifest
from hal0.core.lock import LOCK_NAME
from hal0.core.pins import Lock
from hal0.core.validate import Located, validate
from hal0.host.git import revision
from hal0.host.lockfile import LockFile, lock_among, read_lock

SUFFIXES = frozenset({".toml", ".yaml", ".yml"})


@dataclass(frozen=True, slots=True)
class ManifestSet:
    """What one reading of the root gave. ``revision`` is empty where the root is in no git repository.

    ``texts`` maps the path of each file that can be read, below the root, to its text, line ends as they are. The lock
    is among them; ``lock`` is None where it can't be read, which is one of ``errors``.
    """

    manifests: tuple[Located[Manifest], ...] = ()
    errors: tuple[ManifestError, ...] = ()
    revision: str = ""
    files: int = 0
    texts: Mapping[str, str] = field(default_factory=dict)
    lock: Lock | None = field(default_factory=Lock)

    def locked(self, found: LockFile) -> ManifestSet:
        """Return the set with the lock that lies beside its manifests."""
        texts = {LOCK_NAME: found.text} if found.text is not None else {}
        return replace(
            self,
            errors=(*self.errors, *([found.error] if found.error else [])),
            files=self.files + found.exists,
            texts={**self.texts, **texts},
            lock=found.lock,
        )

    def having(self, file: str, text: str | None) -> ManifestSet:
        """Return the set as it would be if one file had this text; None is: if there were no such file."""
        documents, errors = parse_file(file, text) if text is not None else ([], [])
        good, invalid = validate(documents)
        manifests = [found for found in self.manifests if found.document.file != file]
        others = [error for error in self.errors if error.file != file]
        return replace(self, manifests=(*manifests, *good), errors=(*others, *errors, *invalid))


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
        texts = {
            path.relative_to(self.base).as_posix(): self._parsed[str(path)][0]
            for path in paths
            if str(path) in self._parsed
        }
        found_set = ManifestSet(tuple(manifests), tuple(errors), revision(self.path), len(paths), texts)
        return found_set.locked(read_lock(self.base))

    @property
    def base(self) -> Path:
        """The folder that paths of ``ManifestSet.texts`` are below."""
        return self.path.parent if self.path.is_file() else self.path

    def _paths(self) -> Iterator[Path]:
        if self.path.is_file():
            yield self.path
            return
        for path in _walk(self.path):
            if path.suffix in SUFFIXES:
                yield path

    def _parse(self, path: Path) -> tuple[list[Located[Manifest]], list[ManifestError]]:
        try:
            text = path.read_bytes().decode()
        except (OSError, UnicodeDecodeError) as error:
            self._parsed.pop(str(path), None)
            return [], [_unreadable(path, error)]
        known = self._parsed.get(str(path))
        if known is None or known[0] != text:
            known = self._parsed[str(path)] = (text, *_read(str(path), text))
        return known[1], known[2]

    def _forget_all_but(self, files: set[str]) -> None:
        for gone in set(self._parsed) - files:
            del self._parsed[gone]


def parsed(base: Path, texts: Mapping[str, str]) -> ManifestSet:
    """Return what some texts would give as files below a folder."""
    own = {file: text for file, text in texts.items() if file != LOCK_NAME}
    found = [_read(str(base / file), text) for file, text in sorted(own.items())]
    manifests = tuple(one for good, _ in found for one in good)
    errors = tuple(error for _, wrong in found for error in wrong)
    return ManifestSet(manifests, errors, files=len(own), texts=own).locked(lock_among(base, texts))


def _read(file: str, text: str) -> tuple[list[Located[Manifest]], list[ManifestError]]:
    documents, errors = parse_file(file, text.replace("\r\n", "\n").replace("\r", "\n"))
    good, invalid = validate(documents)
    return good, [*errors, *invalid]


def is_of_root(path: Path) -> bool:
    """Return whether a path may be one that a root is read from: a manifest, or the lock."""
    return path.suffix in SUFFIXES or path.name == LOCK_NAME


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


def seed_manifests() -> tuple[Located[Manifest], ...]:
    """Return the profiles and models that ship with hal0."""
    documents = [document for file, text in resources.seeds() for document in parse_file(file, text)[0]]
    return tuple(validate(documents)[0])
