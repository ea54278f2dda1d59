"""Control groups: those around this process, in both versions' layouts, and the limits of a container's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

PROC = Path("/proc")
CGROUPS = Path("/sys/fs/cgroup")
_NO_LIMIT = "max"
_MOST_DIGITS = 20  # of 64 bits


class Limits(NamedTuple):
    """``memory`` in bytes, and ``cpus``: 0 for no limit, None where it is not known."""

    memory: int | None
    cpus: float | None


NOT_KNOWN = Limits(None, None)


def folders(controller: str, proc: Path = PROC, cgroups: Path = CGROUPS) -> Iterator[Path]:
    """Yield the folders of this process's groups that one controller may limit, each before those above it."""
    for controllers, path in _memberships(controller, proc):
        mounts = (controller, ",".join(controllers)) if controllers else ("", "unified")
        for mount in dict.fromkeys(cgroups / name for name in mounts):
            group = mount / path.lstrip("/")
            yield from (folder for folder in (group, *group.parents) if folder.is_relative_to(mount))


def read(path: Path) -> str | None:
    """Return what a file of the kernel's says, or None where it is not there or can't be read."""
    try:
        return path.read_text(errors="replace").strip()
    except (OSError, ValueError):  # a name with a NUL byte, from another file
        return None


def number(path: Path) -> int | None:
    """Return the whole number that a file of the kernel's says, or None where it says none."""
    text = read(path) or ""
    return int(text) if text.isdecimal() and len(text) <= _MOST_DIGITS else None


def limits_of(cgroup: str, root: Path = CGROUPS) -> Limits:
    """Return the limits of a cgroup as the kernel has them, named as ``/a/b`` below the root of cgroup v2.

    Never raises. What podman says of a container may be the limits that it was created with.
    """
    if not cgroup.strip("/"):
        return NOT_KNOWN
    folder = root / cgroup.strip("/")
    return Limits(_memory(folder), _cpus(folder))


def _memory(folder: Path) -> int | None:
    text = read(folder / "memory.max") or ""
    try:
        return 0 if text == _NO_LIMIT else int(text)
    except ValueError:
        return None


def _cpus(folder: Path) -> float | None:
    """Read ``QUOTA PERIOD``, both in microseconds."""
    try:
        quota, period = (read(folder / "cpu.max") or "").split()
        return 0.0 if quota == _NO_LIMIT else int(quota) / int(period)
    except (ValueError, ZeroDivisionError):
        return None


def _memberships(controller: str, proc: Path) -> Iterator[tuple[list[str], str]]:
    """Yield (controllers, path) of each line that can hold a limit; version 2 names no controllers."""
    for line in (read(proc / "self" / "cgroup") or "").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        names = [name for name in controllers.split(",") if name]
        if not names or controller in names:
            yield names, path
