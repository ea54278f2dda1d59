"""Whether a model fits: what a slot of it would claim, against what its pool has."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from hal0.core.claims import estimate, is_context_fixed
from hal0.core.modelfile import ModelFacts
from hal0.core.pools import Claim, Pool, capacity, is_shared_out
from hal0.core.quantity import show_size
from hal0.core.spec import SlotSpec

_STEP = 256
"""Contexts are told in multiples of so many tokens."""


class Fits(StrEnum):
    """Whether there is room for a model."""

    NOW = "now"
    LATER = "later"  # once others give memory back
    NEVER = "never"  # more than the whole pool has
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Fit:
    """The answer. ``room`` is what slots may have of the pool together, ``free`` what is left of it now, in bytes."""

    fits: Fits
    why: str
    room: int | None = None
    free: int | None = None


def fit(claim: Claim, pool: Pool | None, held: int) -> Fit:
    """Return whether a claim fits into its pool. ``held`` is what the slots that are up claim of it, in bytes."""
    if pool is None:
        return Fit(Fits.UNKNOWN, "no memory pool of its device is known: state one in the Host manifest (pools)")
    room, free = capacity(pool), _free(pool, held)
    if claim.bytes is None:
        return Fit(Fits.UNKNOWN, claim.how, room, free)
    if claim.bytes > room:
        return Fit(Fits.NEVER, f"pool {pool.name} has {show_size(claim.bytes - room)} too little", room, free)
    if claim.bytes > free:
        return Fit(Fits.LATER, f"{show_size(claim.bytes - free)} of pool {pool.name} must get free first", room, free)
    return Fit(Fits.NOW, f"{show_size(free - claim.bytes)} of pool {pool.name} stays free", room, free)


def _free(pool: Pool, held: int) -> int:
    """Return what the arbiter would give out of a pool: by what is claimed of it, and by what is in use."""
    left = [capacity(pool) - pool.used] if pool.used is not None else []
    left += [capacity(pool) - held] if is_shared_out(pool) or not left else []
    return max(0, min(left))


def largest_context(spec: SlotSpec, facts: ModelFacts, room: int) -> int | None:
    """Return the most tokens, of those that the model knows, whose estimate is at most ``room`` bytes.

    None where not even a small context fits, or where the slot's arguments state one.
    """
    if is_context_fixed(spec):
        return None
    least, most = 0, max(1, facts.context_length // _STEP)
    while least < most:
        middle = (least + most + 1) // 2
        if (estimate(replace(spec, context_size=middle * _STEP), facts).bytes or 0) <= room:
            least = middle
        else:
            most = middle - 1
    return least * _STEP or None
