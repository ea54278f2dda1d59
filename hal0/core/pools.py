"""Memory as values: pools that the host has, and what a slot claims of one.

Everything is in bytes.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum

from hal0.core.schema import Device
from hal0.core.spec import SlotSpec

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


def pool_of(spec: SlotSpec, pools: Collection[str]) -> str:
    """Return the pool that a slot's memory is of; empty where none of that name is known."""
    if spec.placing.pool:
        return spec.placing.pool if spec.placing.pool in pools else ""
    if spec.device is Device.CPU:
        return RAM if RAM in pools else ""
    if spec.device is Device.NPU:
        return next((name for name in (NPU, RAM) if name in pools), "")
    return next((name for name in sorted(pools) if name.startswith(GPU)), "")
