"""What is asked. mock.c reads ``stream``, ``max_tokens`` (chunks) and ``seed`` (microseconds between two chunks)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

MODEL = "mock"
_SYSTEM = "You are a helpful assistant that answers briefly."
_USER = (
    "Write one short sentence about a fox, a dog and a quartz sphinx, please, and then explain why pangrams are "
    "useful for type designers."
)
_LONG = 'The quick brown fox jumps over the lazy dog and "quotes" things\nwith caf\u00e9 lines. ' * 20
_TURNS = 19
_CHAT: Mapping[str, object] = {
    "model": MODEL,
    "messages": [{"role": "system", "content": _SYSTEM}, {"role": "user", "content": _USER}],
    "max_tokens": 128,
    "temperature": 0.7,
}
HELLO = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 1}
_BODIES: Mapping[str, Mapping[str, object]] = {
    "chat": _CHAT,
    "long": {**_CHAT, "messages": [{"role": role, "content": _LONG} for role in ("user", "assistant") * _TURNS]},
    "burst": {**_CHAT, "stream": True},
    "tokens": {**_CHAT, "max_tokens": 2, "stream": True, "temperature": 0},
    "short": {**_CHAT, "max_tokens": 4, "stream": True, "seed": 2000},
    "paced": {**_CHAT, "stream": True, "seed": 10000},
}


def path(folder: Path, name: str) -> Path:
    """Return the file of a body."""
    return folder / f"{name}.json"


def write(folder: Path) -> None:
    """Write every body: 306 bytes, the long one 68,901."""
    for name, body in _BODIES.items():
        path(folder, name).write_text(json.dumps(body, separators=(",", ":")))
