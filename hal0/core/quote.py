"""systemd's quoting, which is not the shell's: double quotes, C escapes, ``%%`` and ``$$``."""

from __future__ import annotations

import re
from collections.abc import Iterable

_PLAIN = re.compile(r"[A-Za-z0-9_@+=:,./-]+\Z")
_ESCAPES = {"\\": "\\\\", '"': '\\"', "%": "%%", "$": "$$", "\n": "\\n", "\t": "\\t", "\r": "\\r"}


def systemd_quote(word: str) -> str:
    """Return one word so that systemd reads back exactly it. NUL can't be a part of an argument: ValueError."""
    if "\0" in word:
        raise ValueError("an argument can't hold a NUL byte")
    if _PLAIN.match(word):
        return word
    return '"' + "".join(_escape(char) for char in word) + '"'


def systemd_join(words: Iterable[str]) -> str:
    """Return a command line for ExecStart=."""
    return " ".join(systemd_quote(word) for word in words)


def systemd_lines(words: Iterable[str]) -> str:
    """Return a command line with an option on each line, so that a diff shows which of them changed."""
    lines: list[str] = []
    for word in words:
        takes_value = bool(lines) and lines[-1].startswith("-") and " " not in lines[-1] and "=" not in lines[-1]
        if lines and not word.startswith("-") and (takes_value or len(lines) == 1):
            lines[-1] += f" {systemd_quote(word)}"
        else:
            lines.append(systemd_quote(word))
    return " \\\n  ".join(lines)


def systemd_text(text: str) -> str:
    """Return free text for a setting that takes specifiers but no quotes, such as Description=."""
    return " ".join(text.split()).replace("%", "%%")


def _escape(char: str) -> str:
    if char in _ESCAPES:
        return _ESCAPES[char]
    return f"\\x{ord(char):02x}" if ord(char) < 0x20 or ord(char) == 0x7F else char  # noqa: PLR2004  (controls)
