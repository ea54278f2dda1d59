"""Cuts in the text of a manifest: one stretch within one line, one line put in, one line taken out."""

from __future__ import annotations

import json
import re
from typing import TypeAlias

from hal0.errors import Conflict

Scalar: TypeAlias = str | int
_LINE_END = re.compile(r"\r?\n|\Z")
_AFTER = re.compile(r"[ \t]*(#[^\n]*?)?(\r?\n|\r?\Z)")


class EditRefused(Conflict):
    """The text can't be changed without touching what it says elsewhere; the hint says what to do by hand."""


def refused(file: str, what: str, hint: str = "change it by hand") -> EditRefused:
    """Return the refusal of an edit of one file."""
    return EditRefused(f"{file}: {what}", hint=hint)


def quoted(value: Scalar, like: str = "") -> str:
    """Return a value as TOML and YAML both write it, in the quotes that ``like`` has where they can hold it."""
    if isinstance(value, str) and like.startswith("'") and "'" not in value:
        return f"'{value}'"
    return json.dumps(value, ensure_ascii=False)


def with_line_after(text: str, at: int, line: str) -> str:
    """Return a text with one more line, indented as the one that holds ``at`` and put below it."""
    above, end = text[text.rfind("\n", 0, at) + 1 : at], _line_end(text, at)
    indent = above[: len(above) - len(above.lstrip(" \t"))]
    return f"{text[:end]}{_break_of(text)}{indent}{line}{text[end:]}"


def without_line(text: str, start: int, end: int) -> str | None:
    """Return a text without the line of an entry, or None where that line holds anything else but a comment."""
    begin = text.rfind("\n", 0, start) + 1
    rest = _AFTER.match(text, end)
    if text[begin:start].strip(" \t") or rest is None:
        return None
    if (
        rest.end() == len(text) and not rest[2]
    ):  # the last line, without an end of its own: it takes that of the line above
        return text[:begin].removesuffix("\n").removesuffix("\r")
    return text[:begin] + text[rest.end() :]


def _line_end(text: str, at: int) -> int:
    found = _LINE_END.search(text, at)
    return found.start() if found else len(text)


def _break_of(text: str) -> str:
    """Return how a text ends its lines, by the first of them."""
    first = text.find("\n")
    return "\r\n" if first > 0 and text[first - 1] == "\r" else "\n"
