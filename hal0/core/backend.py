"""What a slot computes on where nobody says: the device that a machine is best at, and why, as a sentence."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hal0.core.facts import Unknown
from hal0.core.hardware import Gpu, Machine, Platform, Vendor
from hal0.core.schema import Device
from hal0.core.spec import RuntimeName

_CUDA = "nvidia.com/gpu="
_NO_VULKAN = frozenset({"gfx908", "gfx90a", "gfx940", "gfx941", "gfx942", "gfx950"})
"""AMD's compute cards (CDNA: MI100 and later): they draw nothing, and Mesa has no Vulkan driver for them."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A device, and why it is that one."""

    device: Device
    why: str


def default_device(machine: Machine, runtime: RuntimeName) -> Choice:
    """Return the device of the first GPU that engines can use here, else the CPU with the reason against each GPU."""
    if runtime == "process":
        return Choice(Device.CPU, "engines are child processes here, and the embedded one computes on the CPU")
    if isinstance(machine.platform, Unknown):
        return Choice(Device.CPU, f"nothing is known of this machine: {machine.platform.reason}")
    found = [_of(gpu, machine.platform.value) for gpu in machine.sample.gpus]
    usable = [choice for choice in found if choice.device is not Device.CPU]
    return usable[0] if usable else Choice(Device.CPU, "; ".join(one.why for one in found) or "no GPU is to be seen")


def _of(gpu: Gpu, platform: Platform) -> Choice:
    return _CHOOSERS[gpu.vendor](gpu, platform)


def _nvidia(gpu: Gpu, platform: Platform) -> Choice:
    if gpu.driver != Vendor.NVIDIA.value:
        return Choice(Device.CPU, f"{gpu.name} has the driver {gpu.driver or 'none'}: CUDA needs NVIDIA's own")
    if any(name.startswith(_CUDA) for name in platform.cdi.names):
        return Choice(Device.GPU_CUDA, f"{gpu.name}, which CDI hands to containers")
    if platform.cdi.unread:
        return Choice(Device.CPU, f"{gpu.name} is there, but {platform.cdi.unread[0]}")
    mend = "nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml"
    return Choice(Device.CPU, f"{gpu.name} is there, but no CDI file names nvidia.com/gpu for podman: {mend}")


def _amd(gpu: Gpu, platform: Platform) -> Choice:
    if not gpu.node:
        return _closed(gpu)
    gfx = platform.gfx.get(gpu.node, "")
    if gfx in _NO_VULKAN:
        return Choice(Device.GPU_ROCM, f"{gpu.name} ({gfx}), which has no Vulkan driver")
    return Choice(
        Device.GPU_VULKAN, f"{gpu.name} at {gpu.node}; gpu-rocm works too" if gfx else f"{gpu.name} at {gpu.node}"
    )


def _intel(gpu: Gpu, _: Platform) -> Choice:
    if gpu.unified:
        why = f"{gpu.name} is part of the processor, and seldom quicker: device gpu-vulkan uses it"
        return Choice(Device.CPU, why)
    return Choice(Device.GPU_VULKAN, f"{gpu.name} at {gpu.node}") if gpu.node else _closed(gpu)


def _silent(gpu: Gpu, _: Platform) -> Choice:
    reason = gpu.memory.reason if isinstance(gpu.memory, Unknown) else "its driver says nothing"
    return Choice(Device.CPU, f"a GPU may be there ({reason})")


def _closed(gpu: Gpu) -> Choice:
    return Choice(Device.CPU, f"{gpu.name} has no render node below /dev/dri here")


_CHOOSERS: dict[Vendor, Callable[[Gpu, Platform], Choice]] = {
    Vendor.NVIDIA: _nvidia,
    Vendor.AMD: _amd,
    Vendor.INTEL: _intel,
    Vendor.UNKNOWN: _silent,
}
