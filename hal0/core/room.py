"""How much of a pool of memory is left for a stand-in, by the arbiter's arithmetic."""

from __future__ import annotations

from collections.abc import Mapping

from hal0.core.facts import Fact, known
from hal0.core.pools import Pool, capacity, is_shared_out
from hal0.core.tenants import Tenant


def left(pool: Fact[Pool] | None, there: Mapping[str, Tenant], slot: str) -> int | None:
    """Return the bytes of a pool that a stand-in of a slot may take; None where that can't be told.

    What the slot's own engine will take more than now is not left: for a while both are of the new spec.
    """
    found = known(pool) if pool else None
    if found is None:
        return None
    free = [room for room in (_unclaimed(found, there), _unused(found, there)) if room is not None]
    own = there[slot]
    return max(0, min(free) - max(0, own.wants - own.holds(found.name))) if free else None


def _unclaimed(pool: Pool, there: Mapping[str, Tenant]) -> int | None:
    holders = [tenant for tenant in there.values() if tenant.resident and tenant.held_pool == pool.name]
    if not is_shared_out(pool) or (pool.used is None and any(tenant.held.bytes is None for tenant in holders)):
        return None
    return capacity(pool) - sum(tenant.holds(pool.name) for tenant in holders)


def _unused(pool: Pool, there: Mapping[str, Tenant]) -> int | None:
    """Return what is free, less what those will take that load just now."""
    if pool.used is None:
        return None
    return capacity(pool) - pool.used - sum(each.wants for each in there.values() if each.loading)
