"""Memory as values: pools that the host has, and what a slot claims of one.

Everything is in bytes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum

from hal0.core.facts import Fact, Known
from hal0.core.schema import Device
from hal0.core.spec import HostSpec, SlotSpec

RAM = "ram"
"""The pool of the host's own memory."""
NPU = "npu"
GPU = "gpu"
"""The pool of the only GPU, and the beginning of each one's name where there are several: gpu0, gpu1."""


@dataclass(frozen=True, slots=True)
class Pool:
    """Memory that slots share. ``used`` is by whomever, and None where nobody says. ``stated``: the Host manifest."""

    name: str
    total: int
    used: int | None
    stated: bool


class ClaimSource(StrEnum):
    """Where a claim comes from, the best first."""

    STATED = "stated"  # the manifest says it
    MEASURED = "measured"  # the most that earlier runs of the same spec held
    ESTIMATED = "estimated"  # from the model's header: weights, cache, overhead
    FILE = "file"  # the size of the model's file: its header tells no more
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Claim:
    """What a slot takes of its pool; ``how`` is the arithmetic, or the reason why ``bytes`` is None, for a person."""

    bytes: int | None
    source: ClaimSource
    how: str


_RESERVE = {RAM: 0.10}
_GPU_RESERVE = 0.05
"""The shares of a pool that was probed which slots leave free."""


def pools_of(probed: Mapping[str, Fact[Pool]], host: HostSpec) -> dict[str, Fact[Pool]]:
    """Return the pools that were found, and what the Host manifest says in the place of some.

    It says what slots may take of them: what others use of a pool is not asked.
    """
    stated = (Pool(name, pool.size - pool.reserve, used=None, stated=True) for name, pool in host.pools.items())
    return {**probed, **{pool.name: Known(pool) for pool in stated}}


def capacity(pool: Pool) -> int:
    """Return the bytes that slots may claim of a pool together."""
    return pool.total if pool.stated else int(pool.total * (1 - _RESERVE.get(pool.name, _GPU_RESERVE)))


def is_shared_out(pool: Pool) -> bool:
    """Return whether claims on a pool are held against each other. RAM that nobody stated is only asked what is free.

    Its claims err high: files that are mapped count, and the system gives them back when it must.
    """
    return pool.stated or pool.name.startswith(GPU)


def pool_of(spec: SlotSpec, pools: Collection[str]) -> str:
    """Return the pool that a slot's memory is of; empty where none of that name is known."""
    if spec.placing.pool:
        return spec.placing.pool if spec.placing.pool in pools else ""
    if spec.device is Device.CPU:
        return RAM if RAM in pools else ""
    if spec.device is Device.NPU:
        return next((name for name in (NPU, RAM) if name in pools), "")
    return next((name for name in sorted(pools) if name.startswith(GPU)), "")
