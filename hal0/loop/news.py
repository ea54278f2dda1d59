"""News of the loop for whoever watches: a progress view, an event stream. Nobody who is slow holds the loop up."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeAlias

from hal0.core.transfer import Transfer

_BACKLOG = 1000


class Outcome(StrEnum):
    """How a step went."""

    STARTED = "started"
    OK = "ok"
    FAILED = "failed"
    WAITING = "waiting"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class StepNews:
    """One step began or ended."""

    slot: str
    step: str
    outcome: Outcome
    message: str = ""
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class StateNews:
    """A slot went from one state to the next."""

    slot: str
    before: str
    after: str
    message: str = ""


@dataclass(frozen=True, slots=True)
class PassNews:
    """A pass of the loop ended and a new snapshot is there."""

    changes: int


@dataclass(frozen=True, slots=True)
class LoadNews:
    """A slot has loaded its model, in so many seconds."""

    slot: str
    seconds: float


@dataclass(frozen=True, slots=True)
class TransferNews:
    """A model has come further on its way here; ``slots`` wait for it."""

    transfer: Transfer
    slots: tuple[str, ...]


News: TypeAlias = StepNews | StateNews | PassNews | LoadNews | TransferNews


@dataclass
class Feed:
    """Hands every piece of news to every subscriber; a subscriber that falls far behind misses the oldest."""

    _queues: list[asyncio.Queue[News]] = field(default_factory=list)

    def publish(self, news: News) -> None:
        """Hand on one piece of news."""
        for queue in self._queues:
            if queue.full():
                queue.get_nowait()
            queue.put_nowait(news)

    @contextmanager
    def subscribe(self) -> Iterator[asyncio.Queue[News]]:
        """Return a queue of what is published from now on."""
        queue: asyncio.Queue[News] = asyncio.Queue(_BACKLOG)
        self._queues.append(queue)
        try:
            yield queue
        finally:
            self._queues.remove(queue)
