"""A swap: another model is tried on a slot, and then written to its manifest, or given up.

It goes on when whoever asked has gone away. A hal0 that is killed meanwhile leaves the override, which is shown.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

from hal0.core.engines import stand_in_of
from hal0.core.override import Aspect, Override, of_aspect
from hal0.core.why import Rule
from hal0.core.wire import Json
from hal0.errors import Hal0Error
from hal0.host.ledger import Act
from hal0.host.ports import MANIFESTS
from hal0.loop import authoring
from hal0.loop.drafts import Persisted
from hal0.loop.reconcile import Reconciler

NOTHING = Persisted("")


@dataclass(frozen=True, slots=True)
class Swap:
    """Which Model ``who`` wants a slot to serve. ``persist``: the manifest is to say so.

    ``row`` is the override that was made for it, None where the manifest says the same anyhow; ``before`` is the one
    that it took the place of.
    """

    slot: str
    model: str
    who: str
    persist: bool
    row: Override | None
    before: Override | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a swap: ``failure`` is why the old model serves on, ``persisted`` what was written."""

    swap: Swap
    failure: str = ""
    persisted: Persisted = NOTHING

    @property
    def event(self) -> Json:
        """The event that tells of it."""
        return {
            "event": "swap",
            "slot": self.swap.slot,
            "model": self.swap.model,
            "swapped": not self.failure,
            "file": self.persisted.file,
            "commit": self.persisted.commit,
            "warning": self.persisted.warning,
            "message": self.failure,
        }


def row_of(reconciler: Reconciler, slot: str) -> Override | None:
    """Return the model override of a slot that is in force."""
    return of_aspect(reconciler.store.overrides.rows, Aspect.MODEL).get(slot)


async def swapped(
    reconciler: Reconciler, swap: Swap, events: AsyncIterator[Json], patience: float
) -> AsyncIterator[Json]:
    """Yield ``events`` of the slot, and before the recap what became of the swap, if it is known in ``patience`` s."""
    deadline = reconciler.clock.now() + patience
    finishing = reconciler.keep(_finished(reconciler, swap))
    async for event in events:
        if event["event"] != "recap":
            yield event
            continue
        done, _ = await asyncio.wait({finishing}, timeout=max(0.0, deadline - reconciler.clock.now()))
        if not done:
            yield event | {"converged": False}
            return
        outcome = finishing.result()
        yield outcome.event
        yield _recap(event, outcome)


def _recap(recap: Json, outcome: Outcome) -> Json:
    if not outcome.failure:
        return recap
    row = recap["slots"].get(outcome.swap.slot, {}) | {"failed": 1, "waiting": 0, "message": outcome.failure}
    return recap | {"slots": recap["slots"] | {outcome.swap.slot: row}, "converged": False}


async def _finished(reconciler: Reconciler, swap: Swap) -> Outcome:
    """Wait until it is known whether the model works, and make it last, or give it up."""
    with reconciler.feed.subscribe() as news:
        await reconciler.run(frozenset({MANIFESTS}))
        while (failure := _failure(reconciler, swap)) is None:
            await news.get()
        if failure:
            return Outcome(swap, await _given_up(reconciler, swap, failure))
    if not swap.persist or swap.row is None:
        return Outcome(swap)
    return Outcome(swap, persisted=await _made_to_last(reconciler, swap))


def _failure(reconciler: Reconciler, swap: Swap) -> str | None:
    """Return why a swap failed; empty where it is done, None where that is open."""
    if row_of(reconciler, swap.slot) != swap.row:
        return "something else was asked of the slot meanwhile"
    slot = reconciler.snapshot.slots.get(swap.slot)
    if slot is None:
        return "the slot was removed meanwhile"
    if reconciler.is_busy_with(swap.slot) or slot.spec.model != swap.model:
        return None
    return slot.failure or ("" if slot.is_settled else None)


async def _given_up(reconciler: Reconciler, swap: Swap, failure: str) -> str:
    """Take the override back, unless it is another one by now, and wait until the slot is as it was before."""
    if swap.row is None or row_of(reconciler, swap.slot) != swap.row:
        return failure
    reconciler.store.overrides.change([swap.before] if swap.before else [], drop=[swap.row.key])
    for engine in (swap.slot, stand_in_of(swap.slot)):
        reconciler.attempts.pop(engine, None)
    why = f"the swap to {swap.model} failed: {failure}"
    act = Act(swap.slot, "reset", drift=False, why=why, at=reconciler.clock.wall(), rule=Rule.HAND.value, by=swap.who)
    reconciler.store.ledger.add_acts([act])
    with reconciler.feed.subscribe() as news:
        await reconciler.run(frozenset({MANIFESTS}))
        while not _is_over(reconciler, swap.slot):
            await news.get()
    return failure


def _is_over(reconciler: Reconciler, name: str) -> bool:
    slot = reconciler.snapshot.slots.get(name)
    return slot is None or bool(not reconciler.is_busy_with(name) and (slot.is_settled or slot.failure))


async def _made_to_last(reconciler: Reconciler, swap: Swap) -> Persisted:
    """Write the model to the manifest, and drop the override. Where that can't be written the override holds on."""
    async with reconciler.between_passes():  # a pass that read the old manifest would see no override any more
        try:
            persisted = await authoring.persist(reconciler, swap.slot, {"model": swap.model}, who=swap.who)
        except Hal0Error as error:
            return Persisted("", warning=f"the swap is in force, and its manifest is not written: {error}")
        if row_of(reconciler, swap.slot) == swap.row and swap.row:
            reconciler.store.overrides.change(drop=[swap.row.key])
    await reconciler.run(frozenset({MANIFESTS}))
    return persisted
