"""Secrets, read where they are needed. Their places are told, what they are goes into no error, repr or log."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from pathlib import Path

from hal0.core.secretref import SecretRef
from hal0.errors import Hal0Error

_LARGEST = 64 * 1024
_UNIT = "hal0-api.service"


class SecretMissing(Hal0Error):
    """A reference leads to no secret that can be used: what needs it can't be done until a person mends it."""


class Secrets:
    """Reads secrets, and keeps the text of files: while a file is the same, asking again costs one stat."""

    def __init__(self) -> None:
        self._kept: dict[Path, _Kept] = {}

    def read(self, ref: SecretRef) -> str:
        """Return the secret of a place, without one newline at its end.

        Raises ``SecretMissing`` where there is none, it can't be read, or it is more than one line of plain text.
        """
        text = self._text(ref).removesuffix("\n").removesuffix("\r")
        if not text.strip():
            raise _missing(ref, "it is empty")
        if not text.isprintable():
            raise _missing(ref, "it is not one line of plain text")
        return text

    def lines(self, ref: SecretRef) -> tuple[str, ...]:
        """Return the secrets of a place that holds one a line, at least one; ``#`` begins a line that is a comment.

        Raises ``SecretMissing`` as ``read`` does.
        """
        stripped = [line.strip(" \t\r") for line in self._text(ref).split("\n")]
        found = {number: line for number, line in enumerate(stripped, 1) if line and not line.startswith("#")}
        if not found:
            raise _missing(ref, "it is empty")
        for number, line in found.items():
            if not line.isprintable():
                raise _missing(ref, f"line {number} is not plain text")
        return tuple(found.values())

    def _text(self, ref: SecretRef) -> str:
        if ref.kind == "env":
            return _variable(ref)
        path = _path(ref)
        try:
            # The stamp is older than the text: a change in between is noticed the next time.
            stamp = _stamp(ref, path.stat())
            kept = self._kept.get(path)
            if kept is None or kept.stamp != stamp:
                kept = self._kept[path] = _Kept(stamp, _decoded(path.read_bytes()))
        except (OSError, ValueError) as error:
            self._kept.pop(path, None)
            raise _missing(ref, getattr(error, "strerror", None) or "that is no path") from error
        return kept.text


@dataclass(frozen=True, slots=True)
class _Kept:
    stamp: tuple[int, ...]
    text: str = field(repr=False)


def _stamp(ref: SecretRef, info: os.stat_result) -> tuple[int, ...]:
    """Return what changes with a file. Raises ``SecretMissing`` for what may block its reader, or never end."""
    if not stat.S_ISREG(info.st_mode):
        raise _missing(ref, "it is not a file")
    if info.st_size > _LARGEST:
        raise _missing(ref, f"it is larger than {_LARGEST // 1024} KiB")
    return (info.st_mtime_ns, info.st_ctime_ns, info.st_size, info.st_ino, info.st_dev)


def _decoded(data: bytes) -> str:
    # An error of strict decoding would carry the bytes. What is escaped here is not printable, so it is refused later.
    return data.decode(errors="surrogateescape")


def _variable(ref: SecretRef) -> str:
    text = os.environ.get(ref.name)
    if text is None:
        raise _missing(ref, "the variable is not set")
    return text


def _path(ref: SecretRef) -> Path:
    if ref.kind == "file":
        return Path(ref.name)
    if "/" in ref.name or ref.name in {"", ".", ".."}:
        raise _missing(ref, "that is no name of a credential")
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    if not folder:
        raise _missing(ref, "this process was started without credentials")
    return Path(folder) / ref.name


def _missing(ref: SecretRef, why: str) -> SecretMissing:
    return SecretMissing(f"no secret in {ref}: {why}", hint=_hint(ref))


def _hint(ref: SecretRef) -> str:
    match ref.kind:
        case "env":
            return f"Set {ref.name} where hal0 is started: `systemctl edit {_UNIT}`, EnvironmentFile=, and restart it."
        case "file":
            return f"Put the secret into {ref.name}, as one line that hal0's user may read."
        case "credential":
            unit = f"`systemctl edit {_UNIT}`, LoadCredential={ref.name}:/path/of/the/secret, and restart it"
            return f"Add it to hal0's unit: {unit}."
