"""The embedded runtime: slots as supervised child processes, where there is no systemd or no podman.

Children are sessions of their own and outlive hal0: the next one adopts them. One ``ProcessRuntime`` at a time may
own a state folder; the caller's lock sees to that.
"""

from __future__ import annotations

import asyncio
import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING

from hal0.core.facts import Fact, Known, Unknown
from hal0.core.observed import Definition, Instance, Service, SlotObservation, unobserved
from hal0.core.pins import ImagePin
from hal0.errors import HostUnreachable, StepFailed
from hal0.host.ports import EVERYTHING
from hal0.host.process_child import Folders, adopt_all
from hal0.host.process_files import Definitions, Records
from hal0.host.process_logs import LogFile
from hal0.host.process_unit import RestartPolicy, Surroundings, Unit

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

log = logging.getLogger(__name__)

_NO_IMAGE: Known[str | None] = Known("")


class ProcessRuntime:
    """Implements ``Runtime`` over child processes; its files are under ``state_dir``.

    Raises ``HostUnreachable`` when the folder can't be made. Adopting needs a running event loop, so it happens in
    the first call that looks at processes.
    """

    name = "process"

    def __init__(
        self,
        state_dir: Path,
        *,
        policy: RestartPolicy | None = None,
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._folders = Folders(Path(state_dir).resolve())
        self._definitions = Definitions(self._folders.slots)
        self._records = Records(self._folders.run)
        self._around = Surroundings(self._folders, self._records, policy or RestartPolicy(), now, sleep, self._tell)
        self._units: dict[str, Unit] = {}
        self._listeners: set[asyncio.Queue[str | None]] = set()
        self._adopted = False
        try:
            self._folders.create()
        except OSError as error:
            raise HostUnreachable(f"can't use {state_dir}: {error.strerror}") from error
        self._load_all()

    async def observe(
        self, images: Mapping[str, str], *, only: frozenset[str] | None = None
    ) -> dict[str, SlotObservation]:
        """Look at the named slots and at every other one that has a definition or a child."""
        try:
            self._adopt()
        except HostUnreachable as error:
            return {slot: unobserved(str(error)) for slot in (images if only is None else only)}
        self._forget()
        self.rotate()
        everything = self._units.keys() | self._definitions.names() | images.keys()
        return {slot: self._look(slot) for slot in sorted(everything if only is None else only)}

    async def write(self, slot: str, text: str) -> None:
        """Put a slot's definition in place, atomically."""
        self._definitions.write(slot, text)

    async def remove(self, slot: str) -> None:
        """Remove a slot's definition; nothing to remove is not an error."""
        self._definitions.remove(slot)

    async def put_aside(self, slot: str) -> None:
        """Stop the child, and rename its definition."""
        await self.stop(slot)
        self._definitions.put_aside(slot)

    async def reload(self) -> None:
        """Load all definitions as they lie on disk; what runs is not touched."""
        self._adopt()
        self._load_all()

    async def reset_failed(self, slot: str) -> None:
        """Clear a failed state and the count of quick exits."""
        self._adopt()
        if slot in self._units:
            self._units[slot].reset_failed()

    async def start(self, slot: str) -> None:
        """Start the slot's loaded command. Raises ``StepFailed`` when it has none or it can't be executed."""
        self._adopt()
        if slot not in self._units:
            self._load(slot)
        if slot not in self._units:
            raise StepFailed(f"slot {slot} can't start: there is no {self._definitions.path(slot)}")
        await self._units[slot].start()

    async def stop(self, slot: str) -> None:
        """Stop the slot's child and wait until it is gone; without one, nothing happens."""
        self._adopt()
        if slot in self._units:
            await self._units[slot].stop()

    async def stop_all(self) -> None:
        """Stop all children at once; raises ``StepFailed`` naming those that would not stop, after trying all."""
        self._adopt()
        stops = (unit.stop() for unit in self._units.values())
        errors = [result for result in await asyncio.gather(*stops, return_exceptions=True) if result]
        if errors:
            raise StepFailed("; ".join(str(error) for error in errors))

    async def pull(self, image: str) -> None:
        """Raise ``StepFailed``: processes have no images."""
        raise StepFailed(f"can't pull {image}: slots run as processes here, without images")

    async def pin_of(self, image: str) -> ImagePin | None:
        """Return None: processes have no images."""

    async def logs(self, slot: str, *, lines: int, engine_only: bool = False) -> list[str]:  # noqa: ARG002  (all are)
        """Return the last lines that the slot's processes wrote, oldest first."""
        return await asyncio.to_thread(self._log(slot).tail, lines)

    async def follow(self, slot: str) -> AsyncIterator[str]:
        """Yield lines as the slot's processes write them, across restarts and rotations."""
        async for line in self._log(slot).follow():
            yield line

    async def events(self) -> AsyncIterator[str]:
        """Yield ``EVERYTHING`` once, then each slot whose service changed, until ``close``."""
        queue: asyncio.Queue[str | None] = asyncio.Queue()
        self._listeners.add(queue)
        try:
            yield EVERYTHING
            while (slot := await queue.get()) is not None:
                yield slot
        finally:
            self._listeners.discard(queue)

    async def close(self) -> None:
        """Stop supervising and end ``events``; children run on and are adopted by the next runtime."""
        for unit in self._units.values():
            await unit.close()
        self._units.clear()
        self._tell(None)

    def rotate(self) -> None:
        """Rotate the logs that are full: a stat for each slot, and a copy of a few MiB once in a while."""
        for slot in self._units:
            file = self._log(slot)
            try:
                if file.is_full():
                    file.rotate()
            except OSError as error:
                log.warning("can't rotate %s: %s", file.path, error.strerror)

    def _look(self, slot: str) -> SlotObservation:
        definition = self._definitions.read(slot)
        return SlotObservation(definition, self._service(slot, definition), self._instance(slot), _NO_IMAGE)

    def _service(self, slot: str, definition: Fact[Definition | None]) -> Fact[Service | None]:
        """Return the unit's state. As with systemd, a definition is loaded when it is first looked at."""
        if slot not in self._units:
            self._take(slot, definition)
        unit = self._units.get(slot)
        if isinstance(definition, Unknown):
            return Known(unit.service(needs_reload=False)) if unit else definition
        text = definition.value.text if definition.value else None
        return Known(unit.service(needs_reload=unit.text != text) if unit else None)

    def _instance(self, slot: str) -> Fact[Instance | None]:
        unit = self._units.get(slot)
        if unit is None or unit.child is None or not unit.child.lives:
            return Known(None)
        record = unit.child.record
        return Known(
            Instance(
                unit.child.id,
                running=True,
                slot=record.slot,
                spec_hash=record.spec_hash,
                command=record.argv,
            )
        )

    def _adopt(self) -> None:
        """Take over the children that run already, once. Raises ``HostUnreachable``."""
        if self._adopted:
            return
        try:
            children = adopt_all(self._folders, self._records)
        except OSError as error:
            raise HostUnreachable(f"can't look for children of {self._folders.state}: {error}") from error
        self._adopted = True
        for child in children:
            log.info("slot %s: adopted process %d", child.record.slot, child.record.pid)
            self._unit(child.record.slot).adopt(child)

    def _load_all(self) -> None:
        for slot in self._units.keys() | self._definitions.names():
            self._load(slot)
        self._forget()

    def _load(self, slot: str) -> None:
        self._take(slot, self._definitions.read(slot))

    def _take(self, slot: str, definition: Fact[Definition | None]) -> None:
        """Load one definition; one that can't be read now leaves the loaded one in place."""
        if isinstance(definition, Unknown):
            return
        if definition.value is not None:
            self._unit(slot).load(definition.value.text)
        elif slot in self._units:
            self._units[slot].load(None)

    def _forget(self) -> None:
        """Drop the units of which nothing is left."""
        self._units = {slot: unit for slot, unit in self._units.items() if not unit.is_gone}

    def _unit(self, slot: str) -> Unit:
        if slot not in self._units:
            self._units[slot] = Unit(slot, self._around)
        return self._units[slot]

    def _log(self, slot: str) -> LogFile:
        self._definitions.path(slot)  # refuses a name that can't be a slot's
        return LogFile(self._folders.log(slot))

    def _tell(self, event: str | None) -> None:
        for queue in self._listeners:
            queue.put_nowait(event)
