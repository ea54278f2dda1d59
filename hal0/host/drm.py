"""GPUs below /sys/class/drm, and the neural processors beside them: AMD's, Intel's, and where NVIDIA's are."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from hal0.core.facts import Fact, Known, Unknown
from hal0.core.hardware import Gpu, GpuMemory, Npu, Vendor
from hal0.host.cgroups import number, read

_VENDORS = {"1002": Vendor.AMD, "8086": Vendor.INTEL, "10de": Vendor.NVIDIA}
_WORDS = {Vendor.AMD: "AMD GPU", Vendor.INTEL: "Intel GPU", Vendor.NVIDIA: "NVIDIA GPU"}
_CARD = re.compile(r"card(\d{1,9})")
_SIZES = ("vram_total", "vram_used", "gtt_total", "gtt_used")
_REVISION = 2
"""The byte of gpu_metrics that holds the revision of its format."""
_DISCRETE = 1
"""The revision that drivers of discrete GPUs write; those of APUs write later ones."""
_INTEGRATED = "0000:00:02.0"
"""Where every Intel GPU is that is part of a processor."""
_GFX = re.compile(r"^gfx_target_version (\d{5,6})$", re.MULTILINE)
_MINOR = re.compile(r"^drm_render_minor (\d{1,9})$", re.MULTILINE)


def gpus(root: Path) -> tuple[Gpu, ...]:
    """Return the GPUs of AMD, Intel and NVIDIA in the order of their cards. Screens of virtual machines are none."""
    cards = [card for card in (root / "sys/class/drm").glob("card*") if _CARD.fullmatch(card.name)]
    found = (_gpu(root, card) for card in sorted(cards, key=lambda card: int(card.name.removeprefix("card"))))
    return tuple(gpu for gpu in found if gpu)


def npus(root: Path) -> list[Npu]:
    """Return the devices of /sys/class/accel, such as AMD's XDNA and Intel's NPU."""
    found = []
    for folder in sorted((root / "sys/class/accel").glob("accel*")):
        event = _event(folder / "device")
        node, gid = _node(root, f"dev/accel/{folder.name}")
        found.append(Npu(event.get("DRIVER", ""), event.get("PCI_ID", "").lower(), node, gid))
    return found


def gfx(root: Path) -> dict[str, str]:
    """Return AMD's name (gfx1151) of each GPU that ROCm can use, by render node; nothing without /dev/kfd."""
    if not (root / "dev/kfd").exists():
        return {}
    texts = [read(file) or "" for file in (root / "sys/class/kfd/kfd/topology/nodes").glob("*/properties")]
    named = ((_MINOR.search(text), _GFX.search(text)) for text in texts)
    return {f"/dev/dri/renderD{minor[1]}": _gfx_name(int(version[1])) for minor, version in named if minor and version}


def _gfx_name(version: int) -> str:
    """Return 110501 as gfx1151, and 90010 as gfx90a: the last part is a hexadecimal digit."""
    return f"gfx{version // 10000}{version // 100 % 100}{version % 100:x}"


def _gpu(root: Path, card: Path) -> Gpu | None:
    event = _event(card / "device")
    ids = event.get("PCI_ID", "").lower()
    vendor = _VENDORS.get(ids.partition(":")[0])
    if vendor is None:
        return None
    node, gid = _node(root, next((f"dev/dri/{found.name}" for found in card.glob("device/drm/renderD*")), ""))
    pci, busy = event.get("PCI_SLOT_NAME", ""), number(card / "device/gpu_busy_percent")
    return Gpu(
        vendor=vendor,
        name=read(card / "device/product_name") or f"{_WORDS[vendor]} {ids}",
        driver=event.get("DRIVER", ""),
        pci=pci,
        ids=ids,
        node=node,
        gid=gid,
        unified=pci == _INTEGRATED if vendor is Vendor.INTEL else _shares_ram(card),
        memory=_of_intel(card) if vendor is Vendor.INTEL else _of_amd(card),
        busy=None if busy is None else min(busy, 100) / 100,
    )


def _event(device: Path) -> Mapping[str, str]:
    """Return what the kernel tells of a device: DRIVER, PCI_ID, PCI_SLOT_NAME."""
    lines = (line.partition("=") for line in (read(device / "uevent") or "").splitlines())
    return {key: value for key, _, value in lines}


def _node(root: Path, name: str) -> tuple[str, int | None]:
    """Return a device's node and the group that may open it; empty where it is not there, as in many containers."""
    try:
        return (f"/{name}", (root / name).stat().st_gid) if name else ("", None)
    except OSError:
        return "", None


def _of_amd(card: Path) -> Fact[GpuMemory] | None:
    """Return what amdgpu says; None of a driver that says nothing of memory."""
    if not (card / "device/mem_info_vram_total").exists():
        return None
    sizes = {name: number(card / f"device/mem_info_{name}") for name in _SIZES}
    if missing := [name for name, size in sizes.items() if size is None]:
        return Unknown(f"{card.name}: no number in mem_info_{missing[0]}")
    return Known(GpuMemory(*(size or 0 for size in sizes.values())))


def _of_intel(card: Path) -> Fact[GpuMemory] | None:
    """Return the memory on an Intel board. Only some kernels tell it, and none tells how much of it is in use.

    Intel's own i915 writes lmem_total_bytes, some versions of xe the size of each tile.
    """
    files = [card / "lmem_total_bytes", *card.glob("device/tile*/physical_vram_size_bytes")]
    total = sum(number(file) or 0 for file in files)
    return Known(GpuMemory(total, None)) if total else None


def _shares_ram(card: Path) -> bool:
    """Return whether a GPU computes in the host's memory. One that sleeps does not tell: such are discrete."""
    try:
        return (card / "device/gpu_metrics").read_bytes()[_REVISION] > _DISCRETE
    except (OSError, IndexError):
        return False
