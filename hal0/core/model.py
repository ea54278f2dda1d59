"""Where a model's files come from, and how far a transfer of them is. Plain values."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase


class SourceKind(StrEnum):
    """Who has a model's file."""

    FILE = "file"  # it is put there by hand
    URL = "url"
    HUB = "hub"  # a repository of the Hugging Face hub


@dataclass(frozen=True, slots=True)
class Source:
    """Where a model's file comes from. ``url`` is of a URL; ``repo``, ``file`` and ``revision`` are of the hub.

    Without a ``file`` it is the whole repository, a folder: those of its files that match one of ``include``, if any.
    """

    kind: SourceKind = SourceKind.FILE
    url: str = ""
    repo: str = ""
    file: str = ""
    revision: str = "main"
    include: tuple[str, ...] = ()

    @property
    def is_folder(self) -> bool:
        """Whether it is a whole repository."""
        return self.kind is SourceKind.HUB and not self.file

    def takes(self, path: str) -> bool:
        """Return whether a file of the repository is one of the model; ``*`` stands for slashes, too."""
        return not self.include or any(fnmatchcase(path, pattern) for pattern in self.include)


@dataclass(frozen=True, slots=True)
class ListedFile:
    """A file as a repository of the hub lists it; ``size`` is in bytes, None where that is not said."""

    path: str
    size: int | None


@dataclass(frozen=True, slots=True)
class Version:
    """What a source has now: the commit of the hub, and the file's sha256 and bytes, as far as somebody says them."""

    commit: str = ""
    sha256: str = ""
    size: int | None = None


class Phase(StrEnum):
    """What a transfer does."""

    CHECKING = "checking"  # what is there already is hashed
    FETCHING = "fetching"


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a transfer is, in bytes; ``total`` is None where nobody says."""

    done: int
    total: int | None
    phase: Phase = Phase.FETCHING
