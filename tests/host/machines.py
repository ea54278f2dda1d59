"""Recorded machines: what files of /proc, /sys, /dev and /etc say, and what NVML answers.

Those that say "made" are written from figures that owners of such machines published. ``record.py`` records real ones.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pynvml
import pytest

RECORDED = Path(__file__).parent / "recorded"
MACHINES = sorted(path.stem for path in RECORDED.glob("*.json"))
NOT_SUPPORTED = 3


def tree(root: Path, files: Mapping[str, str]) -> Path:
    """Write files below a root. Text is latin-1: a few of the kernel's files are bytes."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode("latin-1"))
    return root


@dataclass
class FakeNvml:
    """NVML that answers what was recorded. An answer ``{"error": CODE}`` is raised; ``error`` is what its start gives.

    None recorded: there is no such library.
    """

    recorded: Any
    inits: int = 0
    shutdowns: int = 0
    asked: list[str] = field(default_factory=list)

    def put(self, patch: pytest.MonkeyPatch) -> FakeNvml:
        """Put these answers in the place of the library's."""
        for name in ("Init", "Shutdown", "SystemGetDriverVersion", "DeviceGetCount", "DeviceGetHandleByIndex"):
            patch.setattr(pynvml, f"nvml{name}", getattr(self, name))
        for name in ("Name", "PciInfo", "UUID", "MemoryInfo", "UtilizationRates"):
            patch.setattr(pynvml, f"nvmlDeviceGet{name}", getattr(self, name))
        return self

    def Init(self) -> None:  # noqa: N802  (NVML's names)
        self.inits += 1
        answer({"error": pynvml.NVML_ERROR_LIBRARY_NOT_FOUND} if self.recorded is None else self.recorded)

    def Shutdown(self) -> None:  # noqa: N802
        self.shutdowns += 1

    def SystemGetDriverVersion(self) -> str:  # noqa: N802
        return str(answer(self.recorded["driver"]))

    def DeviceGetCount(self) -> int:  # noqa: N802
        return len(answer(self.recorded["gpus"]))

    def DeviceGetHandleByIndex(self, index: int) -> Any:  # noqa: N802
        return answer(self.recorded["gpus"][index])

    def Name(self, gpu: Any) -> Any:  # noqa: N802
        return answer(gpu["name"])

    def PciInfo(self, gpu: Any) -> SimpleNamespace:  # noqa: N802
        return SimpleNamespace(busId=answer(gpu["pci"]))

    def UUID(self, gpu: Any) -> Any:  # noqa: N802
        return answer(gpu["uuid"])

    def MemoryInfo(self, gpu: Any, version: int | None = None) -> SimpleNamespace:  # noqa: N802
        if version is None:
            total, used = answer(gpu["memory_v1"])
        else:
            assert version == pynvml.nvmlMemory_v2
            total, _, used = answer(gpu.get("memory", {"error": pynvml.NVML_ERROR_FUNCTION_NOT_FOUND}))
        return SimpleNamespace(total=total, used=used)

    def UtilizationRates(self, gpu: Any) -> SimpleNamespace:  # noqa: N802
        return SimpleNamespace(gpu=answer(gpu["busy"]))


def answer(recorded: Any) -> Any:
    """Return what was recorded, or raise it."""
    if isinstance(recorded, dict) and "error" in recorded:
        raise pynvml.NVMLError(recorded["error"])
    return recorded


def machine(name: str, root: Path, patch: pytest.MonkeyPatch) -> Path:
    """Put a recorded machine below a folder, and its NVML in the place of this machine's."""
    found = json.loads((RECORDED / f"{name}.json").read_text())
    FakeNvml(found["nvml"]).put(patch)
    return tree(root, found["files"])
