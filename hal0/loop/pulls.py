"""Image pulls run beside the loop: minutes long, one for each image however many slots wait for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from hal0.errors import Hal0Error, StepFailed, StepWaits
from hal0.host.ports import Runtime
from hal0.host.tasks import end


@dataclass
class Pulls:
    """Pulls under way. ``done`` is called with the slots that wait, when a pull of theirs has ended."""

    runtime: Runtime
    done: Callable[[frozenset[str]], None]
    _tasks: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    _waiting: dict[str, set[str]] = field(default_factory=dict)
    _failed: dict[tuple[str, str], BaseException] = field(default_factory=dict)

    def need(self, image: str, slot: str) -> None:
        """Ask for an image: raises ``StepWaits`` while it is on the way, ``StepFailed`` once when its pull failed.

        An image that has come is seen on the host: nobody asks for it.
        """
        if error := self._failed.pop((image, slot), None):
            raise StepFailed(str(error), hint=error.hint if isinstance(error, Hal0Error) else "")
        if image not in self._tasks:
            self._begin(image)
        self._waiting.setdefault(image, set()).add(slot)
        raise StepWaits(f"pulling {image}")

    def is_waiting(self, slot: str, wanted: str | None = None) -> bool:
        """Return whether a slot waits for an image that is on the way: for any, or for the one that is wanted."""
        return any(slot in slots and wanted in {None, image} for image, slots in self._waiting.items())

    @property
    def waiting(self) -> frozenset[str]:
        """All that wait for an image that is on the way."""
        return frozenset(slot for slots in self._waiting.values() for slot in slots)

    async def close(self) -> None:
        """Give up pulls under way; podman keeps the layers that it has."""
        await end(self._tasks.values())

    def _begin(self, image: str) -> None:
        task = asyncio.create_task(self.runtime.pull(image), name=f"pull {image}")
        task.add_done_callback(lambda task: self._end(image, task))
        self._tasks[image] = task

    def _end(self, image: str, task: asyncio.Task[None]) -> None:
        """Wake the slots that waited; each of them is told of a failure when it asks again."""
        del self._tasks[image]
        slots = frozenset(self._waiting.pop(image, ()))
        if not task.cancelled() and (error := task.exception()):
            self._failed |= {(image, slot): error for slot in slots}
        self.done(slots)
