"""Sizes and durations as people write them."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime

_LONGEST = 64
_MOST_SECONDS = 1e15
_SIZE = re.compile(r"^(\d+(?:\.\d+)?)\s*([kKMGT]i?)?B?$")
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_FACTOR = {"": 1, "k": 10**3, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_BINARY = {"Ki": 2**10, "ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def parse_size(value: object) -> int:
    """Return bytes for ``8Gi``, ``500M`` or a whole number of bytes."""
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return value
    match = _SIZE.match(value.strip()) if isinstance(value, str) else None
    size = float(match[1]) * {**_FACTOR, **_BINARY}[match[2] or ""] if match else 0.0
    if not 1 <= size < math.inf:
        raise ValueError("is not a size: write it like 512Mi, 8Gi or 4G")
    return int(size)


def parse_duration(value: object) -> float:
    """Return seconds for ``90s``, ``15m``, ``1h30m`` or a number of seconds."""
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= _MOST_SECONDS:
        return float(value)
    text = value.strip() if isinstance(value, str) and len(value) <= _LONGEST else ""
    parts = _DURATION_PART.findall(text)
    seconds = sum(float(number) * _SECONDS[unit] for number, unit in parts)
    if not parts or "".join(number + unit for number, unit in parts) != text or seconds == math.inf:
        raise ValueError("is not a duration: write it like 90s, 15m or 1h30m")
    return seconds


def show_size(size: int | None) -> str:
    """Return bytes in the largest binary unit that keeps it readable; ``-`` for none."""
    if size is None:
        return "-"
    value = float(size)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:  # noqa: PLR2004  (the next unit)
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def show_duration(seconds: float) -> str:
    """Return seconds as ``2d3h``, ``5m10s`` or ``0.4s``: two units at the most."""
    if seconds < 10:  # noqa: PLR2004  (a tenth still matters)
        return f"{seconds:.1f}s"
    rest, parts = int(seconds), []
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        count, rest = divmod(rest, size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts[:2])


def show_moment(wall: float) -> str:
    """Return seconds since the epoch as ``2026-11-22 14:05:00 UTC``: the same wherever it is read."""
    return f"{datetime.fromtimestamp(wall, UTC):%Y-%m-%d %H:%M:%S} UTC"
