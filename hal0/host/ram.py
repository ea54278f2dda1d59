"""The host's own memory: /proc/meminfo, and the limits of the control groups around hal0."""

from __future__ import annotations

from pathlib import Path

from hal0.core.facts import Fact, Known, Unknown
from hal0.core.hardware import Memory
from hal0.core.pools import RAM, Pool
from hal0.host.cgroups import folders, number, read

_FILE_PAGES = ("active_file", "inactive_file")
_MOST_DIGITS = 18


def memory(root: Path) -> Fact[Memory]:
    """Return what /proc/meminfo says."""
    found: dict[str, int] = {}
    for line in (read(root / "proc/meminfo") or "").splitlines():
        name, _, amount = line.partition(":")
        size, _, unit = amount.strip().partition(" ")
        if unit == "kB":
            found[name] = _whole(size) * 1024
    if "MemTotal" not in found or "MemAvailable" not in found:
        return Unknown("/proc/meminfo can't be read")
    return Known(Memory(found["MemTotal"], found["MemAvailable"], found.get("SwapTotal", 0)))


def pool(machine: Fact[Memory], root: Path, *, is_own_group: bool) -> Fact[Pool]:
    """Return the memory that slots can have: the machine's, or less where control groups around hal0 limit it.

    ``is_own_group``: slots run in hal0's own group, as children do, and not only below the ones above it. What the
    kernel can drop counts as free: files that it keeps because they were read. A model that is mapped is such a file.
    """
    if isinstance(machine, Unknown):
        return machine
    total, free = machine.value.total, machine.value.available
    for folder in _groups(root, is_own_group=is_own_group):
        if (limit := _either(folder, "memory.max", "memory.limit_in_bytes")) is not None:
            total, free = min(total, limit), min(free, limit - _held(folder))
    return Known(Pool(RAM, total, total - min(max(free, 0), total), stated=False))


def _groups(root: Path, *, is_own_group: bool) -> list[Path]:
    found = list(folders("memory", root / "proc", root / "sys/fs/cgroup"))
    # The root of what this process sees is above everything, be it its own group or not.
    is_below = bool(found) and found[0].parent in found
    return found[1:] if is_below and not is_own_group else found


def _held(folder: Path) -> int:
    """Return the bytes that a group holds and the kernel can't simply drop."""
    held = _either(folder, "memory.current", "memory.usage_in_bytes") or 0
    lines = (line.partition(" ") for line in (read(folder / "memory.stat") or "").splitlines())
    stat = {name: _whole(size) for name, _, size in lines}
    # total_: version 1, with children
    return held - sum(stat.get(f"total_{name}", stat.get(name, 0)) for name in _FILE_PAGES)


def _either(folder: Path, *names: str) -> int | None:
    """Return a number of a group, under version 2's name or version 1's; None for ``max`` and where there is none."""
    file = next((folder / name for name in names if (folder / name).exists()), None)
    return number(file) if file else None


def _whole(text: str) -> int:
    return int(text) if text.isdecimal() and len(text) <= _MOST_DIGITS else 0
