"""The models on disk, for the list of them: folders are looked through, and headers read once."""

from __future__ import annotations

import stat
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hal0.core.catalog import PART, FoundFile
from hal0.core.facts import Fact, Unknown
from hal0.core.modelfile import ModelCard
from hal0.errors import HostUnreachable
from hal0.host.folder import as_one
from hal0.host.gguf import Parts, look_at
from hal0.host.modelcard import read_card
from hal0.host.scan import scan
from hal0.host.threads import in_thread

_LOOK_S = 20.0
_READ_S = 10.0
"""Seconds for headers in one look: those that are left are read at the next one."""
_LATER = Unknown("not read yet: ask again")


@dataclass
class Library:
    """Looks at model files, and remembers what their headers say for as long as they stay the same."""

    _cards: dict[Parts, Fact[ModelCard]] = field(default_factory=dict)

    async def files(self, folders: Sequence[str], declared: Iterable[str]) -> tuple[FoundFile, ...]:
        """Return the model files below some folders, and those of the declared ones that are there, wherever they lie.

        Raises ``HostUnreachable`` where the disk does not answer in time.
        """
        wanted = [path + end for path in declared for end in ("", PART)]
        try:
            return await in_thread(lambda: tuple({*_scans(folders), *_stats(wanted)}), _LOOK_S)
        except TimeoutError:
            raise HostUnreachable(f"no answer from the disk of {', '.join(folders)} in {_LOOK_S:g} s") from None

    async def cards(self, paths: Iterable[str]) -> Mapping[str, Fact[ModelCard]]:
        """Return what each model's header says, by the path of its first file."""
        wanted = list(paths)
        try:
            return await in_thread(lambda: self._read(wanted), _READ_S * 2)
        except TimeoutError:
            return dict.fromkeys(wanted, _LATER)

    def _read(self, paths: list[str]) -> dict[str, Fact[ModelCard]]:
        end, found = time.monotonic() + _READ_S, dict[str, Fact[ModelCard]]()
        for path in paths:
            there = look_at(path)
            if there not in self._cards and time.monotonic() < end:
                self._cards[there] = read_card(there)
            found[path] = self._cards.get(there, _LATER)
        return found


def _scans(folders: Sequence[str]) -> Iterable[FoundFile]:
    return (file for folder in folders for file in scan(folder))


def _stats(paths: Iterable[str]) -> Iterable[FoundFile]:
    for path in paths:
        try:
            seen = Path(path).stat()
        except (OSError, ValueError):
            continue
        if not stat.S_ISDIR(seen.st_mode):
            yield FoundFile(path, seen.st_size, seen.st_mtime_ns)
        elif folder := as_one(Path(path)):
            yield folder
