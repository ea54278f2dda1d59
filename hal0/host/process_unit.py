"""Supervision of one slot's child: start, stop, restart with backoff, and when to give up."""

from __future__ import annotations

import asyncio
import logging
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hal0.core.observed import Activity, Service
from hal0.errors import StepFailed
from hal0.host import process_table as table
from hal0.host.process_child import Child, Folders, spawn
from hal0.host.process_files import STOP_TIMEOUT, Command, parse

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from hal0.host.process_files import Records

log = logging.getLogger(__name__)

_CLEAN = {0, 128 + signal.SIGTERM, -signal.SIGTERM, None}  # None: an adopted child, whose status nobody is told
_CANT_EXECUTE = 203  # systemd's EXIT_EXEC
_KILL_TIMEOUT = 10.0  # seconds that the kernel may take over SIGKILL: a process in a driver dies late


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """When a child that exited by itself is started again; times are in seconds.

    A child that ran for ``reset_after`` is healthy: its exit is the first of a new series. After ``limit`` quick
    exits in a row it is given up.
    """

    first: float = 1.0
    cap: float = 30.0
    limit: int = 5
    reset_after: float = 60.0

    def delay(self, failures: int) -> float:
        """Return how long to wait after so many quick exits (1 or more)."""
        return min(self.cap, self.first * 2.0 ** (failures - 1))


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What every unit shares. ``changed`` is told the slot whose state is another one now."""

    folders: Folders
    records: Records
    policy: RestartPolicy
    now: Callable[[], float]
    sleep: Callable[[float], Awaitable[None]]
    changed: Callable[[str], None]


class Unit:
    """A slot's definition as loaded, and the child that runs for it. Start and stop wait for each other."""

    def __init__(self, slot: str, around: Surroundings) -> None:
        self.slot = slot
        self.text: str | None = None
        self.child: Child | None = None
        self.activity = Activity.INACTIVE
        self._around = around
        self._command: Command | None = None
        self._problem = "it has no definition"
        self._result = "success"
        self._exit_status: int | None = None
        self._invocation = ""
        self._restarts = 0
        self._failures = 0
        self._started = 0.0
        self._stopping = False
        self._task: asyncio.Task[None] | None = None
        self._lock = asyncio.Lock()

    @property
    def is_gone(self) -> bool:
        """Whether nothing is left of it: no definition, no child, none to come."""
        return self.text is None and self.child is None and not self.activity.is_up

    def load(self, text: str | None) -> None:
        """Take a definition's text as the loaded one; None when its file is gone."""
        self.text, self._command = text, None
        if text is None:
            self._problem = "it has no definition"
            return
        try:
            self._command = parse(text)
        except ValueError as error:
            self._problem = f"its definition is wrong: {error}"

    def adopt(self, child: Child) -> None:
        """Take over a child that runs already."""
        self._follow(child)

    def service(self, *, needs_reload: bool) -> Service:
        """Return the unit's state. ``exit_status`` is the exit code, or the signal when ``result`` is "signal"."""
        pid = self.child.record.pid if self.child else None
        return Service(
            activity=self.activity,
            load="loaded" if self._command else "not-found" if self.text is None else "bad-setting",
            argv=self._command.argv if self._command else (),
            needs_reload=needs_reload,
            result=self._result,
            restarts=self._restarts,
            exit_status=self._exit_status,
            invocation=self._invocation,
            pid=pid,
            memory=table.memory(pid) if pid else None,
        )

    async def start(self) -> None:
        """Start the loaded command; one that runs is left alone. Raises ``StepFailed``."""
        async with self._lock:
            if self.child is not None and not self._stopping:
                return
            await self._halt()
            self._failures = self._restarts = 0
            # Whatever an earlier child left behind would hold the port and the memory.
            await asyncio.to_thread(table.kill_marked, self._around.folders.state, self.slot)
            self._launch()

    async def stop(self) -> None:
        """Stop the child and all it started, and wait until they are gone. Raises ``StepFailed``."""
        async with self._lock:
            await self._halt()

    def reset_failed(self) -> None:
        """Forget failures, so that the unit is as if it had never failed."""
        self._failures = 0
        if self.activity is Activity.FAILED:
            self._become(Activity.INACTIVE, "success")

    async def close(self) -> None:
        """Stop supervising; the child runs on."""
        await _cancelled(self._task)
        if self.child is not None:
            self.child.close()

    def _launch(self) -> None:
        """Spawn the loaded command and supervise it. Raises ``StepFailed`` and is failed then."""
        try:
            child = self._spawn()
        except StepFailed:
            self._become(Activity.FAILED, "exit-code")
            raise
        self._follow(child)

    def _spawn(self) -> Child:
        if self._command is None:
            raise StepFailed(f"slot {self.slot} can't start: {self._problem}")
        self._exit_status = _CANT_EXECUTE  # as long as it is not known to run
        return spawn(self.slot, self._command, self._around.folders, self._around.records)

    def _follow(self, child: Child) -> None:
        self._run(child)
        self._stopping = False
        self._task = asyncio.create_task(self._supervise(), name=f"supervise {self.slot}")
        self._task.add_done_callback(_report)

    def _run(self, child: Child) -> None:
        self.child = child
        self._invocation = child.record.invocation
        self._exit_status = None
        self._started = self._around.now()
        self._become(Activity.ACTIVE, "success")

    async def _supervise(self) -> None:
        """Follow one child after the other until a stop, or until there is no use in another one."""
        while self.child is not None:
            status = await self._outlive(self.child)
            if self._stopping:
                self._settle(status)
            else:
                await self._revive()

    async def _revive(self) -> None:
        """Start again, as often as the policy allows, until a child runs."""
        while self.child is None and not self._gives_up():
            await self._retry()

    async def _outlive(self, child: Child) -> int | None:
        """Wait for a child's exit, clear away what it left behind, and count a quick end."""
        status = await child.exited()
        self._exit_status = None if status is None else abs(status)
        self._result = "signal" if status is not None and status < 0 else "exit-code"
        await asyncio.to_thread(table.kill_marked, self._around.folders.state, self.slot)
        self._around.records.remove(self.slot)
        child.close()
        self.child = None
        ran = self._around.now() - self._started
        self._failures = 1 if ran >= self._around.policy.reset_after else self._failures + 1
        return status

    def _settle(self, status: int | None) -> None:
        """Say how a stop that was asked for ended."""
        if status in _CLEAN:
            self._become(Activity.INACTIVE, "success")
        else:
            self._become(Activity.FAILED, "timeout" if status == -signal.SIGKILL else self._result)

    def _gives_up(self) -> bool:
        if self._command is None:
            self._become(Activity.FAILED, self._result)
            return True
        if self._failures >= self._around.policy.limit:
            log.warning("slot %s: exited %d times in a row: given up", self.slot, self._failures)
            self._become(Activity.FAILED, "start-limit-hit")
            return True
        return False

    async def _retry(self) -> None:
        """Wait for the backoff's time and start again."""
        delay = self._around.policy.delay(max(1, self._failures))
        log.warning("slot %s: %s %s, again in %g s", self.slot, self._result, self._exit_status, delay)
        self._become(Activity.RESTARTING, self._result)
        await self._around.sleep(delay)
        self._restarts += 1
        try:
            self._run(self._spawn())
        except StepFailed as error:
            log.warning("%s", error)
            self._failures += 1
            self._result = "exit-code"

    async def _halt(self) -> None:
        """End supervision and the child. One that ignores SIGTERM for its stop timeout gets SIGKILL."""
        if self._task is None or self._task.done():
            return
        self._stopping = True
        if self.child is None:
            await _cancelled(self._task)
            self._become(Activity.INACTIVE, "success")
            return
        self._become(Activity.DEACTIVATING, self._result)
        patience = self._command.stop_timeout if self._command else STOP_TIMEOUT
        for number, seconds in ((signal.SIGTERM, patience), (signal.SIGKILL, _KILL_TIMEOUT)):
            self.child.send(number)
            done, _ = await asyncio.wait({self._task}, timeout=seconds)
            if done:
                return
        raise StepFailed(f"slot {self.slot}: process {self.child.record.pid} survives SIGKILL: a driver holds it")

    def _become(self, activity: Activity, result: str) -> None:
        self.activity, self._result = activity, result
        self._around.changed(self.slot)


async def _cancelled(task: asyncio.Task[None] | None) -> None:
    if task is not None:
        task.cancel()
        await asyncio.wait({task})


def _report(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("%s ended by an error", task.get_name(), exc_info=error)
