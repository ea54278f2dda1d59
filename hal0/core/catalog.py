"""The list of models: those that are declared, and what else lies in the model directories."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from hal0.core.modelpath import mount_root, parts, stem
from hal0.core.registry import ModelSpec

PART = ".part"
"""What a half file is called after its name."""
_LONGEST = 128
_CACHED = re.compile(r"/models--[^/]+--([^/]+)/snapshots/[0-9a-f]+\Z")
_NOT_IN_A_NAME = re.compile(r"[^a-z0-9._/@+-]+")


@dataclass(frozen=True, slots=True, order=True)
class FoundFile:
    """A file that was found: its size in bytes, and when it was changed, in nanoseconds."""

    path: str
    size: int
    modified: int


@dataclass(frozen=True, slots=True)
class Entry:
    """One model of the list. ``spec`` is None where no manifest declares it.

    ``files`` are those of its files that are there, ``kept`` the bytes of those that are half there.
    """

    name: str
    path: str
    files: tuple[FoundFile, ...]
    is_here: bool
    kept: int = 0
    mmproj: str = ""
    spec: ModelSpec | None = None

    @property
    def size(self) -> int:
        """The bytes of its files that are there."""
        return sum(file.size for file in self.files)


def catalog(registry: Mapping[str, ModelSpec], found: Iterable[FoundFile], folders: Sequence[str]) -> tuple[Entry, ...]:
    """Return the declared models by name, then the others that were found. ``found`` has the declared ones' files.

    ``folders`` are those that were looked through, the model directory first. A split model is one entry, and the
    vision part that lies beside a model is its own, not another one.
    """
    files = {file.path: file for file in found}
    declared = [_declared(spec, files) for _, spec in sorted(registry.items())]
    known = {path for spec in registry.values() for path in spec.files}
    firsts = dict.fromkeys(parts(path)[0] for path in sorted(files) if path not in known and not path.endswith(PART))
    models = [path for path in firsts if not is_mmproj(path)]
    names = _named(models, folders, {name for spec in registry.values() for name in (spec.name, *spec.aliases)})
    return (*declared, *(_other(name, path, files) for name, path in zip(names, models, strict=True)))


def is_mmproj(path: str) -> bool:
    """Return whether a file is a model's vision part, by the name that everyone gives it."""
    return "mmproj" in posixpath.basename(path).lower()


def model_id(path: str) -> str:
    """Return the id of a model by its path: lower case, without its format and the number of its part."""
    name = _NOT_IN_A_NAME.sub("-", stem(path).lower()).strip("-._/@+")
    return name[-_LONGEST:].lstrip("-._/@+") or "model"


def manifest_of(entry: Entry, model_dir: str) -> dict[str, str]:
    """Return the Model manifest that would declare what was found."""
    found = {"kind": "Model", "name": entry.name, "path": _below(entry.path, model_dir)}
    return found | ({"mmproj": _below(entry.mmproj, model_dir)} if entry.mmproj else {})


def _declared(spec: ModelSpec, files: Mapping[str, FoundFile]) -> Entry:
    return Entry(
        name=spec.name,
        path=spec.path,
        files=tuple(files[path] for path in spec.files if path in files),
        is_here=all(path in files for path in spec.files),
        kept=sum(files[path + PART].size for path in spec.files if path + PART in files),
        mmproj=spec.mmproj,
        spec=spec,
    )


def _other(name: str, path: str, files: Mapping[str, FoundFile]) -> Entry:
    own = parts(path)
    there = tuple(files[part] for part in own if part in files)
    return Entry(name, path, there, is_here=len(there) == len(own), mmproj=_sidecar(path, files))


def _sidecar(path: str, files: Collection[str]) -> str:
    """Return the vision part in a model's folder: where there are several, nobody can tell which one is meant."""
    if not path.endswith(".gguf"):
        return ""
    folder = posixpath.dirname(path)
    beside = [other for other in files if is_mmproj(other) and posixpath.dirname(other) == folder]
    whole = [other for other in beside if not other.endswith(PART)]
    return whole[0] if len(whole) == 1 else ""


def _named(paths: Iterable[str], folders: Sequence[str], taken: Collection[str]) -> list[str]:
    """Return an id for each path that nobody else has: that of its name, else with its folders, else with a number."""
    used, names = set(taken), list[str]()
    for path in paths:
        short, long = model_id(_own_name(path)), model_id(_below(path, mount_root(path, folders)))
        numbered = (f"{short[: _LONGEST - 8]}-{number}" for number in range(2, len(used) + 3))
        name = next(name for name in (short, long, *numbered) if name not in used)
        used.add(name)
        names.append(name)
    return names


def _own_name(path: str) -> str:
    """Return what a model is called by its path: in the hub's cache a folder is called after a commit."""
    cached = _CACHED.search(path)
    return cached[1] if cached else posixpath.basename(path)


def _below(path: str, folder: str) -> str:
    root = folder.rstrip("/") + "/"
    return path.removeprefix(root)
