"""What the kernel says about processes, and the cores that they run on."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

_HZ = os.sysconf("SC_CLK_TCK")
_PROC = Path("/proc")
_GONE = (FileNotFoundError, ProcessLookupError)


@dataclass(frozen=True)
class Memory:
    """Megabytes of some processes together."""

    rss: float
    pss: float


def tree(pid: int) -> tuple[int, ...]:
    """Return a process and all that descend from it."""
    found = [pid]
    with suppress(*_GONE):
        for task in (_PROC / str(pid) / "task").iterdir():
            for child in (task / "children").read_text().split():
                found += tree(int(child))
    return tuple(found)


def running(program: Path) -> tuple[int, ...]:
    """Return the processes that run this very file."""
    found = []
    for entry in _PROC.iterdir():
        with suppress(OSError):
            if entry.name.isdecimal() and (entry / "exe").readlink() == program:
                found.append(int(entry.name))
    return tuple(found)


def cpu(pids: Iterable[int]) -> float:
    """Return the seconds of CPU that these processes took until now."""
    ticks = 0
    for pid in pids:
        with suppress(*_GONE):
            fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
    return ticks / _HZ


def own_cpu() -> float:
    """Return the seconds of CPU of this process, and of its children that have ended."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in used)


def machine_cpu() -> float:
    """Return the seconds of CPU that all processes took until now; interrupts are nobody's."""
    user, nice, system = (int(word) for word in (_PROC / "stat").read_text().split(maxsplit=4)[1:4])
    return (user + nice + system) / _HZ


def memory(pids: Iterable[int]) -> Memory:
    """Return what these processes hold, as smaps_rollup has it."""
    sizes = {"Rss:": 0, "Pss:": 0}
    for pid in pids:
        with suppress(*_GONE):
            for line in (_PROC / str(pid) / "smaps_rollup").read_text().splitlines():
                key, value, *_ = line.split()
                if key in sizes:
                    sizes[key] += int(value)
    return Memory(sizes["Rss:"] / 1024, sizes["Pss:"] / 1024)


def move(pids: Iterable[int], core: int) -> None:
    """Have every thread of these processes run on one core; those that they start will, too."""
    for pid in pids:
        with suppress(*_GONE):
            for task in (_PROC / str(pid) / "task").iterdir():
                os.sched_setaffinity(int(task.name), {core})


@contextmanager
def on_core(core: int) -> Iterator[None]:
    """Run this process, and what it starts, on one core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def send(pids: Iterable[int], number: signal.Signals) -> None:
    """Send a signal; who is gone is left alone."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)
