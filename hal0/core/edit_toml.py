"""One key of a TOML manifest: its value spliced in the source, a line put in, or a line taken out.

The reader's own lines say where a key stands. What is not a plain value or an inline table on one line is left to the
operator.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from hal0.core.documents import Document
from hal0.core.splice import Value, quoted, refused, with_line_after, without_line

_KEY = r"""[\w-]+|"(?:\\.|[^"\\\n])*"|'[^'\n]*'"""
_VALUE = r""""(?:\\.|[^"\\\n])*"(?!")|'[^'\n]*'(?!')|[^\s"'\[{#,][^\s#,]*"""
_TABLE = r"""\{(?:[^"'#\n]|"(?:\\.|[^"\\\n])*"|'[^'\n]*')*\}"""
_BARE = re.compile(r"[A-Za-z0-9_-]+")
_ENTRY = re.compile(rf"[ \t]*(?P<key>{_KEY})[ \t]*=[ \t]*(?P<value>{_VALUE}|{_TABLE})[ \t]*(?:#[^\n]*)?\r?(?=\n|\Z)")


def put(document: Document, text: str, key: str, value: Value | None) -> str:
    """Return the text of a file with one key set, or taken out for None. Raises ``EditRefused``."""
    if (key,) not in document.lines:
        return text if value is None else _added(document, text, f"{key} = {written(value)}")
    entry = _entry(text, document.lines[key,])
    if entry is None:
        by_hand = "take it out" if value is None else f"make it {key} = {written(value)}"
        raise refused(document.file, f"{key} is not a plain value on one line", f"{by_hand}, by hand")
    if value is not None:
        start, end = entry.span("value")
        return text[:start] + written(value, entry["value"]) + text[end:]
    shorter = without_line(text, entry.start("key"), entry.end("value"))
    assert shorter is not None  # noqa: S101  (an entry is a whole line)
    return shorter


def written(value: Any, like: str = "") -> str:
    """Return a value on one line, a text in the quotes that ``like`` has where they can hold it."""
    if isinstance(value, Mapping):
        entries = (f"{key if _BARE.fullmatch(key) else quoted(key)} = {written(own)}" for key, own in value.items())
        return f"{{{', '.join(entries)}}}"
    return f"[{', '.join(map(written, value))}]" if isinstance(value, list) else quoted(value, like)


def _added(document: Document, text: str, line: str) -> str:
    """Put a line below the last plain key of the document: whatever follows, tables too, stays where it is."""
    lines = sorted((number for path, number in document.lines.items() if len(path) == 1), reverse=True)
    entry = next((found for number in lines if (found := _entry(text, number))), None)
    if entry is None:
        raise refused(document.file, "there is no line to put a key after", f"add by hand: {line}")
    return with_line_after(text, entry.end("value"), line)


def _entry(text: str, number: int) -> re.Match[str] | None:
    """Return a line, 1-based, that is a key with a plain value; None for any other."""
    at = 0
    for _ in range(number - 1):
        at = text.index("\n", at) + 1
    return _ENTRY.match(text, at)
