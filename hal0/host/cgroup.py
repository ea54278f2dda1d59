"""The limits of a container as the kernel has them: what podman says may be those that it was created with."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

_ROOT = Path("/sys/fs/cgroup")
_NO_LIMIT = "max"


class Limits(NamedTuple):
    """``memory`` in bytes, and ``cpus``: 0 for no limit, None where it is not known."""

    memory: int | None
    cpus: float | None


NOT_KNOWN = Limits(None, None)


def limits_of(cgroup: str, root: Path = _ROOT) -> Limits:
    """Return the limits of a cgroup, named as ``/a/b`` below the root of cgroup v2. Never raises."""
    if not cgroup.strip("/"):
        return NOT_KNOWN
    folder = root / cgroup.strip("/")
    return Limits(_memory(folder), _cpus(folder))


def _memory(folder: Path) -> int | None:
    try:
        text = (folder / "memory.max").read_text().strip()
        return 0 if text == _NO_LIMIT else int(text)
    except (OSError, ValueError):
        return None


def _cpus(folder: Path) -> float | None:
    """Read ``QUOTA PERIOD``, both in microseconds."""
    try:
        quota, period = (folder / "cpu.max").read_text().split()
        return 0.0 if quota == _NO_LIMIT else int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None
