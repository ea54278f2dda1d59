"""Which seed profile runs a slot that names none: by its type and its device."""

from __future__ import annotations

from collections.abc import Mapping

from hal0.core.schema import Device, SlotType
from hal0.core.spec import RuntimeName

EMBEDDED_PROFILE = "embedded"
_EMBEDDED_TYPES = frozenset({SlotType.LLM, SlotType.EMBEDDING, SlotType.RERANKING})
_SUFFIXES = {Device.CPU: "cpu", Device.GPU_VULKAN: "vulkan", Device.GPU_ROCM: "rocm", Device.GPU_CUDA: "cuda"}
_WITHOUT_ROCM = (Device.CPU, Device.GPU_VULKAN, Device.GPU_CUDA)
_FAMILIES = {
    SlotType.LLM: ("llama-server", tuple(_SUFFIXES)),
    SlotType.EMBEDDING: ("llama-server-embedding", tuple(_SUFFIXES)),
    SlotType.RERANKING: ("llama-server-reranking", tuple(_SUFFIXES)),
    SlotType.TRANSCRIPTION: ("whisper-server", _WITHOUT_ROCM),
    SlotType.TTS: ("kokoro", (Device.CPU, Device.GPU_CUDA)),
    SlotType.IMAGE: ("sd-server", _WITHOUT_ROCM),
}
SEED_PROFILES: Mapping[tuple[SlotType, Device], str] = {
    (kind, device): f"{family}-{_SUFFIXES[device]}"
    for kind, (family, devices) in _FAMILIES.items()
    for device in devices
}


def seed_profile(kind: SlotType, device: Device, runtime: RuntimeName) -> str:
    """Return the profile of a slot that names none; empty where none ships for its type and device."""
    if runtime == "process" and device is Device.CPU and kind in _EMBEDDED_TYPES:
        return EMBEDDED_PROFILE
    return SEED_PROFILES.get((kind, device), "")
