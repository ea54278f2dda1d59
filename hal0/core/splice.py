"""Cuts in the text of a manifest: one stretch within one line, one line put in, one line taken out."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, TypeAlias

from hal0.errors import Conflict

Scalar: TypeAlias = str | int
Value: TypeAlias = Scalar | Mapping[str, Any]
"""What an edit puts in: a scalar, or a table that stands on one line."""
_BREAK = re.compile(r"\r?\n")
_AFTER = re.compile(r"[ \t]*(#[^\n]*?)?(\r?\n|\Z)")


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
    """Return a text with one more line, indented and ended as the one that holds ``at``, and put below it."""
    above = text[text.rfind("\n", 0, at) + 1 : at]
    indent = above[: len(above) - len(above.lstrip(" \t"))]
    own = _BREAK.search(text, at)
    end, line_break = (own.start(), own[0]) if own else (len(text), _first_break(text))
    return f"{text[:end]}{line_break}{indent}{line}{text[end:]}"


def without_line(text: str, start: int, end: int) -> str | None:
    """Return a text without the line of an entry, or None where that line holds anything else but a comment."""
    begin = text.rfind("\n", 0, start) + 1
    rest = _AFTER.match(text, end)
    if text[begin:start].strip(" \t") or rest is None:
        return None
    if not rest[2]:  # the last line, which has no end: the line above becomes the last, and loses its own
        return text[:begin].removesuffix("\n").removesuffix("\r")
    return text[:begin] + text[rest.end() :]


def _first_break(text: str) -> str:
    found = _BREAK.search(text)
    return found[0] if found else "\n"
