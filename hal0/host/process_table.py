"""What /proc says of processes: who they are, whose they are, what they hold."""

from __future__ import annotations

import contextlib
import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

SLOT = "HAL0_SLOT"
SPEC = "HAL0_SPEC"
STATE = "HAL0_STATE"

_PROC = Path("/proc")
_ZOMBIE = "Z"
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Stat:
    """A line of /proc/PID/stat. ``start_time`` is in ticks since boot: with the pid it names one process."""

    state: str
    session: int
    start_time: int


@dataclass(frozen=True, slots=True)
class Marked:
    """A living process whose environment says that a slot of ours started it, or one of its parents."""

    pid: int
    start_time: int
    session: int
    slot: str
    spec_hash: str

    @property
    def leads(self) -> bool:
        """Whether it leads its session, as each slot's own child does."""
        return self.pid == self.session


def boot_id() -> str:
    """Return this boot's identity: pids and start times mean nothing in another one."""
    return (_PROC / "sys/kernel/random/boot_id").read_text().strip()


def stat(pid: int) -> Stat | None:
    """Return a process's stat, of a zombie too; None when it is gone."""
    try:
        text = (_PROC / str(pid) / "stat").read_text()
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()  # the name before it may hold spaces and parentheses
    return Stat(state=fields[0], session=int(fields[3]), start_time=int(fields[19]))


def start_time(pid: int) -> int | None:
    """Return when a living process started, in ticks since boot; None when it is gone or a zombie."""
    found = stat(pid)
    return None if found is None or found.state == _ZOMBIE else found.start_time


def memory(pid: int) -> int | None:
    """Return a process's resident memory in bytes, or None when it is gone."""
    try:
        return int((_PROC / str(pid) / "statm").read_text().split()[1]) * _PAGE
    except (OSError, IndexError):
        return None


def argv(pid: int) -> tuple[str, ...]:
    """Return a process's command line; empty when it is gone."""
    return tuple(_strings(pid, "cmdline"))


def marked(state_dir: Path) -> list[Marked]:
    """Return the living processes that carry the mark of a state folder, oldest first."""
    found = (_marked(int(name), state_dir) for name in os.listdir(_PROC) if name.isdecimal())  # noqa: PTH208
    return sorted((mark for mark in found if mark), key=lambda mark: (mark.start_time, mark.pid))


def kill_marked(state_dir: Path, slot: str) -> int:
    """Kill what a slot's child left behind, whatever session it hid in; return how many there were."""
    left = [mark for mark in marked(state_dir) if mark.slot == slot]
    return sum(_kill(mark, state_dir) for mark in left)


def _kill(mark: Marked, state_dir: Path) -> bool:
    """Kill one process. The pidfd is opened before the last look, so that a reused pid can't be hit."""
    with contextlib.suppress(ProcessLookupError), _pidfd(mark.pid) as pidfd:
        if _marked(mark.pid, state_dir) == mark:
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            return True
    return False


@contextlib.contextmanager
def _pidfd(pid: int) -> Iterator[int]:
    pidfd = os.pidfd_open(pid)
    try:
        yield pidfd
    finally:
        os.close(pidfd)


def _marked(pid: int, state_dir: Path) -> Marked | None:
    marks = dict(entry.split("=", 1) for entry in _strings(pid, "environ") if entry.startswith("HAL0_"))
    if marks.get(STATE) != str(state_dir) or not marks.get(SLOT) or pid == os.getpid():
        return None
    found = stat(pid)
    if found is None or found.state == _ZOMBIE:
        return None
    return Marked(pid, found.start_time, found.session, marks[SLOT], marks.get(SPEC, ""))


def _strings(pid: int, name: str) -> list[str]:
    """Return the NUL-terminated strings of a file; none for a process that is gone or another user's."""
    try:
        data = (_PROC / str(pid) / name).read_bytes()
    except OSError:
        return []
    return [os.fsdecode(part) for part in data.split(b"\0")[:-1]]
