"""Whole GGUF files, small enough to be made by a test: values and tensors of 32-bit floats."""

from __future__ import annotations

import array
import math
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from headers import text

Value: TypeAlias = bool | int | float | str | list[int] | list[float] | list[str]
_ALIGNMENT = 32
_TYPES: Mapping[type, tuple[int, str]] = {bool: (7, "?"), int: (4, "I"), float: (6, "f")}
"""GGUF's number of each type, and struct's letter for it. llama.cpp wants 32 bits, signed ones in lists."""


@dataclass(frozen=True)
class Tensor:
    """``shape`` has the dimension first whose neighbours lie side by side; ``values`` are as many as it says."""

    name: str
    shape: tuple[int, ...]
    values: array.array[float]

    def __post_init__(self) -> None:
        assert len(self.values) == math.prod(self.shape), self.name


def gguf(values: Mapping[str, Value], tensors: list[Tensor]) -> bytes:
    """Return a file."""
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(values))
    head += b"".join(text(key) + _value(found) for key, found in values.items())
    body = b""
    for tensor in tensors:
        head += text(tensor.name) + struct.pack(f"<I{len(tensor.shape)}Q", len(tensor.shape), *tensor.shape)
        head += struct.pack("<IQ", 0, len(body))
        body += _padded(tensor.values.tobytes())
    return _padded(head) + body


def weights(seed: int) -> Iterator[float]:
    """Yield numbers between -0.5 and 0.5, the same ones on every machine."""
    state = seed
    while True:
        state = (state * 1664525 + 1013904223) % 2**32
        yield state / 2**32 - 0.5


def _value(found: Value) -> bytes:
    if isinstance(found, str):
        return struct.pack("<I", 8) + text(found)
    if not isinstance(found, list):
        number, letter = _TYPES[type(found)]
        return struct.pack(f"<I{letter}", number, found)
    if isinstance(found[0], str):
        return struct.pack("<IIQ", 9, 8, len(found)) + b"".join(text(str(word)) for word in found)
    number, letter = (5, "i") if isinstance(found[0], int) else _TYPES[type(found[0])]
    return struct.pack(f"<IIQ{len(found)}{letter}", 9, number, len(found), *found)


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % _ALIGNMENT)
