"""Devices of GPUs, who may open them, and which of those that slots need are missing."""

from __future__ import annotations

import grp
import os
from collections.abc import Iterable
from pathlib import Path

from hal0.core.findings import Gpu
from hal0.core.hardware import Cdi
from hal0.host.cgroups import read
from hal0.host.machine import cdi

_DISPLAY = "0x03"
"""How the PCI class of a display device begins."""


def gpus(root: Path = Path("/")) -> tuple[Gpu, ...]:
    """Return the render nodes that drivers made, and NVIDIA's devices."""
    nodes = sorted((root / "sys/class/drm").glob("renderD*"))
    drawn = (_gpu(root, f"dev/dri/{node.name}", _driver(node / "device")) for node in nodes)
    computing = sorted((root / "dev").glob("nvidia[0-9]*"))
    return (*drawn, *(_gpu(root, f"dev/{node.name}", "nvidia") for node in computing))


def driverless(root: Path = Path("/")) -> tuple[str, ...]:
    """Return the display devices on the PCI bus that no driver has taken, as ``0000:01:00.0 (10de:2684)``."""
    devices = sorted((root / "sys/bus/pci/devices").glob("*"))
    shows = (device for device in devices if (read(device / "class") or "").startswith(_DISPLAY))
    return tuple(f"{device.name} ({_id(device)})" for device in shows if not (device / "driver").exists())


def missing(devices: Iterable[str], root: Path = Path("/")) -> tuple[str, ...]:
    """Return those of a slot's devices that are not there: paths, and names of CDI that no file describes."""
    described = cdi(root)
    return tuple(device for device in devices if not _is_there(device, root, described))


def _is_there(device: str, root: Path, described: Cdi) -> bool:
    """Return whether a device is there; where a file of CDI can't be read, it may describe any."""
    if device.startswith("/"):
        return (root / device.partition(":")[0].lstrip("/")).exists()
    return device in described.names or bool(described.unread)


def _gpu(root: Path, node: str, driver: str) -> Gpu:
    path = root / node
    try:
        group = _group(path.stat().st_gid)
    except FileNotFoundError:
        return Gpu(f"/{node}", driver, "", usable=False)
    return Gpu(f"/{node}", driver, group, os.access(path, os.R_OK | os.W_OK))


def _group(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def _driver(device: Path) -> str:
    link = device / "driver"
    return link.resolve().name if link.exists() else "unknown"


def _id(device: Path) -> str:
    return ":".join((read(device / name) or "?").removeprefix("0x") for name in ("vendor", "device"))
