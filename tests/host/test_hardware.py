"""Memory pools as they are told from what drivers and the kernel say. Whole machines are in test_machine.py."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pynvml
import pytest
from fakes import FakeClock
from scenes import calm

from hal0.core.facts import Fact, Known, Unknown
from hal0.core.pools import Pool
from hal0.host import hardware
from hal0.host import machine as host_machine
from hal0.host.hardware import HostHardware

from .machines import NOT_SUPPORTED, FakeNvml, tree

MIB = 2**20
GIB = 2**30
STRIX_HALO = {  # Ryzen AI MAX+ 395, 128 GB, amdgpu.gttsize=131072: the driver maps more than there is
    "mem_info_vram_total": "536870912",
    "mem_info_vram_used": "157286400",
    "mem_info_gtt_total": "137438953472",
    "mem_info_gtt_used": "18874368",
    "gpu_metrics": "\x08\x01\x03\x00",
}
RX_570 = {  # no gpu_metrics: the driver has none for Polaris
    "mem_info_vram_total": "4294967296",
    "mem_info_vram_used": "412090368",
    "mem_info_gtt_total": "4294967296",
    "mem_info_gtt_used": "23068672",
}
NAVI = RX_570 | {"mem_info_vram_total": "17163091968", "gpu_metrics": "\x78\x00\x01\x03"}


def meminfo(total: int, available: int) -> dict[str, str]:
    return {"proc/meminfo": f"MemTotal: {total // 1024} kB\nMemFree: 1 kB\nMemAvailable:  {available // 1024} kB"}


def card(index: int, files: dict[str, str]) -> dict[str, str]:
    event = {"uevent": f"DRIVER=amdgpu\nPCI_ID=1002:1586\nPCI_SLOT_NAME=0000:0{index}:00.0"}
    return {f"sys/class/drm/card{index}/device/{name}": content for name, content in (event | files).items()}


DRIVER = {"dev/nvidiactl": ""}


def nvidia(*memory: Any) -> Any:
    """Return the answers of a driver whose GPUs have some memory: total, what it keeps, used."""
    names = [f"NVIDIA {index}" for index in range(len(memory))]
    gpus = [
        {"name": name, "pci": f"00000000:0{index}:00.0", "uuid": "", "memory": found, "busy": 0}
        for index, (name, found) in enumerate(zip(names, memory, strict=True))
    ]
    return {"driver": "570", "gpus": gpus}


async def ask(root: Path, *, is_own_group: bool = False) -> Mapping[str, Fact[Pool]]:
    return await HostHardware(FakeClock(), is_own_group=is_own_group, root=root).pools()


def known(name: str, total: int, used: int | None) -> Known[Pool]:
    return Known(Pool(name, total, used, stated=False))


async def test_this_machine_says_what_memory_it_has() -> None:
    pool = (await HostHardware(FakeClock(), is_own_group=True).pools())["ram"]
    assert isinstance(pool, Known)
    assert 0 < (pool.value.used or 0) < pool.value.total


async def test_without_meminfo_ram_is_unknown(tmp_path: Path) -> None:
    assert await ask(tmp_path) == {"ram": Unknown("/proc/meminfo can't be read")}


OWN_V2 = {"proc/self/cgroup": "0::/a.slice/hal0.service"}
OWN_V1 = {"proc/self/cgroup": "4:memory:/a/b\n1:cpuset:/\n0::/"}
V2 = "sys/fs/cgroup/a.slice"
V1 = "sys/fs/cgroup/memory"


@pytest.mark.parametrize(
    ("files", "is_own_group", "total", "used"),
    [
        ({}, False, 64, 24),
        (OWN_V2 | {f"{V2}/memory.max": "max", f"{V2}/memory.current": f"{9 * GIB}"}, False, 64, 24),
        (OWN_V2 | {f"{V2}/memory.max": f"{32 * GIB}", f"{V2}/memory.current": f"{9 * GIB}"}, False, 32, 9),
        (OWN_V2 | {f"{V2}/memory.max": f"{999 * GIB}", f"{V2}/memory.current": f"{9 * GIB}"}, False, 64, 24),
        # More than the machine has left is not free.
        (OWN_V2 | {f"{V2}/memory.max": f"{50 * GIB}", f"{V2}/memory.current": "0"}, False, 50, 10),
        (
            OWN_V2
            | {
                f"{V2}/memory.max": f"{32 * GIB}",
                f"{V2}/memory.current": f"{9 * GIB}",
                f"{V2}/memory.stat": f"anon 7\nactive_file {GIB}\ninactive_file {2 * GIB}",
            },
            False,
            32,
            6,
        ),
        # Systemd's slots run beside hal0's own group, children in it.
        (OWN_V2 | {f"{V2}/hal0.service/memory.max": f"{GIB}"}, False, 64, 24),
        (OWN_V2 | {f"{V2}/hal0.service/memory.max": f"{GIB}"}, True, 1, 0),
        # In a container, the limit is at the root of all that can be seen.
        ({"proc/self/cgroup": "0::/", "sys/fs/cgroup/memory.max": f"{8 * GIB}"}, False, 8, 0),
        (
            OWN_V1 | {f"{V1}/a/memory.limit_in_bytes": f"{16 * GIB}", f"{V1}/a/memory.usage_in_bytes": f"{GIB}"},
            False,
            16,
            1,
        ),
        (
            OWN_V1
            | {
                f"{V1}/memory.limit_in_bytes": f"{16 * GIB}",
                f"{V1}/memory.usage_in_bytes": f"{4 * GIB}",
                f"{V1}/memory.stat": f"active_file 0\ntotal_active_file {GIB}\ntotal_inactive_file {GIB}",
            },
            False,
            16,
            2,
        ),
        (OWN_V1 | {f"{V1}/a/b/memory.limit_in_bytes": "9223372036854771712"}, True, 64, 24),
    ],
)
async def test_ram_is_what_the_groups_around_hal0_leave(
    tmp_path: Path, files: dict[str, str], is_own_group: bool, total: int, used: int
) -> None:
    root = tree(tmp_path, meminfo(64 * GIB, 40 * GIB) | files)
    assert (await ask(root, is_own_group=is_own_group))["ram"] == known("ram", total * GIB, used * GIB)


async def test_a_discrete_gpu_has_the_memory_on_its_board(tmp_path: Path) -> None:
    for files, total in ((RX_570, 4294967296), (NAVI, 17163091968)):
        root = tree(tmp_path, meminfo(16 * GIB, 8 * GIB) | card(1, files))
        assert (await ask(root))["gpu"] == known("gpu", total, 412090368)


async def test_an_apu_has_its_part_and_what_the_host_can_give(tmp_path: Path) -> None:
    ram = 131_000_000 * 1024
    root = tree(tmp_path, meminfo(ram, 100 * GIB) | card(1, STRIX_HALO))
    assert (await ask(root))["gpu"] == known("gpu", 536870912 + ram, ram - 100 * GIB)
    tree(tmp_path, meminfo(ram, ram) | card(1, STRIX_HALO | {"mem_info_gtt_total": f"{64 * GIB}"}))
    assert (await ask(root))["gpu"] == known("gpu", 536870912 + 64 * GIB, 157286400 + 18874368)


async def test_several_gpus_are_numbered_the_ones_with_memory_of_their_own_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    others = {
        "sys/class/drm/card1-DP-1/status": "connected",
        "sys/class/drm/card3/device/uevent": "DRIVER=i915\nPCI_ID=8086:A780\nPCI_SLOT_NAME=0000:00:02.0",
    }
    root = tree(tmp_path, meminfo(64 * GIB, 64 * GIB) | card(0, STRIX_HALO) | card(10, RX_570) | card(2, NAVI) | others)
    tree(root, DRIVER)
    FakeNvml(nvidia([24 * GIB, MIB, 512 * MIB], [48 * GIB, MIB, 0])).put(monkeypatch)
    assert await ask(root) == {
        "ram": known("ram", 64 * GIB, 0),
        "gpu0": known("gpu0", 24 * GIB, 512 * MIB),
        "gpu1": known("gpu1", 48 * GIB, 0),
        "gpu2": known("gpu2", 17163091968, 412090368),
        "gpu3": known("gpu3", 4294967296, 412090368),
        "gpu4": known("gpu4", 64 * GIB + 536870912, 157286400 + 18874368),
    }


async def test_a_card_that_does_not_say_a_number_is_unknown(tmp_path: Path) -> None:
    for wrong in ("", "-1", "\xb2", "9" * 30):
        root = tree(tmp_path, card(1, RX_570 | {"mem_info_vram_used": wrong}))
        assert (await ask(root))["gpu"] == Unknown("card1: no number in mem_info_vram_used")


@pytest.mark.parametrize(
    ("recorded", "why"),
    [
        ({"error": pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH}, "NVML: RM has detected an NVML/RM version mismatch."),
        (None, "NVML: NVML Shared Library Not Found"),
        (nvidia({"error": NOT_SUPPORTED}), "NVML: Not Supported"),
        (nvidia([0, 0, 0]), "NVML: a total of 0 bytes"),
        ({"driver": "570", "gpus": [{"error": pynvml.NVML_ERROR_GPU_IS_LOST}]}, "NVML: GPU is lost"),
    ],
)
async def test_what_nvml_does_not_say_is_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recorded: Any, why: str
) -> None:
    FakeNvml(recorded).put(monkeypatch)
    assert (await ask(tree(tmp_path, DRIVER)))["gpu"] == Unknown(why)


async def test_one_gpu_that_is_lost_hides_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorded = nvidia([GIB, 0, 1], [GIB, 0, 2])
    recorded["gpus"][0] = {"error": pynvml.NVML_ERROR_GPU_IS_LOST}
    FakeNvml(recorded).put(monkeypatch)
    found = await ask(tree(tmp_path, DRIVER))
    assert (found["gpu0"], found["gpu1"]) == (Unknown("NVML: GPU is lost"), known("gpu1", GIB, 2))


async def test_nvml_is_not_asked_where_there_is_no_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeNvml(nvidia([GIB, 0, 1])).put(monkeypatch)
    assert set(await ask(tmp_path)) == {"ram"}
    assert fake.inits == 0


async def test_nvml_stays_open_and_is_opened_anew_after_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeNvml(nvidia([GIB, 0, 1])).put(monkeypatch)
    host = HostHardware(FakeClock(), is_own_group=False, root=tree(tmp_path, DRIVER))
    for _ in range(2):
        assert (await host.pools(fresh=True))["gpu"] == known("gpu", GIB, 1)
    assert (fake.inits, fake.shutdowns) == (1, 0)
    fake.recorded["driver"] = {"error": pynvml.NVML_ERROR_DRIVER_NOT_LOADED}
    assert (await host.pools(fresh=True))["gpu"] == Unknown("NVML: Driver Not Loaded")
    assert (fake.inits, fake.shutdowns) == (1, 1)
    fake.recorded["driver"] = "580"
    assert (await host.pools(fresh=True))["gpu"] == known("gpu", GIB, 1)
    assert fake.inits == 2


async def test_an_answer_is_kept_for_two_seconds_unless_it_must_be_fresh(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, fake = FakeClock(), FakeNvml(nvidia([GIB, 0, 1])).put(monkeypatch)
    host = HostHardware(clock, is_own_group=False, root=tree(tmp_path, DRIVER))
    first = await host.pools()
    fake.recorded = nvidia([GIB, 0, 2])
    clock.forward(1.9)
    assert await host.pools() == first
    clock.forward(0.1)
    assert (await host.pools())["gpu"] == known("gpu", GIB, 2)
    fake.recorded = nvidia([GIB, 0, 3])
    assert (await host.pools(fresh=True))["gpu"] == known("gpu", GIB, 3)


async def test_who_asks_at_the_same_time_gets_the_same_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    FakeNvml(nvidia([80 * GIB, 0, GIB])).put(monkeypatch)
    answers, init = threading.Event(), pynvml.nvmlInit
    monkeypatch.setattr(pynvml, "nvmlInit", lambda: (answers.wait(), init()))
    host = HostHardware(FakeClock(), is_own_group=False, root=tree(tmp_path, DRIVER))
    asking = [asyncio.create_task(host.pools(fresh=True)) for _ in range(3)]
    await calm()
    answers.set()
    assert [(await pools)["gpu"] for pools in asking] == [known("gpu", 80 * GIB, GIB)] * 3


async def test_gpus_that_were_seen_stay_while_their_driver_does_not_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeNvml(nvidia([GIB, 0, 1], [GIB, 0, 2])).put(monkeypatch)
    host = HostHardware(FakeClock(), is_own_group=False, root=tree(tmp_path, DRIVER))
    await host.pools()
    fake.recorded["driver"] = {"error": pynvml.NVML_ERROR_UNKNOWN}
    gone = Unknown("NVML: Unknown Error")
    found = await host.pools(fresh=True)
    assert (found["gpu0"], found["gpu1"]) == (gone, gone)
    assert [gpu.name for gpu in host.last.gpus] == ["NVIDIA 0", "NVIDIA 1"]


async def test_cards_tell_how_many_gpus_a_silent_driver_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    FakeNvml({"error": pynvml.NVML_ERROR_UNKNOWN}).put(monkeypatch)
    cards = {
        f"sys/class/drm/card{index}/device/uevent": f"DRIVER=nvidia\nPCI_ID=10DE:2204\nPCI_SLOT_NAME=0000:0{index}:00.0"
        for index in range(2)
    }
    found = await ask(tree(tmp_path, DRIVER | cards))
    assert set(found) == {"ram", "gpu0", "gpu1"}
    assert found["gpu1"] == Unknown("NVML: Unknown Error")


async def test_a_driver_that_never_answers_costs_one_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "_DEADLINE_S", 0.5)
    answers, asked = threading.Event(), []
    fake = FakeNvml({"driver": "570", "gpus": []}).put(monkeypatch)

    def hang() -> None:
        asked.append(1)
        answers.wait()

    monkeypatch.setattr(pynvml, "nvmlInit", hang)
    root = tree(tmp_path, DRIVER | meminfo(GIB, GIB))
    host = HostHardware(FakeClock(), is_own_group=False, root=root)
    for _ in range(3):
        found = await host.pools(fresh=True)
        assert found == {"ram": known("ram", GIB, 0), "gpu": Unknown("NVML: no answer in 0.5 s")}
    assert len(asked) == 1
    answers.set()
    for _ in range(500):
        if "gpu" not in await host.pools(fresh=True):
            assert fake.shutdowns == 0
            return
        await asyncio.sleep(0.01)
    pytest.fail("the driver is never asked again")


async def test_a_disk_that_never_answers_holds_nobody_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "_DEADLINE_S", 0.05)
    answers = threading.Event()
    monkeypatch.setattr(host_machine, "disk", lambda *_: answers.wait() or Unknown("never"))
    host = HostHardware(FakeClock(), is_own_group=False, root=tmp_path)
    assert await host.disk("/models") == Unknown("the disk: no answer in 0.05 s")
    answers.set()
