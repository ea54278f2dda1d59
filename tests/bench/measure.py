"""Measured values, and ways to come by them: rounds, medians, what a child process took."""

from __future__ import annotations

import gc
import os
import statistics
import subprocess
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass


class Skipped(Exception):
    """A section can't be measured on this machine; the message says why."""


@dataclass(frozen=True)
class Row:
    """One measured thing: its values in the order they were taken.

    ``aim`` is what the median should not exceed or, with ``at_least``, what it should reach.
    """

    name: str
    unit: str
    values: tuple[float, ...]
    aim: float | None = None
    note: str = ""
    at_least: bool = False

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def is_met(self) -> bool | None:
        if self.aim is None:
            return None
        return self.median >= self.aim if self.at_least else self.median <= self.aim


Rows = Generator[Row, None, None]
"""What a section yields, each row as soon as it is known; closed early, it ends what it started."""


@dataclass(frozen=True)
class Spent:
    """What one child process took, in seconds."""

    wall: float
    cpu: float


def milliseconds(work: Callable[[], object], *, rounds: int) -> tuple[float, ...]:
    """Time some work; the collector runs between the rounds, and when it likes within them."""
    values = []
    for _ in range(rounds):
        gc.collect()
        begun = time.perf_counter()
        work()
        values.append((time.perf_counter() - begun) * 1e3)
    return tuple(values)


def spend(argv: Sequence[str], env: Mapping[str, str] | None = None) -> Spent:
    """Run a command to its end and return what it took, its own children included."""
    begun = time.perf_counter()
    child = subprocess.Popen(
        argv, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    assert child.stderr is not None
    said = child.stderr.read()
    _, status, usage = os.wait4(child.pid, 0)
    wall = time.perf_counter() - begun
    child.returncode = os.waitstatus_to_exitcode(status)
    child.stderr.close()
    if child.returncode:
        raise RuntimeError(f"{' '.join(argv)}: exit status {child.returncode}\n{said}")
    return Spent(wall, usage.ru_utime + usage.ru_stime)


def interleaved(
    commands: Mapping[str, tuple[Sequence[str], Mapping[str, str] | None]], *, rounds: int
) -> dict[str, list[Spent]]:
    """Run some commands in turn, so that a busy moment of the machine hits all of them; the first round is left out."""
    spent: dict[str, list[Spent]] = {name: [] for name in commands}
    for number in range(rounds + 1):
        for name, (argv, env) in commands.items():
            took = spend(argv, env)
            if number:
                spent[name].append(took)
    return spent


def ratios(above: Sequence[float], below: Sequence[float]) -> tuple[float, ...]:
    """Return the ratio of each round."""
    return tuple(a / b for a, b in zip(above, below, strict=True))
