"""What the loop counts: its passes, and how often slots were started again. In memory, from the start of this hal0."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum

from hal0.core.engines import slot_of
from hal0.core.facts import Unknown
from hal0.core.histogram import Histogram
from hal0.core.observed import Observed
from hal0.core.reasons import RESTART
from hal0.core.schedule import Ground
from hal0.core.steps import Action, Change
from hal0.host.ports import Clock

_PASS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Result(StrEnum):
    """How a pass ended."""

    SUCCESS = "success"
    ERROR = "error"


class Restart(StrEnum):
    """Why a slot was started again."""

    CRASH = "crash"  # its engine ended, and the service manager started it again
    FAILED = "failed"  # the service manager had given it up, and hal0 started it again
    DRIFT = "drift"  # hal0 undid what was done outside it
    UPDATE = "update"  # hal0 replaced the engine by what is declared now
    ASKED = "asked"  # a person asked for it


@dataclass
class Counts:
    """Counters that only grow, also where what they are counted from begins anew. Durations are in seconds."""

    passes: Counter[Result] = field(default_factory=Counter)
    durations: Histogram = field(default_factory=lambda: Histogram.of(_PASS))
    restarts: Counter[tuple[str, Restart]] = field(default_factory=Counter)
    evictions: Counter[tuple[str, Ground]] = field(default_factory=Counter)
    _automatic: dict[str, int] = field(default_factory=dict)

    @contextmanager
    def timed(self, clock: Clock) -> Iterator[None]:
        """Count one pass and how long it took. One that is cancelled counts for nothing."""
        began = clock.now()
        try:
            yield
        except Exception:
            self._ended(Result.ERROR, clock.now() - began)
            raise
        self._ended(Result.SUCCESS, clock.now() - began)

    def look(self, observed: Observed) -> None:
        """Count what the service manager restarted since the last look; what it did before the first is not known."""
        for name, slot in observed.slots.items():
            if isinstance(slot.service, Unknown):
                continue
            restarts = slot.service.value.restarts if slot.service.value else 0
            before = self._automatic.get(name, restarts)
            # The manager counts from 0 again after a start: less than before is all new.
            self.restarts[slot_of(name), Restart.CRASH] += restarts - before if restarts >= before else restarts
            self._automatic[name] = restarts

    def restarted(self, change: Change) -> None:
        """Count a start by hal0 of a slot that it had started before and not stopped."""
        self.restarts[slot_of(change.slot), _reason(change)] += 1

    def _ended(self, result: Result, seconds: float) -> None:
        self.passes[result] += 1
        self.durations.observe(seconds)


def _reason(change: Change) -> Restart:
    if any(reason.field == RESTART for reason in change.reasons):
        return Restart.ASKED
    if change.is_drift:
        return Restart.DRIFT
    # A restart writes nothing; one that undoes nothing either is for a service that failed.
    return Restart.FAILED if change.action is Action.RESTART else Restart.UPDATE
