"""A machine as values: what it computes with, its memory and who uses it, what it runs in; and its memory pools.

All sizes are bytes. What a source did not tell is ``Unknown``, or None where drivers of that kind never tell it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from hal0.core.facts import Fact, Known, Unknown, known
from hal0.core.pools import GPU, RAM, Pool


class Vendor(StrEnum):
    """Who made a GPU."""

    NVIDIA = "nvidia"
    AMD = "amd"
    INTEL = "intel"
    UNKNOWN = "unknown"  # its driver has never answered


class VirtKind(StrEnum):
    """What hal0 runs in: the innermost of what can be seen."""

    NONE = "none"
    CONTAINER = "container"
    LXC = "lxc"
    WSL = "wsl"
    VM = "vm"


@dataclass(frozen=True, slots=True)
class Memory:
    """The machine's own memory. ``available`` counts what the kernel can drop, such as files that it keeps."""

    total: int
    available: int
    swap: int


@dataclass(frozen=True, slots=True)
class GpuMemory:
    """Memory of a GPU. ``shared`` is what it may map of the machine's own (GTT); ``vram_used`` None: nobody says."""

    vram: int
    vram_used: int | None
    shared: int = 0
    shared_used: int = 0


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU, as its driver tells it.

    ``pci`` is its address (0000:c5:00.0), ``ids`` its vendor and device in hexadecimal (1002:1586). ``node`` is its
    render node below /dev, empty where there is none, and ``gid`` the group that may open it. ``unified``: it computes
    in the machine's own memory. ``memory`` None: its driver never says. ``busy`` is a share, 0 to 1.
    """

    vendor: Vendor
    name: str
    driver: str = ""
    driver_version: str = ""
    pci: str = ""
    ids: str = ""
    uuid: str = ""
    node: str = ""
    gid: int | None = None
    unified: bool = False
    memory: Fact[GpuMemory] | None = None
    busy: float | None = None


@dataclass(frozen=True, slots=True)
class Sample:
    """What of a machine changes from moment to moment. ``ram`` is its memory within the limits around hal0.

    ``gpus``: those with memory of their own come first, NVIDIA's before others, each kind in its driver's order.
    """

    memory: Fact[Memory]
    ram: Fact[Pool]
    gpus: tuple[Gpu, ...] = ()


NOT_SAMPLED = Sample(Unknown("not looked at yet"), Unknown("not looked at yet"))


@dataclass(frozen=True, slots=True)
class Cpu:
    """The processors. ``usable`` is what the affinity mask and quotas leave of ``threads``.

    ``flags`` are those of the kernel's that make a difference to engines.
    """

    model: str
    arch: str
    cores: int
    threads: int
    usable: int
    flags: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Npu:
    """A neural processor: its driver (amdxdna, intel_vpu), its node below /dev, and the group that may open it."""

    driver: str
    ids: str
    node: str
    gid: int | None


@dataclass(frozen=True, slots=True)
class Virt:
    """What hal0 runs in, and its name: podman, qemu."""

    kind: VirtKind
    name: str = ""


@dataclass(frozen=True, slots=True)
class Cdi:
    """The devices that CDI files define for podman (nvidia.com/gpu=all), and the files that can't be read, and why."""

    names: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Platform:
    """What of a machine stays. ``gfx`` are AMD's names (gfx1151) of the GPUs that ROCm can use, by render node."""

    cpu: Cpu
    npus: tuple[Npu, ...] = ()
    virt: Virt = Virt(VirtKind.NONE)
    cdi: Cdi = Cdi()
    gfx: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Disk:
    """The disk that a folder, ``path``, is on. ``free`` is what hal0's user may write."""

    path: str
    filesystem: str
    total: int
    free: int


@dataclass(frozen=True, slots=True)
class Machine:
    """Everything that is known of a machine. ``disk`` is that of the model store."""

    platform: Fact[Platform]
    sample: Sample
    disk: Fact[Disk]


def pools(sample: Sample) -> dict[str, Fact[Pool]]:
    """Return the memory pools by name: ``ram``, and ``gpu``, or ``gpu0``, ``gpu1`` and so on for several GPUs."""
    named = {
        name: _pool(name, gpu, sample.memory) for name, gpu in zip(pool_names(sample.gpus), sample.gpus, strict=True)
    }
    return {RAM: sample.ram} | {name: pool for name, pool in named.items() if name}


def pool_names(gpus: Sequence[Gpu]) -> list[str]:
    """Return the pool of each GPU; empty for one whose driver never says what memory it has."""
    count = sum(gpu.memory is not None for gpu in gpus)
    names = iter([GPU] if count == 1 else [f"{GPU}{index}" for index in range(count)])
    return ["" if gpu.memory is None else next(names) for gpu in gpus]


def _pool(name: str, gpu: Gpu, host: Fact[Memory]) -> Fact[Pool]:
    if gpu.memory is None or isinstance(gpu.memory, Unknown):
        return gpu.memory or Unknown("its driver never says")
    own = gpu.memory.value
    if not gpu.unified:
        return Known(Pool(name, own.vram, own.vram_used, stated=False))
    return Known(_unified(name, own, known(host)))


def _unified(name: str, own: GpuMemory, host: Memory | None) -> Pool:
    """Return the pool of a GPU that computes in the machine's memory: its own part, and what it may take besides.

    The driver lets it map more than there is, and what the host holds is not there for it: that counts as used.
    """
    mapped, used = own.vram + own.shared, (own.vram_used or 0) + own.shared_used
    total = min(mapped, own.vram + host.total) if host else mapped
    free = own.vram + host.available if host else mapped
    return Pool(name, total, max(min(used, total), total - free), stated=False)


def joined(nvidia: Fact[tuple[Gpu, ...]], cards: Sequence[Gpu]) -> tuple[Gpu, ...]:
    """Return every GPU once: ``nvidia`` as its driver tells them, ``cards`` as /sys/class/drm does.

    A card of NVIDIA's driver adds its render node. Where the driver does not answer, its cards are all that is known.
    """
    own = [card for card in cards if card.driver == Vendor.NVIDIA.value]
    rest = [card for card in cards if card not in own]
    if isinstance(nvidia, Unknown):
        late = own or [Gpu(Vendor.NVIDIA, "NVIDIA GPU", Vendor.NVIDIA.value)]
        return _discrete_first([*(replace(gpu, memory=nvidia) for gpu in late), *rest])
    nodes = {card.pci: card for card in own}
    seen = [_with_node(gpu, nodes.pop(gpu.pci, None)) for gpu in nvidia.value]
    return _discrete_first([*seen, *nodes.values(), *rest])


def _discrete_first(gpus: Iterable[Gpu]) -> tuple[Gpu, ...]:
    return tuple(sorted(gpus, key=lambda gpu: gpu.unified))


def _with_node(gpu: Gpu, card: Gpu | None) -> Gpu:
    return replace(gpu, node=card.node, gid=card.gid, ids=card.ids) if card else gpu
