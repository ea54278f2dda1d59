"""What runs is left as it is where the store that knew why it runs is gone."""

from __future__ import annotations

import logging
from collections.abc import Collection

from hal0.core.rebuild import found_spec, holds
from hal0.core.steps import Plan
from hal0.core.world import World
from hal0.host.store import Store

_log = logging.getLogger(__name__)


def hold(store: Store, world: World, current: Plan, lost: Collection[str], wall: float) -> bool:
    """Hold the slots that a plan would stop and the store knew nothing of; return whether there are any.

    They are remembered from then on, so each of them is held once: after a reset its manifest holds again.
    """
    found = holds(current, world.desired, lost, wall)
    store.overrides.change(put=found)
    for override in found:
        slot = world.desired.slots[override.slot]
        store.remember(found_spec(slot, world.observed.slot(override.slot), world.desired.host.ports))
        _log.warning("slot %s runs, and the store that knew why is lost: it is left as it is", override.slot)
        _log.warning("`hal0 slot reset %s` makes it what its manifest says", override.slot)
    return bool(found)
