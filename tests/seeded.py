"""A slot for each profile that ships with hal0."""

from __future__ import annotations

from dataclasses import replace

from worlds import FACTS, desired

from hal0.core.schema import Device, SlotType
from hal0.core.seeds import SEED_PROFILES
from hal0.core.spec import DesiredSlot

HOST = replace(FACTS, groups={"video": 44, "render": 105})
NAMED = {"vllm-cuda": (SlotType.LLM, Device.GPU_CUDA)}
"""Seeds that a slot has to name, and what it is then."""
BY_TYPE = {name: key for key, name in SEED_PROFILES.items()}


def slot_of(name: str) -> DesiredSlot:
    """Return a slot that a seed runs."""
    kind, device = (BY_TYPE | NAMED)[name]
    wanted = f"profile: {name}\n" if name in NAMED else ""
    model = "kind: Model\nname: m\npath: models/m.bin\ncontext_size: 4096\n---\n"
    text = f"{model}kind: Slot\nname: {name}\nmodel: m\n{wanted}type: {kind}\ndevice: {device}\n"
    found = desired(text, facts=HOST)
    assert not found.problems, [str(problem) for problem in found.problems]
    return found.slots[name]
