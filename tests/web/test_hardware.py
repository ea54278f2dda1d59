from __future__ import annotations

from dataclasses import replace
from typing import Any

from aiohttp import ClientSession
from fakes import NO_GPU
from plane import Bench, scraped

from hal0.core.facts import Known, Unknown
from hal0.core.hardware import Gpu, GpuMemory, Vendor

GIB = 2**30


async def asked(client: ClientSession, path: str, status: int = 200) -> Any:
    async with client.get(path) as answer:
        found = await answer.json()
        assert answer.status == status, found
        return found


async def test_the_machine_is_told(bench: Bench) -> None:
    found = await asked(bench.client, "/api/hardware")
    assert (found["version"], found["cpu"]["model"], found["gpus"]) == (1, "Fake CPU", [])
    assert found["default"]["device"] == "cpu"


async def test_what_was_sampled_is_on_metrics(bench: Bench) -> None:
    amd = Gpu(
        Vendor.AMD, "Radeon", "amdgpu", pci="0000:03:00.0", memory=Known(GpuMemory(16 * GIB, GIB, 8, 1)), busy=0.5
    )
    late = Gpu(Vendor.NVIDIA, "H200", "nvidia", memory=Unknown("no answer"))
    card = Gpu(Vendor.AMD, "Card", "amdgpu", memory=Known(GpuMemory(GIB, None)))
    blind = Gpu(Vendor.INTEL, "Arc", "xe")
    bench.scene.hardware.last = replace(NO_GPU, gpus=(late, amd, blind, card))
    found = await scraped(bench.client)
    assert found["hal0_memory_bytes"] == {("total",): 8 * GIB, ("available",): 6 * GIB, ("swap",): 0}
    assert found["hal0_gpu_info"] == {
        ("nvidia", "0", "H200", "", "gpu0", "nvidia"): 1,
        ("amdgpu", "1", "Radeon", "0000:03:00.0", "gpu1", "amd"): 1,
        ("xe", "2", "Arc", "", "", "intel"): 1,
        ("amdgpu", "3", "Card", "", "gpu2", "amd"): 1,
    }
    assert found["hal0_gpu_memory_bytes"] == {
        ("1", "vram"): 16 * GIB,
        ("1", "vram_used"): GIB,
        ("1", "shared"): 8,
        ("1", "shared_used"): 1,
        ("3", "vram"): GIB,
    }
    assert found["hal0_gpu_busy_ratio"] == {("1",): 0.5}
    assert found["hal0_model_disk_bytes"] == {("total",): 100 * GIB, ("free",): 40 * GIB}
