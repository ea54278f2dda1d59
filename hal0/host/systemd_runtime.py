"""The real runtime: each slot a systemd service whose drop-in runs one podman container."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

from hal0.core.facts import Fact, Known, Unknown
from hal0.core.observed import Activity, Definition, Instance, Service, SlotObservation
from hal0.core.pins import ImagePin
from hal0.core.spec import UNIT_PREFIX, container_name, unit_name
from hal0.errors import HostUnreachable
from hal0.host import journal
from hal0.host.dropins import Dropins, is_slot
from hal0.host.pending import Pending
from hal0.host.podman import Podman
from hal0.host.ports import EVERYTHING
from hal0.host.systemd import JOB_S, Systemd
from hal0.host.tasks import end

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping

    from hal0.host.scope import Scope
    from hal0.host.systemd import Listed

_PATTERN = unit_name("*")
_LONGEST_JOB_S = 3600.0
_STOP_PHASES = 3  # systemd grants its stop timeout anew to stopping, killing and ExecStopPost
_KILLED = frozenset({2, 3})  # CLD_KILLED and CLD_DUMPED: the status is a signal's number
_ACTIVITIES = {
    "active": Activity.ACTIVE,
    "reloading": Activity.ACTIVE,
    "refreshing": Activity.ACTIVE,
    "inactive": Activity.INACTIVE,
    "maintenance": Activity.INACTIVE,
    "failed": Activity.FAILED,
    "activating": Activity.ACTIVATING,
    "deactivating": Activity.DEACTIVATING,
}


class SystemdRuntime:
    """Implements ``ports.Runtime`` with systemd over D-Bus, podman's API and files under the unit folder."""

    name = "systemd"

    def __init__(self, scope: Scope) -> None:
        self._scope = scope
        self._systemd = Systemd(scope)
        self._podman = Podman(scope)
        self._dropins = Dropins(scope.unit_dir)

    async def observe(
        self, images: Mapping[str, str], *, only: frozenset[str] | None = None
    ) -> dict[str, SlotObservation]:
        """Look at the named slots and, without ``only``, at all others that disk, systemd or podman know of."""
        refs = {slot: ref for slot, ref in images.items() if only is None or slot in only}
        on_disk, units, containers, local = await asyncio.gather(
            asyncio.to_thread(self._dropins.names),
            self._units(),
            self._podman.containers(),
            self._podman.images(refs.values()),
        )
        names = only if only is not None else _all_names(images, on_disk, units, containers)
        definitions = await asyncio.to_thread(self._definitions, names)
        services = await self._services(definitions, units)
        return {
            slot: SlotObservation(
                definition=definitions[slot],
                service=services[slot],
                instance=_instance(slot, containers),
                image=_image(refs.get(slot), local),
            )
            for slot in names
        }

    async def write(self, slot: str, text: str) -> None:
        """Put a slot's drop-in in place, atomically."""
        await asyncio.to_thread(self._dropins.write, slot, text)

    async def remove(self, slot: str) -> None:
        """Remove a slot's drop-in; nothing to remove is not an error."""
        await asyncio.to_thread(self._dropins.remove, slot)

    async def put_aside(self, slot: str) -> None:
        """Stop the service, remove the container of that name, and rename the drop-in."""
        await self.stop(slot)
        await self._podman.remove(container_name(slot))
        await asyncio.to_thread(self._dropins.put_aside, slot)

    async def reload(self) -> None:
        """Make systemd read the drop-ins again."""
        await self._systemd.reload()

    async def reset_failed(self, slot: str) -> None:
        """Clear a failed state and the start limit, so that a start is not refused."""
        await self._systemd.reset_failed(unit_name(slot))

    async def start(self, slot: str) -> None:
        """Start the service, within its own start timeout and half a minute; an hour where it has none."""
        unit = unit_name(slot)
        granted = _seconds((await self._systemd.show(unit)).get("TimeoutStartUSec"))
        await self._systemd.start(unit, timeout=min(JOB_S + granted, _LONGEST_JOB_S))

    async def stop(self, slot: str) -> None:
        """Stop the service, within its own stop timeouts and half a minute; a stopped one is left as it is."""
        unit = unit_name(slot)
        granted = _STOP_PHASES * _seconds((await self._systemd.show(unit)).get("TimeoutStopUSec"))
        await self._systemd.stop(unit, timeout=min(JOB_S + granted, _LONGEST_JOB_S))

    async def pull(self, image: str) -> None:
        """Fetch an image; being cancelled ends the transfer."""
        await self._podman.pull(image)

    async def pin_of(self, image: str) -> ImagePin | None:
        """Return what an image that is here can be locked to."""
        return await self._podman.pin_of(image)

    async def logs(self, slot: str, *, lines: int, engine_only: bool = False) -> list[str]:
        """Return the last lines of the slot's service in the journal, oldest first."""
        return await journal.logs(unit_name(slot), lines, self._scope, *_said_by(slot, engine_only=engine_only))

    async def follow(self, slot: str) -> AsyncGenerator[str]:
        """Yield lines as the slot's service writes them to the journal."""
        async with contextlib.aclosing(journal.follow(unit_name(slot), self._scope, *_said_by(slot))) as lines:
            async for line in lines:
                yield line

    async def events(self) -> AsyncGenerator[str]:
        """Yield slots that systemd or podman announced, and ``*`` whenever either was connected or reloaded."""
        pending = Pending()
        pumps = [
            asyncio.create_task(_pump(self._unit_events(), pending)),
            asyncio.create_task(_pump(self._podman.events(), pending)),
        ]
        for pump in pumps:
            pump.add_done_callback(lambda _: pending.add(EVERYTHING))
        try:
            while True:
                yield await pending.take()
                _raise_failed(pumps)
        finally:
            await end(pumps)

    async def stop_all(self) -> None:
        """Leave the units as they are: they live without hal0."""

    async def close(self) -> None:
        """Let go of the bus and of podman; slots run on."""
        await asyncio.gather(self._systemd.close(), self._podman.close())

    async def _units(self) -> Fact[dict[str, Listed]]:
        """Return slots whose unit systemd has in memory."""
        try:
            listed = await self._systemd.list_units(_PATTERN)
        except HostUnreachable as error:
            return Unknown(str(error))
        return Known({slot: row for unit, row in listed.items() if (slot := _slot_of(unit))})

    def _definitions(self, slots: Iterable[str]) -> dict[str, Fact[Definition | None]]:
        return {slot: self._dropins.read(slot) for slot in slots}

    async def _services(
        self, definitions: Mapping[str, Fact[Definition | None]], units: Fact[dict[str, Listed]]
    ) -> dict[str, Fact[Service | None]]:
        if isinstance(units, Unknown):
            return dict.fromkeys(definitions, units)
        facts = await asyncio.gather(
            *(self._service(slot, on_disk, units.value.get(slot)) for slot, on_disk in definitions.items())
        )
        return dict(zip(definitions, facts, strict=True))

    async def _service(
        self, slot: str, definition: Fact[Definition | None], row: Listed | None
    ) -> Fact[Service | None]:
        """Return a slot's service; a bare instance of the template that does nothing is no service."""
        if definition == Known(None) and (row is None or (row.active == "inactive" and not row.job)):
            return Known(None)
        try:
            state = await self._systemd.show(unit_name(slot))
            return Known(_service_from(state, row.job if row else "", str(self._dropins.path(slot))))
        except HostUnreachable as error:
            return Unknown(str(error))
        except (KeyError, TypeError, ValueError, IndexError) as error:
            return Unknown(f"systemd: {unit_name(slot)}: unexpected answer ({error!r})")

    async def _unit_events(self) -> AsyncGenerator[str]:
        async for unit in self._systemd.changes():
            if name := EVERYTHING if unit == EVERYTHING else _slot_of(unit):
                yield name


def _said_by(slot: str, *, engine_only: bool = False) -> tuple[str, ...]:
    """Return whose lines are a slot's: its engine's (the unit sets that identifier) and systemd's about it."""
    engine = container_name(slot)
    return (engine,) if engine_only else (engine, "systemd")


def _slot_of(unit: str) -> str:
    slot = unit.removeprefix(UNIT_PREFIX).removesuffix(".service")
    return slot if is_slot(slot) and unit == unit_name(slot) else ""


def _all_names(images: Mapping[str, str], *sources: Fact[Any]) -> frozenset[str]:
    found = (source.value for source in sources if isinstance(source, Known))
    return frozenset(images).union(name for names in found for name in names if is_slot(name))


def _instance(slot: str, containers: Fact[dict[str, Fact[Instance]]]) -> Fact[Instance | None]:
    if isinstance(containers, Unknown):
        return containers
    found = containers.value.get(slot)
    return Known(found.value) if isinstance(found, Known) else found or Known(None)


def _image(ref: str | None, local: Fact[dict[str, str | None]]) -> Fact[str | None]:
    if ref is None:
        return Known(None)
    return local if isinstance(local, Unknown) else Known(local.value[ref])


def _service_from(state: Mapping[str, Any], job: str, own: str) -> Service:
    """Make a service of systemd's properties. Raises ``KeyError`` and its like where one is missing or odd."""
    commands = state.get("ExecStart") or ()
    return Service(
        activity=activity_of(state["ActiveState"], state["SubState"], job),
        load=state["LoadState"],
        argv=tuple(commands[0][1]) if commands else (),
        needs_reload=bool(state["NeedDaemonReload"]),
        fragment=state.get("FragmentPath", ""),
        operator_dropins=tuple(path for path in state.get("DropInPaths", ()) if path != own),
        result=state.get("Result", "success"),
        restarts=state.get("NRestarts") or 0,
        exit_status=_exit_status(state),
        invocation=bytes(state.get("InvocationID", b"")).hex(),
        pid=state.get("MainPID") or None,
        memory=state.get("MemoryCurrent"),
    )


def activity_of(active: str, sub: str, job: str = "") -> Activity:
    """Condense systemd's states and queued job. Raises ``ValueError`` for a state that hal0 does not know."""
    if active not in _ACTIVITIES:
        raise ValueError(f"ActiveState {active}")
    if active == "activating" and sub.startswith("auto-restart"):
        return Activity.RESTARTING
    if job == "start" and active in {"inactive", "failed"}:
        return Activity.ACTIVATING
    return _ACTIVITIES[active]


def _exit_status(state: Mapping[str, Any]) -> int | None:
    """Return the main process's last exit status as a shell tells it: 128 and the signal for a killed one."""
    code, status = state.get("ExecMainCode") or 0, state.get("ExecMainStatus") or 0
    if not code:
        return None
    return 128 + int(status) if code in _KILLED else int(status)


def _seconds(microseconds: int | None) -> float:
    return _LONGEST_JOB_S if microseconds is None else microseconds / 1e6


def _raise_failed(pumps: Iterable[asyncio.Task[None]]) -> None:
    """Raise what ended a source of events: sources end only by a mistake in them."""
    for pump in pumps:
        if pump.done():
            pump.result()


async def _pump(source: AsyncIterator[str], into: Pending) -> None:
    async for name in source:
        into.add(name)
