"""How many CPUs this process may really use: its affinity mask and its control groups' quotas."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_PROC = Path("/proc")
_CGROUPS = Path("/sys/fs/cgroup")


def usable_cpus(*, proc: Path = _PROC, cgroups: Path = _CGROUPS) -> int:
    """Return whole CPUs, at least 1: the smaller of the affinity mask and the tightest quota, rounded down.

    Rounded down because a thread that the quota throttles holds all the others up at each token.
    """
    quotas = [quota for folder in _folders(proc, cgroups) if (quota := _quota(folder)) is not None]
    return max(1, int(min([len(os.sched_getaffinity(0)), *quotas])))


def _folders(proc: Path, cgroups: Path) -> Iterator[Path]:
    """Yield the folders of this process's groups and of all their parents, in both versions' layouts."""
    for controllers, path in _memberships(proc):
        mounts = ("cpu", "cpu,cpuacct") if controllers else ("", "unified")
        for mount in (cgroups / name for name in mounts):
            group = mount / path.lstrip("/")
            yield from (folder for folder in (group, *group.parents) if folder.is_relative_to(mount))


def _memberships(proc: Path) -> Iterator[tuple[list[str], str]]:
    """Yield (controllers, path) of each line that can hold a CPU quota; version 2 names no controllers."""
    for line in (_read(proc / "self" / "cgroup") or "").splitlines():
        _, controllers, path = line.split(":", 2)
        names = [name for name in controllers.split(",") if name]
        if not names or "cpu" in names:
            yield names, path


def _quota(folder: Path) -> float | None:
    """Return a group's quota in CPUs, or None where it has none."""
    if (text := _read(folder / "cpu.max")) is not None:
        quota, _, period = text.partition(" ")
        return _ratio(quota, period)
    return _ratio(_read(folder / "cpu.cfs_quota_us") or "", _read(folder / "cpu.cfs_period_us") or "")


def _ratio(quota: str, period: str) -> float | None:
    """Return quota / period, or None for ``max``, -1 and files that are not there."""
    try:
        microseconds, every = int(quota), int(period)
    except ValueError:
        return None
    return microseconds / every if microseconds > 0 and every > 0 else None


def _read(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None
