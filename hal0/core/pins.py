"""Pins: what a model's files or an image were when they were locked. Plain values, as hal0.lock has them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from hal0.core.definition import digest
from hal0.core.model import Source, SourceKind

_SHORT = 16
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHOWN = 12


@dataclass(frozen=True, slots=True)
class FilePin:
    """One file of a model: its name, its sha256, and its bytes where they are known."""

    name: str
    sha256: str
    size: int | None = None

    def allows(self, size: int, sha256: str | None) -> bool:
        """Return whether a file of that size may be this one; ``sha256`` is None where nobody has hashed it."""
        return self.size in {None, size} and sha256 in {None, self.sha256}


@dataclass(frozen=True, slots=True)
class ModelPin:
    """A Model: where its files came from, at which commit of the hub, and what they are, its vision part last."""

    source: str
    files: tuple[FilePin, ...]
    commit: str = ""

    def __str__(self) -> str:
        """``sha256:3c85d1... (commit c0ffee...)``, shortened."""
        return f"sha256:{short(self.files)[:_SHOWN]}" + (f" (commit {self.commit[:_SHOWN]})" if self.commit else "")


@dataclass(frozen=True, slots=True)
class ImagePin:
    """An image: its digest in its repository (``sha256:...``); of one that comes from none, the id that it has here."""

    digest: str = ""
    id: str = ""

    def __str__(self) -> str:
        """``sha256:3c85d1...``, or ``id 3c85d1...``, shortened."""
        return f"id {self.id[:_SHOWN]}" if self.id else self.digest[: len("sha256:") + _SHOWN]

    def place(self, reference: str) -> str:
        """Return what podman is to run in the place of a reference: ``repo@sha256:...``, or the id."""
        return f"{repository(reference)}@{self.digest}" if self.digest else self.id


@dataclass(frozen=True, slots=True)
class Lock:
    """What hal0.lock says. Models are by their names, images by their references, as they are declared."""

    models: Mapping[str, ModelPin] = field(default_factory=dict)
    images: Mapping[str, ImagePin] = field(default_factory=dict)


def short(files: tuple[FilePin, ...]) -> str:
    """Return what tells the content of some files from any other: one file's is the beginning of its sha256."""
    sums = [file.sha256 for file in files]
    return sums[0][:_SHORT] if len(sums) == 1 else digest("\n".join(sums))[:_SHORT]


def repository(reference: str) -> str:
    """Return an image's reference without its tag: the colon of a registry's port stays."""
    folder, slash, name = reference.rpartition("/")
    return folder + slash + name.partition(":")[0]


def is_pinned_by_itself(reference: str) -> bool:
    """Return whether an image's reference names a digest: it can't mean another image tomorrow."""
    return "@" in reference


def names_commit(source: Source) -> bool:
    """Return whether a whole repository is named at a commit: its files can't be others tomorrow."""
    return source.is_folder and bool(_COMMIT.fullmatch(source.revision))


def source_name(source: Source) -> str:
    """Return where a model comes from, as its pin says it; empty where it is put there by hand."""
    match source.kind:
        case SourceKind.URL:
            return source.url.partition("?")[0]  # what follows may be a key
        case SourceKind.HUB:
            return f"{source.repo}/{source.file}@{source.revision}"
    return ""
