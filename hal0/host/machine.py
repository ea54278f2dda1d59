"""What of this machine stays: its processors, what it runs in, CDI's devices; and how full the disk of a folder is."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hal0.core.facts import Fact, Known, Unknown
from hal0.core.hardware import Cdi, Cpu, Disk, Platform, Virt, VirtKind
from hal0.host import drm
from hal0.host.cgroups import read
from hal0.host.cpus import usable_cpus

_FLAGS = frozenset(
    [
        "sse4_2",
        "avx",
        "avx2",
        "fma",
        "f16c",
        "avx_vnni",
        "avx512f",
        "avx512bw",
        "avx512_vnni",
        "avx512_bf16",
        "amx_tile",
        "amx_int8",
        "amx_bf16",
        "neon",
        "asimd",
        "asimddp",
        "i8mm",
        "bf16",
        "sve",
        "sve2",
        "sme",
    ]
)
"""What llama.cpp, whisper.cpp and their like are built for, by the kernel's names. asimd is NEON, asimddp dotprod."""
_HYPERVISORS = {
    "qemu": "qemu",
    "kvm": "kvm",
    "vmware": "vmware",
    "innotek": "virtualbox",
    "virtualbox": "virtualbox",
    "xen": "xen",
    "parallels": "parallels",
    "amazon ec2": "amazon",
    "google compute engine": "google",
    "virtual machine": "hyper-v",
    "firecracker": "firecracker",
}
"""Words of the firmware's names, and whose they are."""
_CDI = ("etc/cdi", "var/run/cdi")
_LONGEST_CDI = 1 << 20


def platform(root: Path) -> Platform:
    """Return what of a machine stays. Never raises: a file that can't be read says nothing."""
    cpu = _cpu(root)
    return Platform(cpu, tuple(drm.npus(root)), _virt(root), cdi(root), drm.gfx(root))


def disk(folder: str, root: Path) -> Fact[Disk]:
    """Return the disk of a folder, or of the closest folder above it that is there."""
    try:
        there = closest(Path(folder))
        found = os.statvfs(there)
    except OSError as error:
        return Unknown(f"{folder}: {error.strerror}")
    kind = _filesystem(root, there.resolve())
    return Known(Disk(folder, kind, found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize))


def closest(path: Path) -> Path:
    """Return a path, or of the folders above it the closest one that is there."""
    return next(place for place in (path, *path.parents) if place.exists())


def _filesystem(root: Path, path: Path) -> str:
    """Return the type of the mount that a path is on: of the longest place above it the last mount."""
    mounts = []
    for line in (read(root / "proc/self/mountinfo") or "").splitlines():
        fields, _, rest = line.partition(" - ")
        place = re.sub(r"\\(\d{3})", lambda octal: chr(int(octal[1], 8) % 256), (fields.split() + [""] * 5)[4])
        if place and rest and path.is_relative_to(place):
            mounts.append((len(place), rest.split()[0]))
    return max(reversed(mounts), default=(0, ""), key=lambda mount: mount[0])[1]


def _cpu(root: Path) -> Cpu:
    blocks = list(_processors(read(root / "proc/cpuinfo") or ""))
    first = blocks[0] if blocks else {}
    flags = (first.get("flags") or first.get("Features") or "").split()
    cores = {(block.get("physical id"), block["core id"]) for block in blocks if "core id" in block}
    return Cpu(
        model=first.get("model name") or (read(root / "proc/device-tree/model") or "").strip("\0"),
        arch=read(root / "proc/sys/kernel/arch") or os.uname().machine,
        cores=len(cores) or len(blocks),
        threads=len(blocks),
        usable=usable_cpus(proc=root / "proc", cgroups=root / "sys/fs/cgroup"),
        flags=tuple(sorted(_FLAGS.intersection(flags))),
    )


def _processors(text: str) -> Iterator[Mapping[str, str]]:
    """Yield what /proc/cpuinfo says of each processor; a block that numbers none tells of the whole board."""
    for block in text.split("\n\n"):
        lines = (line.partition(":") for line in block.splitlines())
        found = {key.strip(): value.strip() for key, _, value in lines}
        if "processor" in found:
            yield found


def _virt(root: Path) -> Virt:
    """Return what hal0 runs in: WSL and containers are looked for first, as they run in virtual machines, too."""
    if "microsoft" in (read(root / "proc/version") or "").lower():
        return Virt(VirtKind.WSL)
    if name := _container(root):
        return Virt(VirtKind.LXC if name.startswith("lxc") else VirtKind.CONTAINER, name)
    firmware = " ".join(read(root / f"sys/class/dmi/id/{name}") or "" for name in ("sys_vendor", "product_name"))
    name = next((name for word, name in _HYPERVISORS.items() if word in firmware.lower()), "")
    flags = re.search(r"^flags\s*:.*\bhypervisor\b", read(root / "proc/cpuinfo") or "", re.MULTILINE)
    return Virt(VirtKind.VM, name) if name or flags else Virt(VirtKind.NONE)


def _container(root: Path) -> str:
    """Return the name of the container manager, by the signs that each leaves; empty outside of containers."""
    if told := read(root / "run/systemd/container"):  # systemd writes what its own environment says
        return told
    environment = (read(root / "proc/1/environ") or "").split("\0")
    if told := next((word.partition("=")[2] for word in environment if word.startswith("container=")), ""):
        return told
    marks = {"run/.containerenv": "podman", ".dockerenv": "docker"}
    return next((name for mark, name in marks.items() if (root / mark).exists()), "")


def cdi(root: Path) -> Cdi:
    """Return the devices that CDI's files define, and the files that can't be read."""
    names, unread = list[str](), list[str]()
    for folder in _CDI:
        for file in sorted((root / folder).glob("*")):
            if file.suffix in {".json", ".yaml", ".yml"}:
                found = _devices(file)
                names += found.value if isinstance(found, Known) else []
                unread += [f"{file} can't be read: {found.reason}"] if isinstance(found, Unknown) else []
    return Cdi(tuple(names), tuple(unread))


def _devices(file: Path) -> Fact[list[str]]:
    """Return the devices that a CDI file defines, as podman takes them."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    text = read(file)
    if text is None or len(text) > _LONGEST_CDI:
        return Unknown("too long" if text else "no permission")
    try:
        spec: Any = YAML(typ="safe", pure=True).load(text)  # JSON is YAML
        return Known([f"{spec['kind']}={device['name']}" for device in spec["devices"]])
    except (YAMLError, KeyError, TypeError, ValueError, RecursionError):
        return Unknown("not a CDI file")
