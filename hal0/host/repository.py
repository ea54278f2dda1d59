"""A whole repository of the hub, fetched into a folder: in place whole or not at all.

Its files come one by one into ``PATH.part``, a folder, each as any download does; that gets its name when all of them
are there and right. It is locked by whoever fills it. All of it blocks: run it in a thread.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from hal0.core.catalog import PART
from hal0.core.model import Phase, Source
from hal0.errors import StepFailed
from hal0.host import hub
from hal0.host.download import Limits, Stopped, Told, check_room, download, is_right
from hal0.host.folder import CONFIG, held, is_folder_model
from hal0.host.hub import RepoPart
from hal0.host.part import explained, kept_of
from hal0.host.threads import Wire
from hal0.host.whole import sync

_LOOK_S = 0.25


def fetch_folder(source: Source, path: Path, told: Told, wire: Wire, limits: Limits) -> None:
    """Put a repository in place, unless a model is there. Raises ``StepFailed``; ``Stopped`` when ``wire`` is cut."""
    if _is_there(path):
        return
    parts = _wanted(source)
    half = path.with_name(path.name + PART)

    def wait() -> None:
        if wire.wait(_LOOK_S):
            raise Stopped

    with explained(path), held(half, wait):
        if _is_there(path):
            return  # another process had it
        check_room(path.parent, sum(_need(part, half) for part in parts), limits.reserve)
        _fetch_all(parts, half, told, wire, limits)
        _drop_others(half, {half / part.path for part in parts})
        half.rename(path)
        sync(path.parent)


def size_of_all(source: Source) -> int | None:
    """Return how large a repository's files are together; None where one has no size. Raises ``StepFailed``."""
    sizes = [part.remote.size for part in _wanted(source)]
    return sum(size for size in sizes if size is not None) if None not in sizes else None


def _is_there(path: Path) -> bool:
    """Return whether a model is in place. Raises ``StepFailed`` where something else is."""
    with explained(path):
        if not path.exists():
            return False
        if path.is_dir() and is_folder_model(path):
            return True
    raise StepFailed(f"{path} is there, and is no model's folder", hint="Name another `path`, or move it away.")


def _wanted(source: Source) -> Sequence[RepoPart]:
    """Return the files that make the model. Raises ``StepFailed`` where they would not make one."""
    parts = [part for part in hub.repository(source) if source.takes(part.path)]
    if strange := [part.path for part in parts if not _is_below(part.path)]:
        raise StepFailed(
            f"{source.repo} names a file {strange[0]!r}, which is none of a folder", hint="Don't trust it."
        )
    names = {part.path for part in parts}
    if CONFIG not in names or not any("/" not in name and name.endswith(".safetensors") for name in names):
        of = " that `include` takes" if source.include else ""
        hint = "A GGUF file is named by its file. Else look at the `include` of the model's source."
        raise StepFailed(f"{source.repo} at {source.revision} has no {CONFIG} and *.safetensors{of}", hint=hint)
    return parts


def _is_below(name: str) -> bool:
    path = PurePosixPath(name)
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts and "\\" not in name


def _need(part: RepoPart, half: Path) -> int:
    file = half / part.path
    return 0 if file.exists() else max(0, (part.remote.size or 0) - kept_of(file))


def _fetch_all(parts: Sequence[RepoPart], half: Path, told: Told, wire: Wire, limits: Limits) -> None:
    sizes = [part.remote.size or 0 for part in parts]
    total, before = sum(sizes), 0
    for part, size in zip(parts, sizes, strict=True):
        file, done_before = half / part.path, before

        def tell(done: int, _: int | None, phase: Phase, done_before: int = done_before) -> None:
            told(done_before + done, total, phase)

        if file.exists() and not _is_right(file, part, tell, wire):
            file.unlink()  # of an earlier commit
        download(part.remote, file, tell, wire, limits)
        if not part.remote.sha256 and not _is_blob(file, part.blob):
            file.unlink()
            raise StepFailed(f"{part.remote.shown} is not what the hub has: removed", hint="Try again.")
        before += size


def _is_right(file: Path, part: RepoPart, told: Told, wire: Wire) -> bool:
    if part.remote.sha256:
        return is_right(file, part.remote.sha256, told, wire)
    return _is_blob(file, part.blob)


def _is_blob(file: Path, blob: str) -> bool:
    """Return whether a file is git's object of that id, if one is said. They are small: all others have a sha256."""
    if not blob:
        return True
    content = file.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest() == blob


def _drop_others(half: Path, wanted: set[Path]) -> None:
    """Remove what an earlier commit had."""
    for folder, _, names in os.walk(half):
        for name in names:
            if Path(folder) / name not in wanted:
                (Path(folder) / name).unlink()
