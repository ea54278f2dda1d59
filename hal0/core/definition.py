"""A definition file: a body, and the mark that makes it hal0's.

The mark is a trailing ``[X-Hal0]`` section. systemd ignores sections that begin with ``X-``, and TOML reads it as
a table, so one format serves the drop-in and the process runtime's file. The digest of the body tells a
hand-edited file from one that is merely older than the manifests.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

_SECTION = "\n[X-Hal0]\n"
_PAIR = re.compile(r'^(\w+) = "([^"\\]*)"$')


@dataclass(frozen=True, slots=True)
class Mark:
    """Whose definition it is, which spec it carries, and when it was written (``generation`` of the manifests)."""

    slot: str
    spec_hash: str
    digest: str
    generation: int


def digest(text: str) -> str:
    """Return a short, stable digest of a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def stamp(body: str, *, slot: str, spec_hash: str, generation: int) -> str:
    """Return the file's text: the body and its mark."""
    mark = {"Slot": slot, "SpecHash": spec_hash, "Digest": digest(body), "Generation": str(generation)}
    return body + _SECTION + "".join(f'{key} = "{value}"\n' for key, value in mark.items())


def split(text: str) -> tuple[str, Mark | None]:
    """Return the body of a file and its mark; None where hal0 did not write it or the mark was damaged."""
    body, found, tail = text.rpartition(_SECTION)
    if not found:
        return text, None
    pairs = {match[1]: match[2] for line in tail.splitlines() if (match := _PAIR.match(line))}
    try:
        generation = int(pairs["Generation"])
        return body, Mark(pairs["Slot"], pairs["SpecHash"], pairs["Digest"], generation)
    except (KeyError, ValueError):
        return text, None


def is_edited(text: str) -> bool:
    """Return whether a marked file's text is no longer what hal0 wrote."""
    body, mark = split(text)
    return mark is not None and (digest(body) != mark.digest or text != _again(body, mark))


def _again(body: str, mark: Mark) -> str:
    return stamp(body, slot=mark.slot, spec_hash=mark.spec_hash, generation=mark.generation)
