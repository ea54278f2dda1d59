"""One line of a report card: a verdict on what was found, and how to mend it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, TypeAlias

from hal0.core.facts import Unknown


class Verdict(StrEnum):
    """How a part of the machine is."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"
    UNKNOWN = "unknown"


def counted(number: int, word: str) -> str:
    """Return ``1 slot`` or ``2 slots``."""
    return f"{number} {word}" if number == 1 else f"{number} {word}s"


@dataclass(frozen=True, slots=True)
class Check:
    """What was looked at, the verdict, what was seen, and what to do about it (empty where nothing need be)."""

    area: str
    name: str
    verdict: Verdict
    found: str
    mend: str = ""


Checks: TypeAlias = Iterator[Check]


class Line(NamedTuple):
    """What a check is called; it makes the check of a verdict."""

    area: str
    name: str

    def ok(self, found: str) -> Check:
        """Return that all is well."""
        return Check(*self, Verdict.OK, found)

    def warn(self, found: str, mend: str) -> Check:
        """Return that it works, and may not for long or not in every case."""
        return Check(*self, Verdict.WARN, found, mend)

    def fail(self, found: str, mend: str) -> Check:
        """Return that something that is asked for can't work."""
        return Check(*self, Verdict.FAIL, found, mend)

    def unknown(self, fact: Unknown, mend: str = "") -> Check:
        """Return that it could not be looked at, and why."""
        return Check(*self, Verdict.UNKNOWN, fact.reason, mend)
