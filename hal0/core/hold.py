"""Changes that have to wait: by drift policy, because the last try is too fresh, or for want of knowledge."""

from __future__ import annotations

from dataclasses import replace

from hal0.core.backoff import Attempt, holds, not_before
from hal0.core.quantity import show_duration
from hal0.core.schema import DriftPolicy
from hal0.core.spec import DesiredSlot
from hal0.core.steps import Action, Change, Reason, StepKind
from hal0.core.world import World

_RETRY = "retry "


def held_back(world: World, slot: DesiredSlot, change: Change) -> Change:
    """Return the change, or why it waits: by drift policy, or because the last try is too fresh."""
    if change.action in {Action.WAIT, Action.REFUSE}:
        return change
    policy, serving = slot.spec.drift, world.serving(slot.spec.key)
    if change.is_drift and policy is DriftPolicy.ALERT:
        return waiting(change, Reason("drift policy", "", "alert: left as it is", drift=True))
    if change.is_drift and policy is DriftPolicy.HEAL_WHEN_IDLE and serving:
        return waiting(change, Reason("drift policy", "", f"heal-when-idle: {serving} in flight", drift=True))
    return backed_off(world, change, slot.spec_hash)


def backed_off(world: World, change: Change, spec_hash: str = "") -> Change:
    """Return the change, or why it waits where its last try is too fresh."""
    attempt = world.attempts.get(change.slot)
    starts = change.has(StepKind.START) or change.action is Action.DELETE
    held = attempt is not None and holds(attempt, spec_hash, failed=change.is_fault)
    if starts and attempt and held and world.now < not_before(change.slot, attempt):
        return waiting(change, retry_reason(change.slot, attempt, world.now))
    return change


def retry_reason(engine: str, attempt: Attempt, now: float) -> Reason:
    """Return why an engine is not tried again yet: what came of the last try, and how long it is to wait."""
    left = show_duration(not_before(engine, attempt) - now)
    return Reason(f"{_RETRY}{attempt.count}", attempt.error or "did not get ready", f"in {left}")


def waits_for_retry(change: Change) -> bool:
    """Return whether a change waits because its last try is too fresh."""
    return change.action is Action.WAIT and change.reasons[-1].field.startswith(_RETRY)


def waiting(change: Change, reason: Reason) -> Change:
    """Return a change that waits, for one more reason."""
    return replace(change, action=Action.WAIT, steps=(), reasons=(*change.reasons, reason))


def waits(name: str, why: str) -> Change:
    """Return what is said of a slot that nothing can be planned for."""
    return Change(name, Action.WAIT, (Reason(why, "", ""),))
