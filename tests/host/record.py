"""Record this machine for the tests: ``python tests/host/record.py NAME 'what it is'`` writes recorded/NAME.json.

Serial numbers and UUIDs are left out. Look through the file before you hand it on.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pynvml

FILES = [
    "proc/meminfo",
    "proc/cpuinfo",
    "proc/version",
    "proc/sys/kernel/arch",
    "proc/device-tree/model",
    "proc/driver/nvidia/version",
    "run/systemd/container",
    "sys/class/dmi/id/sys_vendor",
    "sys/class/dmi/id/product_name",
    "sys/class/drm/card*/device/uevent",
    "sys/class/drm/card*/device/mem_info_*",
    "sys/class/drm/card*/device/gpu_metrics",
    "sys/class/drm/card*/device/gpu_busy_percent",
    "sys/class/drm/card*/device/product_name",
    "sys/class/drm/card*/lmem_total_bytes",
    "sys/class/drm/card*/device/tile*/physical_vram_size_bytes",
    "sys/class/drm/card*/device/drm/renderD*/dev",
    "sys/class/accel/accel*/device/uevent",
    "sys/class/kfd/kfd/topology/nodes/*/properties",
    "etc/cdi/*",
    "var/run/cdi/*",
]
NODES = [
    "dev/nvidiactl",
    "dev/dxg",
    "dev/kfd",
    "dev/dri/renderD*",
    "dev/accel/accel*",
    ".dockerenv",
    "run/.containerenv",
]


def files() -> dict[str, str]:
    found = {str(path)[1:]: _text(path) for name in FILES for path in Path("/").glob(name)}
    found |= {str(path)[1:]: "" for name in NODES for path in Path("/").glob(name)}
    return {name: text for name, text in sorted(found.items()) if text is not None}


def _text(path: Path) -> str | None:
    try:
        return path.read_bytes().decode("latin-1")
    except OSError:
        return None


def nvml() -> Any:
    try:
        pynvml.nvmlInit()
        gpus = [_gpu(pynvml.nvmlDeviceGetHandleByIndex(index)) for index in range(pynvml.nvmlDeviceGetCount())]
    except pynvml.NVMLError as error:
        return None if error.value == pynvml.NVML_ERROR_LIBRARY_NOT_FOUND else {"error": error.value}
    return {"driver": pynvml.nvmlSystemGetDriverVersion(), "gpus": gpus}


def _gpu(handle: Any) -> dict[str, Any]:
    def memory(*version: int) -> Any:
        return pynvml.nvmlDeviceGetMemoryInfo(handle, *version)

    asked: dict[str, Callable[[], Any]] = {
        "name": lambda: pynvml.nvmlDeviceGetName(handle),
        "pci": lambda: pynvml.nvmlDeviceGetPciInfo(handle).busId,
        "uuid": lambda: "GPU-00000000",
        "memory": lambda: [getattr(memory(pynvml.nvmlMemory_v2), name) for name in ("total", "reserved", "used")],
        "memory_v1": lambda: [memory().total, memory().used],
        "busy": lambda: pynvml.nvmlDeviceGetUtilizationRates(handle).gpu,
    }
    return {name: _asked(question) for name, question in asked.items()}


def _asked(question: Callable[[], Any]) -> Any:
    try:
        return question()
    except pynvml.NVMLError as error:
        return {"error": error.value}


if __name__ == "__main__":
    name, what = sys.argv[1:]
    about = f"{what}, recorded on {datetime.now(UTC):%Y-%m-%d}; the UUIDs are made up."
    target = Path(__file__).parent / "recorded" / f"{name}.json"
    target.write_text(json.dumps({"about": about, "files": files(), "nvml": nvml()}, indent=1) + "\n")
    print(target)
