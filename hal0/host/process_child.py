"""One child process of a slot, started here or adopted from a hal0 that died: watched by pidfd, ended as a group."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import subprocess
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hal0.errors import StepFailed
from hal0.host import process_table as table
from hal0.host.process_files import Record, Records

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from hal0.host.process_files import Command

log = logging.getLogger(__name__)

_KEPT = ("PATH", "HOME", "LANG", "LD_LIBRARY_PATH", "PYTHONPATH")
"""All that a child gets of the daemon's environment, which may hold the daemon's own secrets."""


@dataclass(frozen=True, slots=True)
class Folders:
    """Where the runtime keeps its files; all are private to its user."""

    state: Path

    @property
    def slots(self) -> Path:
        """Definitions."""
        return self.state / "slots"

    @property
    def run(self) -> Path:
        """Records of children."""
        return self.state / "run"

    @property
    def logs(self) -> Path:
        """What children wrote."""
        return self.state / "logs"

    def create(self) -> None:
        """Make the folders that are missing. Raises ``OSError``."""
        for folder in (self.state, self.slots, self.run, self.logs):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def log(self, slot: str) -> Path:
        """Return a slot's log file."""
        return self.logs / f"{slot}.log"


class Child:
    """A process that leads a session of its own. ``record`` names it for all time."""

    def __init__(self, record: Record) -> None:
        self.record = record
        self._pidfd = os.pidfd_open(record.pid)

    @property
    def id(self) -> str:
        """The pid and the start time: a pid alone is used again."""
        return f"{self.record.pid}:{self.record.start_time}"

    @property
    def lives(self) -> bool:
        """Whether this very process runs (a zombie doesn't)."""
        return table.start_time(self.record.pid) == self.record.start_time

    async def exited(self) -> int | None:
        """Wait for the exit, reap, and return the exit status (negative: the signal).

        None for an adopted child: only a parent is told.
        """
        loop = asyncio.get_running_loop()
        gone = asyncio.Event()
        loop.add_reader(self._pidfd, gone.set)
        try:
            await gone.wait()
        finally:
            loop.remove_reader(self._pidfd)
        return self._reap()

    def send(self, number: int) -> None:
        """Send a signal to the child's whole process group; a child that is gone is left alone."""
        if self.lives:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.record.pid, number)

    def close(self) -> None:
        """Let go of the pidfd; the process is not touched."""
        os.close(self._pidfd)

    def _reap(self) -> int | None:
        """Kill the rest of the group while the zombie still holds its number, then let the zombie go."""
        if (zombie := table.stat(self.record.pid)) and zombie.start_time == self.record.start_time:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.record.pid, signal.SIGKILL)
        try:
            _, status = os.waitpid(self.record.pid, os.WNOHANG)
        except ChildProcessError:
            return None
        return os.waitstatus_to_exitcode(status)


def spawn(slot: str, command: Command, folders: Folders, records: Records) -> Child:
    """Start a slot's command in a session of its own and record it. Raises ``StepFailed`` if it can't be run."""
    try:
        with _appending(folders.log(slot)) as output:
            process = subprocess.Popen(
                command.argv,
                cwd=folders.state,
                env=_environment(slot, command, folders),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
    except (OSError, ValueError) as error:
        raise StepFailed(f"slot {slot}: can't run {command.argv[0]}: {error}") from error
    process.returncode = 0  # Child reaps it: Popen must neither wait for it nor warn that nobody did
    child = Child(_record(process.pid, slot, command.spec_hash, command.argv))
    _keep(child.record, records)
    return child


def adopt_all(folders: Folders, records: Records) -> list[Child]:
    """Return the living children of a hal0 that died, after making the records say the same. Raises ``OSError``.

    A child without a record (hal0 died between the start and the record) is known by its mark. Of several
    marked leaders of one slot the oldest is the child: the others are sessions that it made.
    """
    living = [mark for mark in table.marked(folders.state) if mark.leads]
    found = _recorded(living, records)
    for mark in living:
        if mark.slot not in found:
            found[mark.slot] = _record(mark.pid, mark.slot, mark.spec_hash, table.argv(mark.pid))
            _keep(found[mark.slot], records)
    return [child for record in found.values() if (child := _watched(record)) is not None]


def _recorded(living: list[table.Marked], records: Records) -> dict[str, Record]:
    """Return the records that still name a living, marked process; the others are removed."""
    boot = table.boot_id()
    marks = {(mark.slot, mark.pid, mark.start_time, boot) for mark in living}
    found: dict[str, Record] = {}
    for slot, record in records.all().items():
        if record and (slot, record.pid, record.start_time, record.boot_id) in marks:
            found[slot] = record
        else:
            records.remove(slot)
    return found


def _keep(record: Record, records: Records) -> None:
    """Write a record. Without it the mark still finds the child, so that a full disk starts and adopts slots."""
    try:
        records.write(record)
    except OSError as error:
        log.warning("slot %s: can't record its process: %s", record.slot, error.strerror)


def _watched(record: Record) -> Child | None:
    """Return the child, unless it died in the meantime; a pidfd that was opened in time can't be another's."""
    try:
        child = Child(record)
    except ProcessLookupError:
        return None
    if child.lives:
        return child
    child.close()
    return None


def _record(pid: int, slot: str, spec_hash: str, argv: tuple[str, ...]) -> Record:
    found = table.stat(pid)
    return Record(
        pid=pid,
        start_time=found.start_time if found else 0,
        boot_id=table.boot_id(),
        slot=slot,
        spec_hash=spec_hash,
        argv=argv,
        invocation=uuid.uuid4().hex,
    )


def _environment(slot: str, command: Command, folders: Folders) -> dict[str, str]:
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    marks = {table.SLOT: slot, table.SPEC: command.spec_hash, table.STATE: str(folders.state)}
    return {**kept, **command.env, **marks}


@contextlib.contextmanager
def _appending(path: Path) -> Iterator[int]:
    """Open a log for its owner alone, making its folder again if someone removed it."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
