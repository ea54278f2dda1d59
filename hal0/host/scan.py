"""What lies in a folder of models: names and sizes, bounded in depth and number."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from hal0.core.catalog import PART, FoundFile
from hal0.host.folder import CONFIG, as_one

_DEEPEST = 4  # folders below the model directory: owner, name, and some that a repository has
_MOST = 20_000
_SUFFIXES = (".gguf", ".gguf.part")
_WHISPER = ("ggml-", ".bin")  # how whisper.cpp calls its models


def scan(folder: str) -> tuple[FoundFile, ...]:
    """Return the model files below a folder, and those that are half there; a model that is a folder is one of them.

    What can't be read is left out.

    Links that lead out of the folder are not followed, and none to a folder is.
    """
    root = os.path.realpath(folder)
    entries = list(_entries(folder, _DEEPEST, [_MOST]))
    found = (_found(entry, root) for entry in entries if _is_model(entry.name))
    folders = (as_one(Path(entry.path).parent) for entry in entries if entry.name == CONFIG and _found(entry, root))
    return tuple(sorted(each for each in (*found, *folders) if each))


def _entries(folder: str, depth: int, left: list[int]) -> Iterator[os.DirEntry[str]]:
    """Yield the entries below a folder that are no folders; ``left`` counts how many names may still be read."""
    try:
        with os.scandir(folder) as entries:
            folders: list[str] = []
            for entry in entries:
                left[0] -= 1
                if left[0] < 0:
                    return
                if not entry.is_dir(follow_symlinks=False):
                    yield entry
                elif depth and not entry.name.startswith(".") and not entry.name.endswith(PART):
                    folders.append(entry.path)
    except OSError:
        return
    for inner in sorted(folders):
        yield from _entries(inner, depth - 1, left)


def _is_model(name: str) -> bool:
    return name.endswith(_SUFFIXES) or (name.startswith(_WHISPER[0]) and name.endswith(_WHISPER[1]))


def _found(entry: os.DirEntry[str], root: str) -> FoundFile | None:
    try:
        if entry.is_symlink() and not Path(entry.path).resolve().is_relative_to(root):
            return None
        seen = entry.stat()
        return FoundFile(entry.path, seen.st_size, seen.st_mtime_ns) if entry.is_file() else None
    except OSError:
        return None
