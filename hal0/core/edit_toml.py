"""One key of a TOML manifest: its value spliced in the source, a line put in, or a line taken out.

The reader's own lines say where a key stands. What is not a plain value on one line is left to the operator.
"""

from __future__ import annotations

import re

from hal0.core.documents import Document
from hal0.core.splice import Scalar, quoted, refused, with_line_after, without_line

_KEY = r"""[\w-]+|"(?:\\.|[^"\\\n])*"|'[^'\n]*'"""
_VALUE = r""""(?:\\.|[^"\\\n])*"(?!")|'[^'\n]*'(?!')|[^\s"'\[{#,][^\s#,]*"""
_ENTRY = re.compile(rf"[ \t]*(?P<key>{_KEY})[ \t]*=[ \t]*(?P<value>{_VALUE})[ \t]*(?:#[^\n]*)?\r?(?=\n|\Z)")


def put(document: Document, text: str, key: str, value: Scalar | None) -> str:
    """Return the text of a file with one key set, or taken out for None. Raises ``EditRefused``."""
    if (key,) not in document.lines:
        return text if value is None else _added(document, text, f"{key} = {quoted(value)}")
    entry = _entry(text, document.lines[key,])
    if entry is None:
        raise refused(document.file, f"{key} is not a plain value on one line")
    if value is not None:
        start, end = entry.span("value")
        return text[:start] + quoted(value, entry["value"]) + text[end:]
    shorter = without_line(text, entry.start("key"), entry.end("value"))
    assert shorter is not None  # noqa: S101  (an entry is a whole line)
    return shorter


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
