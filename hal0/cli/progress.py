"""How far a long act is: a bar on a terminal, a line now and then elsewhere, or every event as JSON."""

from __future__ import annotations

import json
import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from hal0.cli import show
from hal0.core.quantity import show_size

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

_LINE_EVERY = 5.0


class Progress:
    """Shows the events of ``hal0 model pull`` and ``verify``; ``last`` is the one that came last."""

    def __init__(self, *, as_json: bool) -> None:
        self.last: dict[str, Any] = {}
        self._as_json = as_json
        self._bar: Bar | None = None
        self._task: TaskID | None = None
        self._due = 0.0

    def __enter__(self) -> Self:
        """Begin; the bar is shown with the first event that tells of bytes."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the terminal as it was."""
        if self._bar:
            self._bar.stop()

    def show(self, event: dict[str, Any]) -> None:
        """Show one event."""
        self.last = event
        if self._as_json:
            show.say([json.dumps(event)])
        elif event["event"] == "declared":
            show.say([f"{event['model']}: declared in {event['file']}"])
        elif "done_bytes" not in event:
            return
        elif sys.stderr.isatty():
            self._move(event)
        elif (now := time.monotonic()) >= self._due:
            self._due = now + _LINE_EVERY
            show.note(event.get("message") or _verified(event))

    def _move(self, event: dict[str, Any]) -> None:
        bar = self._bar or self._started()
        text = f"{event['phase']} {event['model']}" if "phase" in event else f"verifying {event['model']}"
        if event.get("files", 1) > 1:
            text += f" {event['file']}/{event['files']}"
        if self._task is None:
            self._task = bar.add_task(text)
        bar.update(self._task, description=text, completed=event["done_bytes"], total=event["total_bytes"])

    def _started(self) -> Bar:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, TimeRemainingColumn, TransferSpeedColumn
        from rich.progress import Progress as RichProgress

        columns = ("{task.description}", BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
        self._bar = RichProgress(*columns, console=Console(stderr=True))
        self._bar.start()
        return self._bar


def _verified(event: dict[str, Any]) -> str:
    return f"verifying {event['model']}: {show_size(event['done_bytes'])} of {show_size(event['total_bytes'])}"
