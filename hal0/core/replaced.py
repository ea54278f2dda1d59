"""What a slot's status tells of its engine being replaced: who serves meanwhile, how far it is, and why it failed."""

from __future__ import annotations

from hal0.core.backoff import not_before
from hal0.core.engines import served_spec
from hal0.core.quantity import show_duration
from hal0.core.replace import held_try
from hal0.core.spec import DesiredSlot
from hal0.core.standin import Stage
from hal0.core.status import Engine
from hal0.core.steps import Action, Plan
from hal0.core.world import World


def serving(world: World, slot: DesiredSlot) -> Engine:
    """Return the engine that a slot's requests go to."""
    name, found = slot.spec.name, world.replacing.get(slot.spec.name)
    if found is None or found.engine == name:
        seen = world.observed.slot(name)
        return Engine(name, served_spec(slot, seen, world.owned.get(name)), seen, world.phases[name])
    spec = world.stand_ins.get(found.key, found.stand_in.spec)
    return Engine(found.key, spec, world.observed.slot(found.key), world.phases[found.key])


def progress(world: World, name: str) -> str:
    """Return how far the replacement of a slot's engine beside it is; empty where none is under way."""
    found = world.replacing.get(name)
    if found is None or found.stage is Stage.NONE or failure_of_try(world, name):
        return ""
    return found.why


def failure(world: World, current: Plan, name: str) -> str:
    """Return why the engine of a slot that serves can't be replaced by what is declared; empty where it can."""
    found = world.replacing.get(name)
    if found is None:
        return ""
    change = current.change(found.key)
    if change and change.action is Action.REFUSE:
        return "; ".join(map(str, change.reasons))
    return failure_of_try(world, name) if found.leaves_own else ""


def failure_of_try(world: World, name: str) -> str:
    """Return what came of the last try, and when the next one is; empty where none failed a moment ago."""
    found = world.replacing.get(name)
    attempt = held_try(world, found) if found else None
    if found is None or attempt is None or not attempt.error:
        return ""
    left = show_duration(not_before(found.key, attempt) - world.now)
    return f"its stand-in failed: {attempt.error}; the old engine stays, and the next try is in {left}"
