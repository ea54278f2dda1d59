"""What was asked of slots by hand, as the ledger tells it: for whoever wants to know why a slot is as it is."""

from __future__ import annotations

from collections.abc import Iterable

from hal0.core.override import Aspect, Override
from hal0.core.why import Rule
from hal0.host.ledger import Act
from hal0.host.store import Store

LAPSE = "lapse"
_TAKING_BACK = frozenset({LAPSE, "reset", "load", "unload"})
"""What may end an override: a load takes back an unload, and leaves none where the manifest says the same."""


def lapse(override: Override, wall: float) -> Act:
    """Return the act that tells that an override has had its time; ``wall`` is in seconds since the epoch."""
    why = f"{override.aspect.value} {override.value} {override.by} is over"
    return Act(override.slot, LAPSE, drift=False, why=why, at=wall, rule=Rule.HAND.value, by=override.who)


def asked(store: Store, slot: str) -> tuple[frozenset[Aspect], str]:
    """Return what of a slot is overridden by hand, and by whom; or was, until the last that happened to it."""
    last = next(iter(store.ledger.acts(slot, limit=1)), None)
    if last and last.rule == Rule.HAND and last.action in _TAKING_BACK:
        return frozenset(Aspect), last.by
    own = [override for override in store.overrides.rows if override.slot == slot]
    return frozenset(override.aspect for override in own), _newest(own)


def _newest(overrides: Iterable[Override]) -> str:
    newest = max(overrides, key=lambda override: override.at, default=None)
    return newest.who if newest else ""
