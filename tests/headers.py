"""Heads of model files for tests, written byte by byte."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import TypeAlias

Value: TypeAlias = bool | int | float | str | list[int] | list[str]

LLAMA: Mapping[str, Value] = {
    "general.architecture": "llama",
    "general.languages": ["en", "de"],
    "llama.block_count": 4,
    "llama.context_length": 1024,
    "llama.embedding_length": 256,
    "llama.rope.freq_base": 10000.0,
    "llama.attention.head_count": 8,
    "llama.attention.head_count_kv": 2,
    "tokenizer.ggml.tokens": ["a", "b"],
}
"""A model of four layers: two heads of 32 elements are kept in each."""


def changed(changes: Mapping[str, Value]) -> dict[str, Value]:
    """Return the model's values with some of them changed; the tokenizer's come last, as ever."""
    last = "tokenizer.ggml.tokens"
    return {key: found for key, found in {**LLAMA, **changes}.items() if key != last} | {last: LLAMA[last]}


def gguf(values: Mapping[str, Value] = LLAMA, *, version: int = 3, count: int | None = None) -> bytes:
    """Return the head of a file; ``count`` is the number of values that it says it has."""
    head = b"GGUF" + struct.pack("<IQQ", version, 0, len(values) if count is None else count)
    return head + b"".join(text(key) + value(found) for key, found in values.items())


def text(word: str) -> bytes:
    return struct.pack("<Q", len(word.encode())) + word.encode()


def value(found: Value) -> bytes:
    if isinstance(found, bool):
        return struct.pack("<I?", 7, found)
    if isinstance(found, int):
        return struct.pack("<IQ", 10, found)
    if isinstance(found, float):
        return struct.pack("<If", 6, found)
    if isinstance(found, str):
        return struct.pack("<I", 8) + text(found)
    return struct.pack("<I", 9) + _elements(found)


def _elements(found: list[int] | list[str]) -> bytes:
    if found and isinstance(found[0], str):
        return struct.pack("<IQ", 8, len(found)) + b"".join(text(str(word)) for word in found)
    return struct.pack("<IQ", 5, len(found)) + b"".join(struct.pack("<i", int(number)) for number in found)
