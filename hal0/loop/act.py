"""Carrying out a plan: steps of one kind for all slots at once, kinds in their order, one reload for all.

A slot whose step fails or waits is left for a later pass; the other slots go on.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import groupby

from hal0.core.spec import Serving, SlotSpec
from hal0.core.steps import Plan, Step, StepKind
from hal0.errors import Hal0Error, StepWaits
from hal0.host.ports import Runtime
from hal0.host.store import Store
from hal0.loop.demand import Demands
from hal0.loop.news import Feed, Outcome, StepNews
from hal0.loop.transfers import Transfers

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Halt:
    """Why a slot's remaining steps were not run."""

    waits: bool
    message: str


@dataclass
class Actor:
    """Runs steps on the host."""

    runtime: Runtime
    store: Store
    transfers: Transfers
    demands: Demands
    feed: Feed

    async def act(self, plan: Plan, specs: Mapping[str, SlotSpec]) -> dict[str, Halt]:
        """Run a plan's steps and return the slots that were halted. Never raises for what a host may answer."""
        batch = _Batch(self, specs, _reloading(plan))
        for _, steps in groupby(plan.steps, key=lambda step: step.kind):
            await asyncio.gather(*(batch.run(step) for step in steps))
        return batch.halted


@dataclass
class _Batch:
    """One run of one plan."""

    actor: Actor
    specs: Mapping[str, SlotSpec]
    reloading: frozenset[str]
    halted: dict[str, Halt] = field(default_factory=dict)

    async def run(self, step: Step) -> None:
        slots = frozenset({step.slot}) if step.slot else self.reloading - set(self.halted)
        if not slots or step.slot in self.halted:
            self._tell(step, slots or {step.slot}, Outcome.SKIPPED)
            return
        self._tell(step, slots, Outcome.STARTED)
        begun = time.monotonic()
        try:
            await self._do(step)
        except Hal0Error as error:
            self._halt(step, slots, Halt(isinstance(error, StepWaits), f"{error} {error.hint}".strip()), begun)
        except Exception as error:  # noqa: BLE001  (a fault of ours must halt its slot, not come again at once)
            _log.exception("step %s of %s broke", step.kind.name.lower(), ", ".join(sorted(slots)))
            self._halt(step, slots, Halt(waits=False, message=f"hal0 broke: {error!r}"), begun)
        else:
            self._tell(step, slots, Outcome.OK, begun=begun)

    def _halt(self, step: Step, slots: frozenset[str], halt: Halt, begun: float) -> None:
        self.halted.update(dict.fromkeys(slots, halt))
        self._tell(step, slots, Outcome.WAITING if halt.waits else Outcome.FAILED, halt.message, begun)

    async def _do(self, step: Step) -> None:
        runtime, store = self.actor.runtime, self.actor.store
        match step.kind:
            case StepKind.FETCH | StepKind.PULL:
                self.actor.transfers.need(step.wanted, step.slot)
            case StepKind.DRAIN:
                await self.actor.demands.drain(step.slot, self._patience(step.slot))
            case StepKind.STOP:
                store.note_stop(step.slot)
                await runtime.stop(step.slot)
            case StepKind.WRITE:
                await runtime.write(step.slot, step.payload)
                store.remember(self.specs[step.slot])
            case StepKind.REMOVE:
                await runtime.remove(step.slot)
            case StepKind.RELOAD:
                await runtime.reload()
            case StepKind.RESET_FAILED:
                await runtime.reset_failed(step.slot)
            case StepKind.START:
                await runtime.start(step.slot)
                store.note_start(step.slot)
            case StepKind.FORGET:
                store.forget(step.slot)

    def _patience(self, slot: str) -> float:
        """Return how long a slot's requests may hold up its stop."""
        spec = self.specs.get(slot) or self.actor.store.applied_to(slot)
        return (spec.serving if spec else Serving()).drain_timeout

    def _tell(
        self, step: Step, slots: frozenset[str] | set[str], outcome: Outcome, message: str = "", begun: float = 0.0
    ) -> None:
        seconds = time.monotonic() - begun if begun else 0.0
        for slot in sorted(slots):
            self.actor.feed.publish(StepNews(slot, step.kind.name.lower(), outcome, message, seconds))


def _reloading(plan: Plan) -> frozenset[str]:
    """Return the slots that a reload is for."""
    return frozenset(change.slot for change in plan.changes if change.has(StepKind.RELOAD))
