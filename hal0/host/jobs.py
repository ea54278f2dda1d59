"""Results of systemd's jobs, which may be announced before the call that made the job returns."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

DONE = "done"
"""The only result that means the job did what it was made for."""

MEANINGS = {
    "canceled": "its job was cancelled by another one",
    "timeout": "its job ran into systemd's job timeout",
    "failed": "it failed to start or to stop",
    "dependency": "a unit that it depends on failed",
    "skipped": "its job was skipped",
    "assert": "an assertion of the unit is not met",
    "invalid": "the unit can't do that",
    "unsupported": "units of this kind are not supported here",
    "collected": "the unit was dropped from memory meanwhile",
    "once": "the unit was started once and can't be started again",
    "frozen": "the unit is frozen",
}
"""What a job's failure result means; a result that is not here is a failure too."""


class Jobs:
    """Hands each JobRemoved to those who wait for that job; keeps early ones while a call is under way."""

    def __init__(self) -> None:
        self._waiting: dict[str, asyncio.Future[str]] = {}
        self._early: dict[str, str] = {}
        self._calls = 0

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Keep results that come from now on: enter before the call that makes the job."""
        self._calls += 1
        try:
            yield
        finally:
            self._calls -= 1
            if not self._calls:
                self._early.clear()
                self._waiting.clear()

    def future(self, job: str) -> asyncio.Future[str]:
        """Return the result of a job, done if it was announced already. Callers of one job share it."""
        future = self._waiting.setdefault(job, asyncio.get_running_loop().create_future())
        if job in self._early and not future.done():
            future.set_result(self._early[job])
        return future

    def finish(self, job: str, result: str) -> None:
        """Take in a JobRemoved."""
        if not self._calls:
            return
        self._early[job] = result
        future = self._waiting.get(job)
        if future is not None and not future.done():
            future.set_result(result)
