"""A machine as JSON: what GET /api/hardware and ``hal0 probe --json`` answer. What is not known is null, with why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict

from hal0.core.backend import Choice
from hal0.core.facts import Fact, Unknown, known
from hal0.core.hardware import Disk, Gpu, Machine, Memory, Platform, pool_names
from hal0.core.pools import Pool, capacity
from hal0.core.wire import VERSION, Json


def machine_json(machine: Machine, choice: Choice, pools: Mapping[str, Fact[Pool]]) -> Json:
    """Return everything of a machine. ``pools`` are those that slots share out, as the Host manifest changes them.

    ``unknown`` has a sentence for each part that could not be read.
    """
    sample, unknown = machine.sample, dict[str, str]()
    for part, fact in (("platform", machine.platform), ("memory", sample.memory), ("model_disk", machine.disk)):
        if isinstance(fact, Unknown):
            unknown[part] = fact.reason
    platform, names = known(machine.platform), pool_names(sample.gpus)
    return {
        "version": VERSION,
        "default": choice_json(choice),
        "cpu": platform and asdict(platform.cpu),
        "memory": _memory_json(known(sample.memory)),
        "gpus": [_gpu_json(gpu, name, platform) for gpu, name in zip(sample.gpus, names, strict=True)],
        "npus": [asdict(npu) for npu in platform.npus] if platform else [],
        "virtualization": platform and {"kind": platform.virt.kind.value, "name": platform.virt.name},
        "cdi": platform and asdict(platform.cdi),
        "model_disk": _disk_json(known(machine.disk)),
        "pools": [_pool_json(name, pool) for name, pool in pools.items()],
        "unknown": unknown,
    }


def choice_json(choice: Choice) -> Json:
    """Return a device that was chosen, and why."""
    return {"device": choice.device.value, "why": choice.why}


def _memory_json(memory: Memory | None) -> Json | None:
    if memory is None:
        return None
    return {
        "total_bytes": memory.total,
        "available_bytes": memory.available,
        "swap_bytes": memory.swap,
    }


def _gpu_json(gpu: Gpu, pool: str, platform: Platform | None) -> Json:
    memory = known(gpu.memory) if gpu.memory else None
    return {
        "vendor": gpu.vendor.value,
        "name": gpu.name,
        "driver": gpu.driver,
        "driver_version": gpu.driver_version,
        "pci": gpu.pci,
        "ids": gpu.ids,
        "uuid": gpu.uuid,
        "render_node": gpu.node,
        "render_gid": gpu.gid,
        "gfx": platform.gfx.get(gpu.node, "") if platform else "",
        "unified": gpu.unified,
        "pool": pool,
        "memory": memory
        and {
            "vram_bytes": memory.vram,
            "vram_used_bytes": memory.vram_used,
            "shared_bytes": memory.shared,
            "shared_used_bytes": memory.shared_used,
        },
        "busy": gpu.busy,
        "unknown": _why_unknown(gpu),
    }


def _why_unknown(gpu: Gpu) -> str:
    if gpu.memory is None:
        return f"{gpu.driver or 'its driver'} does not tell its memory"
    return gpu.memory.reason if isinstance(gpu.memory, Unknown) else ""


def _disk_json(disk: Disk | None) -> Json | None:
    if disk is None:
        return None
    return {
        "path": disk.path,
        "filesystem": disk.filesystem,
        "total_bytes": disk.total,
        "free_bytes": disk.free,
    }


def _pool_json(name: str, pool: Fact[Pool]) -> Json:
    found = known(pool)
    return {
        "name": name,
        "total_bytes": found and found.total,
        "for_slots_bytes": found and capacity(found),
        "used_bytes": found and found.used,
        "stated": bool(found and found.stated),
        "unknown": pool.reason if isinstance(pool, Unknown) else "",
    }
