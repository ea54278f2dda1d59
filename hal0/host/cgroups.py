"""The control groups that this process is in, and those above them, in both versions' layouts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

PROC = Path("/proc")
CGROUPS = Path("/sys/fs/cgroup")


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
        return path.read_text().strip()
    except OSError:
        return None


def _memberships(controller: str, proc: Path) -> Iterator[tuple[list[str], str]]:
    """Yield (controllers, path) of each line that can hold a limit; version 2 names no controllers."""
    for line in (read(proc / "self" / "cgroup") or "").splitlines():
        _, controllers, path = line.split(":", 2)
        names = [name for name in controllers.split(",") if name]
        if not names or controller in names:
            yield names, path
