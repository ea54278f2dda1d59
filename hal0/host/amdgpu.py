"""Memory of AMD's GPUs, as the amdgpu driver tells it below /sys/class/drm."""

from __future__ import annotations

import re
from pathlib import Path

from hal0.core.facts import Fact, Known, Unknown
from hal0.core.pools import Pool
from hal0.host.cgroups import read
from hal0.host.ram import meminfo

_NAMES = ("vram_total", "vram_used", "gtt_total", "gtt_used")
_CARD = re.compile(r"card(\d+)")
_REVISION = 2
"""The byte of gpu_metrics that holds the revision of its format."""
_DISCRETE = 1
"""The revision that drivers of discrete GPUs write; those of APUs write later ones."""


def pools(root: Path) -> list[Fact[Pool]]:
    """Return the memory of each GPU, named as its card: discrete ones first, else in the order of their numbers."""
    cards = [card for card in (root / "sys/class/drm").glob("card*") if _CARD.fullmatch(card.name)]
    gpus = [card for card in sorted(cards, key=_index) if (card / "device/mem_info_vram_total").exists()]
    return [_pool(root, card) for card in sorted(gpus, key=_shares_ram)]


def _index(card: Path) -> int:
    return int(card.name.removeprefix("card"))


def _pool(root: Path, card: Path) -> Fact[Pool]:
    numbers = {name: read(card / f"device/mem_info_{name}") for name in _NAMES}
    if missing := [name for name, text in numbers.items() if not (text and text.isdigit())]:
        return Unknown(f"{card.name}: no number in mem_info_{missing[0]}")
    total, used, shared, shared_used = (int(text or 0) for text in numbers.values())
    if not _shares_ram(card):
        return Known(Pool(card.name, total, used, stated=False))
    return Known(_unified(Pool(card.name, total + shared, used + shared_used, stated=False), own=total, root=root))


def _unified(pool: Pool, *, own: int, root: Path) -> Pool:
    """Return an APU's pool: its ``own`` part of the memory, and what it may take of the host's.

    The driver lets it map more than there is, and what the host holds is not there for it: that counts as used.
    """
    info = meminfo(root)
    total = min(pool.total, own + info.get("MemTotal", pool.total))
    free = own + info.get("MemAvailable", pool.total)
    return Pool(pool.name, total, max(min(pool.used or 0, total), total - free), stated=False)


def _shares_ram(card: Path) -> bool:
    """Return whether a GPU computes in the host's memory. One that sleeps does not tell: such are discrete."""
    try:
        return (card / "device/gpu_metrics").read_bytes()[_REVISION] > _DISCRETE
    except (OSError, IndexError):
        return False
