"""Image pulls run beside the loop: minutes long, one for each image however many slots wait for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from hal0.errors import Hal0Error, StepFailed, StepWaits
from hal0.host.ports import Runtime


@dataclass
class Pulls:
    """Pulls under way. ``done`` is called with the slots that wait, when a pull of theirs has ended."""

    runtime: Runtime
    done: Callable[[frozenset[str]], None]
    _tasks: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    _waiting: dict[str, set[str]] = field(default_factory=dict)

    def need(self, image: str, slot: str) -> None:
        """Ask for an image: raises ``StepWaits`` while it is on the way, ``StepFailed`` once when its pull failed."""
        task = self._tasks.get(image)
        if task is None:
            self._begin(image)
        elif task.done():
            del self._tasks[image]
            if error := task.exception():
                raise StepFailed(str(error), hint=error.hint if isinstance(error, Hal0Error) else "")
            return
        self._waiting.setdefault(image, set()).add(slot)
        raise StepWaits(f"pulling {image}")

    def is_waiting(self, slot: str, wanted: str | None = None) -> bool:
        """Return whether a slot waits for an image that is on the way: for any, or for the one that is wanted."""
        return any(
            slot in slots and wanted in {None, image} and (task := self._tasks.get(image)) is not None and not task.done()
            for image, slots in self._waiting.items()
        )

    async def close(self) -> None:
        """Give up pulls under way; podman keeps the layers that it has."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def _begin(self, image: str) -> None:
        task = asyncio.create_task(self.runtime.pull(image), name=f"pull {image}")
        task.add_done_callback(lambda _: self.done(frozenset(self._waiting.pop(image, ()))))
        self._tasks[image] = task
