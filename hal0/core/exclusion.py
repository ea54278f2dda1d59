"""Which slots may not be up together, whatever memory there is."""

from __future__ import annotations

from hal0.core.schedule import Ground
from hal0.core.schema import Device, SlotType
from hal0.core.spec import HostSpec, SlotSpec


def exclusion(one: SlotSpec, other: SlotSpec, host: HostSpec, *, one_pool: bool) -> Ground | None:
    """Return why two slots exclude each other; None where they don't. ``one_pool``: their memory is of one pool."""
    if other.name in one.placing.exclusive_with or one.name in other.placing.exclusive_with:
        return Ground.EXCLUSIVE
    if is_npu_llm(one) and is_npu_llm(other):
        return Ground.EXCLUSIVE
    on_gpu = one_pool and _is_on_gpu(one) and _is_on_gpu(other)
    if on_gpu and not host.share_gpu_with_images and _is_image(one) != _is_image(other):
        return Ground.IMAGE
    return None


def exclusion_text(other: SlotSpec, ground: Ground, *, to: SlotSpec) -> str:
    """Return a sentence on why ``other`` keeps a slot from being up."""
    if ground is Ground.IMAGE:
        return f"slot {other.name} has the GPU, and images and other models are not served there together"
    if is_npu_llm(other) and is_npu_llm(to):
        return f"slot {other.name} is the llm of the NPU, which serves one at a time"
    return f"slot {other.name} is exclusive with it"


def is_choosy(spec: SlotSpec) -> bool:
    """Return whether a slot may exclude another by what it is or says itself."""
    return bool(spec.placing.exclusive_with) or is_npu_llm(spec) or _is_on_gpu(spec)


def is_npu_llm(spec: SlotSpec) -> bool:
    """Return whether a slot is an llm on the NPU, which serves one at a time."""
    return spec.device is Device.NPU and spec.type is SlotType.LLM


def _is_on_gpu(spec: SlotSpec) -> bool:
    return spec.device not in {Device.CPU, Device.NPU}


def _is_image(spec: SlotSpec) -> bool:
    return spec.type is SlotType.IMAGE
