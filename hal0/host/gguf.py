"""What a model's file says of itself: the head of GGUF files, read with bounds. Decision 20 says why it is hal0's own.

A file may be cut short, damaged, or made to harm: whatever is in it, the answer is facts, or a reason.
"""

from __future__ import annotations

import math
import stat
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, NamedTuple, TypeAlias

from hal0.core.facts import Fact, Known, Unknown
from hal0.core.modelfile import ModelFacts, ModelFile
from hal0.core.modelpath import parts
from hal0.host.folder import files_in, is_folder_model
from hal0.host.threads import in_thread

Value: TypeAlias = int | float | str | tuple[int, ...]

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_LONGEST_HEAD = 1 << 20  # bytes before the tokenizer's; some thousands are usual
_MOST_KEPT = 4096  # elements of an array
_MOST_LAYERS = 4096
_MOST_DIMENSIONS = 8
_MOST_ELEMENTS = 1 << 50
_MOST = 1 << 16  # heads of a layer, or elements of a head
_MOST_TOKENS = 1 << 31
_TOKENIZER = "tokenizer."
_SCALARS = dict(enumerate("BbHhIif?")) | {10: "Q", 11: "q", 12: "d"}
_TEXT, _ARRAY = 8, 9
_READ_S = 5.0  # a pass waits for it: a disk that has to spin up is asked again at the next one


class Part(NamedTuple):
    """One file of a model. ``size`` is in bytes, ``modified`` in nanoseconds: together they tell a change."""

    path: str
    size: int
    modified: int


Parts: TypeAlias = Fact[tuple[Part, ...]]


class BadHeadError(Exception):
    """The file is not a GGUF file that hal0 can read; the message says why."""


@dataclass
class ModelFiles:
    """The models' files that were read, each one again when it changes. ``read_s`` is the deadline of a look."""

    read_s: float = _READ_S
    _seen: dict[str, tuple[Parts, ModelFile]] = field(default_factory=dict)

    def of(self, path: str) -> ModelFile:
        """Return what was last read of a model."""
        seen = self._seen.get(path)
        return seen[1] if seen else _unread("its model's file was not looked at yet")

    async def look(self, paths: Iterable[str]) -> None:
        """Read the files that are new or have changed, in a thread: disks may be slow, or far away."""
        found = {path: look_at(path) for path in sorted(set(paths))}
        changed = {path: parts for path, parts in found.items() if self._seen.get(path, (None,))[0] != parts}
        if changed:
            self._seen |= await self._read(changed)
        self._seen = {path: self._seen[path] for path in found}

    async def _read(self, changed: Mapping[str, Parts]) -> dict[str, tuple[Parts, ModelFile]]:
        try:
            return await in_thread(
                lambda: {path: (parts, _read_parts(parts)) for path, parts in changed.items()}, self.read_s
            )
        except TimeoutError:
            late = Unknown(f"no answer from its disk in {self.read_s:g} s")
            return {path: (late, _unread(f"{path}: {late.reason}")) for path in changed}


def read_model(path: str) -> ModelFile:
    """Return what is known of a model: one file, or all parts of one that was split (``-00001-of-00003.gguf``)."""
    return _read_parts(look_at(path))


def _unread(reason: str) -> ModelFile:
    return ModelFile(size=Unknown(reason), facts=Unknown(reason))


def look_at(path: str) -> Parts:
    """Return the files of a model, the first part first, or why one of them is not to be had."""
    found: list[Part] = []
    for name in parts(path):
        try:
            seen = Path(name).stat()
        except (OSError, ValueError) as error:
            return Unknown(f"{name}: {getattr(error, 'strerror', None) or error}")
        if stat.S_ISDIR(seen.st_mode):
            return _folder(name)
        if not stat.S_ISREG(seen.st_mode):
            return Unknown(f"{name}: not a file")
        found.append(Part(name, seen.st_size, seen.st_mtime_ns))
    return Known(tuple(found))


def _folder(path: str) -> Parts:
    """Return the files of a model that is a folder, its configuration first."""
    try:
        if not is_folder_model(Path(path)):
            return Unknown(f"{path}: a folder without a model in it")
        seen = [(str(file), file.stat()) for file in files_in(Path(path))]
    except OSError as error:
        return Unknown(f"{path}: {error.strerror}")
    return Known(tuple(Part(file, each.st_size, each.st_mtime_ns) for file, each in seen))


def _read_parts(parts: Parts) -> ModelFile:
    if isinstance(parts, Unknown):
        return _unread(parts.reason)
    first, size = parts.value[0].path, sum(part.size for part in parts.value)
    try:
        with Path(first).open("rb") as file:
            return ModelFile(Known(size), Known(_facts(Head(file).values(), size)))
    except BadHeadError as error:
        return ModelFile(Known(size), Unknown(f"{first}: {error}"))
    except OSError as error:
        return ModelFile(Known(size), Unknown(f"{first}: {error.strerror}"))


class Head:
    """The head of a GGUF file: its metadata and its tensors, of which no more than ``most`` bytes are read."""

    def __init__(self, file: BinaryIO, most: int = _LONGEST_HEAD) -> None:
        self._file = file
        self._left = self._most = most
        self._tensors = 0

    def values(self, *, whole: bool = False) -> dict[str, Value]:
        """Return the values by key: numbers, texts and lists of whole numbers.

        Unless ``whole``, it ends where the tokenizer begins, which is long and tells nothing of memory.
        """
        if self._take(len(_MAGIC)) != _MAGIC:
            raise BadHeadError("not a GGUF file")
        if (version := self._number("I")) not in _VERSIONS:
            raise BadHeadError(f"GGUF version {version}, not one of {', '.join(map(str, _VERSIONS))}")
        self._tensors, count = int(self._number("Q")), self._number("Q")
        found: dict[str, Value] = {}
        for _ in range(int(count)):
            key = self._text()
            if key.startswith(_TOKENIZER) and not whole:
                break
            found[key] = self._value(int(self._number("I")))
        return found

    def elements(self) -> int:
        """Return how many numbers the tensors hold: the parameters. Call it after all values were read."""
        found = 0
        for _ in range(self._tensors):
            self._text()
            if (dimensions := int(self._number("I"))) > _MOST_DIMENSIONS:
                raise BadHeadError(f"a tensor of {dimensions} dimensions")
            found += math.prod(int(size) for size in self._numbers("Q", dimensions))
            self._take(struct.calcsize("<IQ"))  # its type, and where it lies
        if found > _MOST_ELEMENTS:
            raise BadHeadError(f"tensors of {found:.3g} elements")
        return found

    def _take(self, count: int) -> bytes:
        """Return the next bytes. What the file says of its own lengths is bounded before anything is read."""
        if count > self._left:
            raise BadHeadError(f"its header is longer than {self._most} bytes")
        self._left -= count
        taken = self._file.read(count)
        if len(taken) < count:
            raise BadHeadError("it ends within its header")
        return taken

    def _number(self, code: str) -> int | float:
        return self._numbers(code, 1)[0]

    def _numbers(self, code: str, count: int) -> tuple[int | float, ...]:
        layout = struct.Struct(f"<{code}")
        taken = self._take(layout.size * count)
        return tuple(number for (number,) in layout.iter_unpack(taken[: layout.size * _MOST_KEPT]))

    def _text(self) -> str:
        return self._take(int(self._number("Q"))).decode(errors="replace")

    def _value(self, kind: int) -> Value:
        """Return a value, of use or not: only so is the next one found."""
        if kind == _TEXT:
            return self._text()
        if kind == _ARRAY:
            return self._list(int(self._number("I")), int(self._number("Q")))
        return self._number(self._code(kind))

    def _list(self, kind: int, count: int) -> tuple[int, ...]:
        """Return a list's whole numbers, the first thousands of them. No others are of use here."""
        if kind == _TEXT:
            for _ in range(count):
                self._text()
            return ()
        return tuple(number for number in self._numbers(self._code(kind), count) if isinstance(number, int))

    def _code(self, kind: int) -> str:
        if kind not in _SCALARS:
            raise BadHeadError(f"a value of the unknown type {kind}")
        return _SCALARS[kind]


def _facts(values: Mapping[str, Value], size: int) -> ModelFacts:
    architecture = values.get("general.architecture")
    if not isinstance(architecture, str):
        raise BadHeadError("it does not say its architecture")
    keys = _Keys(architecture, values)
    layers = keys.number("block_count", _MOST_LAYERS)
    heads = keys.per_layer("attention.head_count", layers, None)
    kv_heads = keys.per_layer("attention.head_count_kv", layers, heads)
    head = keys.number("embedding_length", _MOST_TOKENS) // max(1, *heads)
    return ModelFacts(
        architecture=architecture,
        size=size,
        layers=layers,
        # Without a mask over what comes later, nothing is kept from token to token.
        kv_heads=kv_heads if values.get(f"{architecture}.attention.causal", True) else (0,) * layers,
        head_k=keys.number("attention.key_length", _MOST, head),
        head_v=keys.number("attention.value_length", _MOST, head),
        context_length=keys.number("context_length", _MOST_TOKENS),
    )


@dataclass(frozen=True, slots=True)
class _Keys:
    """Whole numbers of an architecture, within what a model may have: a damaged file must not claim a petabyte."""

    architecture: str
    values: Mapping[str, Value]

    def number(self, key: str, most: int, default: int | None = None) -> int:
        return self._checked(key, self._value(key, default), least=1, most=most)

    def per_layer(self, key: str, layers: int, default: tuple[int, ...] | None) -> tuple[int, ...]:
        value = self._value(key, default)
        each = value if isinstance(value, tuple) else (value,) * layers
        if len(each) != layers:
            raise BadHeadError(f"{len(each)} values of {self.architecture}.{key} for {layers} layers")
        return tuple(self._checked(key, heads, least=0, most=_MOST) for heads in each)

    def _value(self, key: str, default: object) -> object:
        found = self.values.get(f"{self.architecture}.{key}", default)
        if found is None:
            raise BadHeadError(f"no {self.architecture}.{key} before its tokenizer")
        return found

    def _checked(self, key: str, value: object, *, least: int, most: int) -> int:
        if not isinstance(value, int) or not least <= value <= most:
            raise BadHeadError(f"{self.architecture}.{key} is {value!r:.40}, not within {least} and {most}")
        return value
