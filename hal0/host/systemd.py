"""systemd's manager over D-Bus: read units, run jobs to their end, hear of changes.

This module, ``dbus`` and ``dbus_reader`` are the only ones that know D-Bus. Methods raise ``HostUnreachable`` when
systemd did not answer and ``StepFailed`` when it answered no.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hal0.errors import HostUnreachable, StepFailed
from hal0.host.dbus import Bus, Refused
from hal0.host.jobs import DONE, MEANINGS, Jobs
from hal0.host.pending import Pending
from hal0.host.ports import EVERYTHING

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from dbus_next.message import Message

    from hal0.host.scope import Scope

RELOAD_S = 90.0
JOB_S = 30.0
_POLL_S = 2.0
_BACKOFF_S = (0.5, 30.0)
_NAME = "org.freedesktop.systemd1"
_PATH = "/org/freedesktop/systemd1"
_MANAGER = f"{_NAME}.Manager"
_UNITS = f"{_PATH}/unit/"
_PROPERTIES = "org.freedesktop.DBus.Properties"
_UNSET = 2**64 - 1
_RULES = (
    f"type='signal',sender='{_NAME}',path='{_PATH}',interface='{_MANAGER}'",
    f"type='signal',sender='{_NAME}',interface='{_PROPERTIES}',member='PropertiesChanged',path_namespace='{_PATH}/unit'",
    f"type='signal',sender='org.freedesktop.DBus',member='NameOwnerChanged',arg0='{_NAME}'",
)
_KEPT = frozenset(
    {
        *("LoadState", "LoadError", "ActiveState", "SubState", "Job", "InvocationID", "ConditionResult"),
        *("NeedDaemonReload", "FragmentPath", "DropInPaths", "UnitFileState"),
        *("Result", "NRestarts", "MainPID", "ExecMainCode", "ExecMainStatus", "StatusText", "ExecStart"),
        *("MemoryCurrent", "CPUUsageNSec", "TimeoutStartUSec", "TimeoutStopUSec"),
    }
)
_NOT_LOADED = f"{_NAME}.NoSuchUnit"
_SILENT = frozenset(
    f"org.freedesktop.DBus.Error.{name}"
    for name in ("NoReply", "ServiceUnknown", "NameHasNoOwner", "Disconnected", "Timeout", "TimedOut")
)
_AS_ROOT = "Run hal0 as root, or give it the `user` scope."
_HINTS = {
    "org.freedesktop.DBus.Error.AccessDenied": _AS_ROOT,
    "org.freedesktop.DBus.Error.InteractiveAuthorizationRequired": _AS_ROOT,
    f"{_NAME}.UnitMasked": "Someone masked the unit: `systemctl unmask` it, or disable the slot.",
    f"{_NAME}.BadUnitSetting": "`systemd-analyze verify` on the unit says which setting.",
    f"{_NAME}.LoadFailed": "`systemctl status` on the unit says why.",
    f"{_NAME}.NoSuchUnit": "The slot's template unit is not installed.",
}


@dataclass(frozen=True, slots=True)
class Listed:
    """One loaded unit as ListUnits tells it; ``job`` is the type of the queued job, or empty."""

    load: str
    active: str
    sub: str
    job: str


class Systemd:
    """One systemd manager. Connects on first use, and again after its bus was lost."""

    def __init__(self, scope: Scope) -> None:
        self._bus = Bus(
            scope.bus_address,
            setup=self._set_up,
            on_signal=self._on_signal,
            on_change=self._on_connection,
            kept=_KEPT,
        )
        self._jobs = Jobs()
        self._listeners: set[Pending] = set()
        self._lost = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    async def list_units(self, pattern: str) -> dict[str, Listed]:
        """Return the units in systemd's memory whose names match a glob, by name."""
        rows = await self._read(f"{_MANAGER}.ListUnitsByPatterns", "asas", [[], [pattern]])
        return {row[0]: Listed(load=row[2], active=row[3], sub=row[4], job=row[8]) for row in rows}

    async def show(self, unit: str) -> dict[str, Any]:
        """Return the properties of a unit that hal0 looks at, loading it where it is not in memory.

        What systemd calls unset (2^64-1) is None. ``LoadState`` says whether the unit could be loaded.
        """
        kept = await self._read(f"{_PROPERTIES}.GetAll", "s", [""], path=unit_path(unit))
        return {name: _plain(value.value) for name, value in kept.items()}

    async def start(self, unit: str, *, timeout: float = JOB_S) -> None:  # noqa: ASYNC109 - it depends on the unit
        """Start a unit and wait for the job's end, at most ``timeout`` seconds."""
        await self._run("StartUnit", unit, timeout)
        state = await self.show(unit)
        if state.get("ActiveState") in {"inactive", "failed"} and state.get("ConditionResult") is False:
            raise StepFailed(f"{unit} was skipped: a condition of the unit is not met")

    async def stop(self, unit: str, *, timeout: float = JOB_S) -> None:  # noqa: ASYNC109 - it depends on the unit
        """Stop a unit and wait for the job's end; a unit that is not loaded is stopped."""
        with _ignoring_unloaded():
            await self._run("StopUnit", unit, timeout)

    async def reset_failed(self, unit: str) -> None:
        """Clear a unit's failed state and its start limit; a unit that is not loaded has neither."""
        with _ignoring_unloaded():
            await self._do(f"{_MANAGER}.ResetFailedUnit", "s", [unit])

    async def reload(self) -> None:
        """Make systemd read all unit files again; returns when it has."""
        await self._do(f"{_MANAGER}.Reload", timeout=RELOAD_S)

    async def changes(self) -> AsyncGenerator[str]:
        """Yield unit names that changed, and ``*`` after each connect, daemon-reload and restart of systemd.

        UnitNew and UnitRemoved are not heard: reading an idle unit loads and drops it, so that each look
        would ask for the next one. Ends only by being closed; a lost bus is connected again with backoff.
        """
        pending = Pending()
        self._listeners.add(pending)
        if self._bus.connected:
            pending.add(EVERYTHING)
        keeper = asyncio.create_task(self._stay_connected())
        try:
            while True:
                yield await pending.take()
        finally:
            self._listeners.discard(pending)
            keeper.cancel()

    async def close(self) -> None:
        """Let go of the bus."""
        for task in self._tasks:
            task.cancel()
        await self._bus.close()

    async def _stay_connected(self) -> None:
        delay, longest = _BACKOFF_S
        while True:
            try:
                await self._bus.connect()
            except HostUnreachable:
                await asyncio.sleep(delay)
                delay = min(delay * 2, longest)
            else:
                delay = _BACKOFF_S[0]
                await self._lost.wait()

    async def _set_up(self, bus: Bus) -> None:
        for rule in _RULES:
            await bus.match(rule)
        await self._subscribe()

    async def _subscribe(self) -> None:
        """Ask for signals, without which systemd sends none."""
        try:
            await self._bus.exchange(_NAME, _PATH, f"{_MANAGER}.Subscribe", "", [])
        except Refused as refusal:
            if refusal.name != f"{_NAME}.AlreadySubscribed":
                raise

    def _on_connection(self, connected: bool) -> None:
        if connected:
            self._lost.clear()
            self._announce(EVERYTHING)
        else:
            self._lost.set()

    def _on_signal(self, message: Message) -> None:
        match message.member:
            case "JobRemoved":
                _, job, unit, result = message.body
                self._jobs.finish(job, result)
                self._announce(unit)
            case "PropertiesChanged" if message.path.startswith(_UNITS):
                self._announce(unit_name(message.path))
            case "Reloading" if message.body == [False]:
                self._announce(EVERYTHING)
            case "NameOwnerChanged" if message.body[2]:
                self._on_restart()

    def _on_restart(self) -> None:
        """Subscribe with the new systemd process: a re-executed one may have forgotten."""
        task = asyncio.create_task(self._subscribe_again())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _subscribe_again(self) -> None:
        with contextlib.suppress(HostUnreachable, Refused):  # the next loss or resync tries again
            await self._subscribe()
        self._announce(EVERYTHING)

    def _announce(self, name: str) -> None:
        for listener in self._listeners:
            listener.add(name)

    async def _read(self, member: str, signature: str, body: list[Any], *, path: str = _PATH) -> Any:
        try:
            return (await self._bus.call(_NAME, path, member, signature, body))[0]
        except Refused as refusal:
            raise HostUnreachable(f"systemd: {refusal}") from refusal

    async def _do(
        self,
        member: str,
        signature: str = "",
        body: list[Any] | None = None,
        *,
        timeout: float = JOB_S,  # noqa: ASYNC109 - reloads take longer than other verbs
    ) -> list[Any]:
        try:
            return await self._bus.call(_NAME, _PATH, member, signature, body, timeout=timeout)
        except Refused as refusal:
            if refusal.name in _SILENT:
                raise HostUnreachable(f"systemd: {refusal}") from refusal
            raise StepFailed(str(refusal), hint=_HINTS.get(refusal.name, "")) from refusal

    async def _run(self, verb: str, unit: str, limit: float) -> None:
        with self._jobs.listening():
            (path,) = await self._do(f"{_MANAGER}.{verb}", "ss", [unit, "replace"])
            result = await self._finished(path, verb, unit, limit)
        if result != DONE:
            raise StepFailed(f"{unit}: {await self._explain(unit, result)}")

    async def _finished(self, path: str, verb: str, unit: str, limit: float) -> str:
        """Wait for a job's result: its signal, or a look, should the signal have been lost with the bus."""
        clock = asyncio.get_running_loop()
        deadline = clock.time() + limit
        future = self._jobs.future(path)
        while clock.time() < deadline:
            await asyncio.wait({future}, timeout=min(_POLL_S, deadline - clock.time()))
            if not future.done() and await self._is_gone(path) and not future.done():
                return await self._judge(verb, unit)
            if future.done():
                return future.result()
        raise StepFailed(f"{unit}: its {verb} job still runs after {limit:g} s", hint="Raise the unit's timeout.")

    async def _is_gone(self, job: str) -> bool:
        try:
            await self._bus.call(_NAME, job, f"{_PROPERTIES}.Get", "ss", [f"{_NAME}.Job", "State"])
        except Refused as refusal:
            if refusal.name in _SILENT:
                raise HostUnreachable(f"systemd: {refusal}") from refusal
            return True
        return False

    async def _judge(self, verb: str, unit: str) -> str:
        """Tell a job's result from the state that it left."""
        active = (await self.show(unit)).get("ActiveState")
        up = active in {"active", "reloading", "refreshing"}
        down = active in {"inactive", "failed"}
        return DONE if (up if verb == "StartUnit" else down) else "failed"

    async def _explain(self, unit: str, result: str) -> str:
        meaning = MEANINGS.get(result, f"its job ended with {result!r}")
        try:
            state = await self.show(unit)
        except HostUnreachable:
            return meaning
        detail = f"{state.get('Result', '?')}, exit status {state.get('ExecMainStatus', '?')}"
        return f"{meaning} ({detail})" if result == "failed" else meaning


def unit_path(unit: str) -> str:
    """Return the D-Bus object path of a unit."""
    escaped = (chr(byte) if chr(byte).isascii() and chr(byte).isalnum() else f"_{byte:02x}" for byte in unit.encode())
    return _UNITS + "".join(escaped)


def unit_name(path: str) -> str:
    """Return the unit that a D-Bus object path names."""
    escaped = path.removeprefix(_UNITS)
    return re.sub(r"_([0-9a-f]{2})", lambda match: chr(int(match[1], 16)), escaped)


def _plain(value: Any) -> Any:
    return None if value == _UNSET and not isinstance(value, bool) else value


@contextlib.contextmanager
def _ignoring_unloaded() -> Any:
    """Let a refusal pass that says: there is no such unit."""
    try:
        yield
    except StepFailed as failure:
        cause = failure.__cause__
        if not (isinstance(cause, Refused) and cause.name == _NOT_LOADED):
            raise
