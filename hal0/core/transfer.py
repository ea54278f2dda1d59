"""How far the transfer of a model is, as a value, and how that is told."""

from __future__ import annotations

from dataclasses import dataclass, replace

from hal0.core.model import Phase, Progress
from hal0.core.quantity import show_size

_SAMPLE = 1.0
"""Seconds that a rate is measured over, at the least."""
_WEIGHT = 0.3
"""How much of a rate is its last sample's."""
_NOTHING = Progress(0, None)


@dataclass(frozen=True, slots=True)
class Transfer:
    """A model on its way: how far its file number ``file`` of ``files`` is. ``queued``: others are fetched first.

    ``rate`` is in bytes a second, None where none is known yet. ``sampled`` are the instant, on the loop's clock, and
    the bytes of the last sample of it.
    """

    model: str
    files: int = 1
    file: int = 1
    progress: Progress = _NOTHING
    rate: float | None = None
    sampled: tuple[float, int] | None = None
    queued: bool = False

    def __str__(self) -> str:
        """Return it as ``fetching qwen3-8b: 3.1 of 4.9 GiB, 41.0 MiB/s``."""
        if self.queued:
            return f"{self.model} is fetched after others"
        verb = "checking what is there of" if self.progress.phase is Phase.CHECKING else "fetching"
        part = f", file {self.file} of {self.files}" if self.files > 1 else ""
        figures = ", ".join(filter(None, (_amount(self.progress), _speed(self))))
        return f"{verb} {self.model}{part}" + (f": {figures}" if figures else "")

    def at(self, file: int, progress: Progress, now: float) -> Transfer:
        """Return the transfer once it has come further; ``now`` is on the loop's clock."""
        moved = replace(self, file=file, progress=progress)
        if self.sampled is None or (file, progress.phase) != (self.file, self.progress.phase):
            return replace(moved, rate=None, sampled=(now, progress.done))
        begun, done = self.sampled
        if now - begun < _SAMPLE:
            return moved
        rate = max(0, progress.done - done) / (now - begun)
        smooth = rate if self.rate is None else self.rate + _WEIGHT * (rate - self.rate)
        return replace(moved, rate=smooth, sampled=(now, progress.done))


def _amount(progress: Progress) -> str:
    if progress.total is None:
        return show_size(progress.done) if progress.done else ""
    done, total = show_size(progress.done), show_size(progress.total)
    number, _, unit = done.partition(" ")
    return f"{number if total.endswith(' ' + unit) else done} of {total}"


def _speed(transfer: Transfer) -> str:
    is_fetching = transfer.progress.phase is Phase.FETCHING
    return f"{show_size(int(transfer.rate))}/s" if is_fetching and transfer.rate is not None else ""
