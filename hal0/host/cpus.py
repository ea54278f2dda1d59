"""How many CPUs this process may really use: its affinity mask and its control groups' quotas."""

from __future__ import annotations

import os
from pathlib import Path

from hal0.host.cgroups import CGROUPS, PROC, folders, read


def usable_cpus(*, proc: Path = PROC, cgroups: Path = CGROUPS) -> int:
    """Return whole CPUs, at least 1: the smaller of the affinity mask and the tightest quota, rounded down.

    Rounded down because a thread that the quota throttles holds all the others up at each token.
    """
    quotas = [quota for folder in folders("cpu", proc, cgroups) if (quota := _quota(folder)) is not None]
    return max(1, int(min([len(os.sched_getaffinity(0)), *quotas])))


def _quota(folder: Path) -> float | None:
    """Return a group's quota in CPUs, or None where it has none."""
    if (text := read(folder / "cpu.max")) is not None:
        quota, _, period = text.partition(" ")
        return _ratio(quota, period)
    return _ratio(read(folder / "cpu.cfs_quota_us") or "", read(folder / "cpu.cfs_period_us") or "")


def _ratio(quota: str, period: str) -> float | None:
    """Return quota / period, or None for ``max``, -1 and files that are not there."""
    try:
        microseconds, every = int(quota), int(period)
    except ValueError:
        return None
    return microseconds / every if microseconds > 0 and every > 0 else None
