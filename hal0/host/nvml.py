"""NVIDIA's GPUs, as the driver's own library NVML tells them. It is loaded where a driver is, and nowhere else."""

from __future__ import annotations

import ctypes
from contextlib import suppress
from pathlib import Path
from typing import Any

from hal0.core.facts import Fact, Known, Unknown
from hal0.core.hardware import Gpu, GpuMemory, Vendor

_DEVICE = "dev/nvidiactl"
_SIGNS = (_DEVICE, "dev/dxg", "proc/driver/nvidia/version")
"""What a driver leaves: on Linux, on WSL, and before anybody has opened it."""
_FURTHER = ("/usr/local/nvidia/lib64", "/usr/lib/wsl/lib", "/run/opengl-driver/lib")
"""Where container toolkits, WSL and NixOS put the library, which the loader may not know."""
_LIBRARY = "libnvidia-ml.so.1"


class Nvml:
    """The driver's library. It is opened at the first question that finds a driver, and anew after any error.

    It stays open: on a GPU that nobody uses, each opening would start the hardware, which takes seconds.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._open: Any = None

    def gpus(self) -> Fact[tuple[Gpu, ...]]:
        """Return every GPU, in the driver's order; none where there is no driver. May block as long as the driver."""
        if not any((self._root / sign).exists() for sign in _SIGNS):
            return Known(())
        import pynvml

        try:
            nvml = self._opened(pynvml)
            version = _text(nvml.nvmlSystemGetDriverVersion())
            return Known(tuple(_gpu(nvml, index, version) for index in range(nvml.nvmlDeviceGetCount())))
        except pynvml.NVMLError as error:
            self._close()
            # A container sees that its host has a driver, and was given neither the device nor the library.
            return Unknown(f"NVML: {error}") if (self._root / _DEVICE).exists() else Known(())

    def _opened(self, nvml: Any) -> Any:
        if self._open is None:
            _preload()
            nvml.nvmlInit()
            self._open = nvml
        return self._open

    def _close(self) -> None:
        if self._open is not None:
            with suppress(self._open.NVMLError):
                self._open.nvmlShutdown()
        self._open = None


def _preload() -> None:
    """Load the library from where the loader does not look: a later load by its name finds that one."""
    for folder in _FURTHER:
        if (Path(folder) / _LIBRARY).exists():
            with suppress(OSError):
                ctypes.CDLL(f"{folder}/{_LIBRARY}")
                return


def _gpu(nvml: Any, index: int, version: str) -> Gpu:
    try:
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
        name, pci = _text(nvml.nvmlDeviceGetName(handle)), nvml.nvmlDeviceGetPciInfo(handle)
    except nvml.NVMLError as error:
        lost = Unknown(f"NVML: {error}")
        return Gpu(Vendor.NVIDIA, f"NVIDIA GPU {index}", Vendor.NVIDIA.value, version, memory=lost)
    return Gpu(
        vendor=Vendor.NVIDIA,
        name=name,
        driver=Vendor.NVIDIA.value,
        driver_version=version,
        pci=_text(pci.busId)[-12:].lower(),  # sysfs writes four digits of the domain, NVML eight
        uuid=_uuid(nvml, handle),
        memory=_memory(nvml, handle),
        busy=_busy(nvml, handle),
    )


def _uuid(nvml: Any, handle: Any) -> str:
    try:
        return _text(nvml.nvmlDeviceGetUUID(handle))
    except nvml.NVMLError:
        return ""


def _memory(nvml: Any, handle: Any) -> Fact[GpuMemory]:
    """Return a GPU's memory. Boards that share the machine's answer that this is not supported."""
    try:
        found = _memory_info(nvml, handle)
    except nvml.NVMLError as error:
        return Unknown(f"NVML: {error}")
    return Known(GpuMemory(int(found.total), int(found.used))) if found.total else Unknown("NVML: a total of 0 bytes")


def _memory_info(nvml: Any, handle: Any) -> Any:
    """Ask for the second version, which does not count what the driver keeps as used; drivers before 510 have none."""
    try:
        return nvml.nvmlDeviceGetMemoryInfo(handle, version=nvml.nvmlMemory_v2)
    except nvml.NVMLError as error:
        if error.value != nvml.NVML_ERROR_FUNCTION_NOT_FOUND:
            raise
        return nvml.nvmlDeviceGetMemoryInfo(handle)


def _busy(nvml: Any, handle: Any) -> float | None:
    """Return the share of the last second in which the GPU computed; None where it is split (MIG) or does not say."""
    try:
        return min(int(nvml.nvmlDeviceGetUtilizationRates(handle).gpu), 100) / 100
    except nvml.NVMLError:
        return None


def _text(value: str | bytes) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value
