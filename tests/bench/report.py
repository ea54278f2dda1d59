"""Rows as a table for people, and as JSON for whoever compares two runs."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.measure import Row

VERSION = 1
_NAME_WIDTH = 66


@dataclass(frozen=True)
class Outcome:
    """One section as it went. ``skipped`` says why it could not be measured, ``broke`` why it ended early."""

    name: str
    rows: tuple[Row, ...]
    skipped: str
    broke: str
    seconds: float


def heading(title: str) -> str:
    """Return a section's first line."""
    return f"\n{title}\n{'-' * len(title)}"


def line(row: Row) -> str:
    """Return a row as it stands in the table."""
    spread = f"({number(min(row.values))}..{number(max(row.values))}, n={len(row.values)})" if row.values[1:] else ""
    verdict = {True: "ok", False: "MISSED", None: ""}[row.is_met]
    note = f"  [{row.note}]" if row.note else ""
    value = f"{number(row.median):>9} {row.unit:<5} {spread:<26}"
    return f"  {row.name:<{_NAME_WIDTH}} {value} {_aim(row):<17} {verdict}{note}".rstrip()


def _aim(row: Row) -> str:
    return f"aim {'>=' if row.at_least else '<='} {number(row.aim)} {row.unit}".rstrip() if row.aim is not None else ""


def number(value: float) -> str:
    """Return a number with three digits that mean something."""
    magnitude = abs(value)
    return f"{value:.0f}" if magnitude >= 100 else f"{value:.1f}" if magnitude >= 10 else f"{value:.2f}"


def machine() -> dict[str, Any]:
    """Return what of this machine makes figures comparable."""
    return {
        "cpus": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "kernel": platform.release(),
        "load": [round(value, 2) for value in os.getloadavg()],
    }


def write_json(path: Path, outcomes: Sequence[Outcome]) -> None:
    """Write everything that was measured."""
    path.parent.mkdir(parents=True, exist_ok=True)
    found = {"version": VERSION, "machine": machine(), "sections": [_section(outcome) for outcome in outcomes]}
    path.write_text(json.dumps(found, indent=1) + "\n")


def _section(outcome: Outcome) -> dict[str, Any]:
    return {
        "name": outcome.name,
        "skipped": outcome.skipped or None,
        "broke": outcome.broke or None,
        "seconds": round(outcome.seconds, 1),
        "rows": [_row(row) for row in outcome.rows],
    }


def _row(row: Row) -> dict[str, Any]:
    return {
        "name": row.name,
        "unit": row.unit,
        "median": round(row.median, 4),
        "min": round(min(row.values), 4),
        "max": round(max(row.values), 4),
        "aim": row.aim,
        "at_least": row.at_least,
        "met": row.is_met,
        "note": row.note,
        "values": [round(value, 4) for value in row.values],
    }


def summary(outcomes: Sequence[Outcome]) -> Iterator[str]:
    """Yield the closing lines: how many aims were met, and which were not."""
    aimed = [row for outcome in outcomes for row in outcome.rows if row.aim is not None]
    missed = [row for row in aimed if not row.is_met]
    yield f"\n{len(aimed) - len(missed)} of {len(aimed)} aims met" + (":" if missed else "")
    for row in missed:
        yield f"  missed: {row.name}: {number(row.median)} {row.unit}, {_aim(row)}"


def say(text: str) -> None:
    """Print at once: a run takes minutes."""
    print(text, flush=True)


def note(text: str) -> None:
    """Print what is going on, beside the table."""
    print(f"bench: {text}", file=sys.stderr, flush=True)
