"""The trees of AMD's GPUs are written from figures that owners of such machines published; the H200's are recorded."""

from __future__ import annotations

import asyncio
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from fakes import FakeClock

from hal0.core.facts import Fact, Known, Unknown
from hal0.core.pools import Pool
from hal0.host import memory, nvidia
from hal0.host.memory import HostMemory

RECORDED = Path(__file__).parent / "recorded/h200"
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


def tree(root: Path, files: Mapping[str, str]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content + "\n")
    return root


def meminfo(total: int, available: int) -> dict[str, str]:
    return {"proc/meminfo": f"MemTotal: {total // 1024} kB\nMemFree: 1 kB\nMemAvailable:  {available // 1024} kB"}


def card(index: int, files: Mapping[str, str]) -> dict[str, str]:
    return {f"sys/class/drm/card{index}/device/{name}": content for name, content in files.items()}


@pytest.fixture(autouse=True)
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Leave nothing of this machine's own programs but the shell's, and a folder for those of the test."""
    folder = tmp_path / "programs"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}")
    monkeypatch.setattr(nvidia, "_FURTHER", ())
    return folder


@pytest.fixture
def nvidia_smi(programs: Path) -> Callable[[str], None]:
    def says(script: str) -> None:
        path = programs / "nvidia-smi"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    return says


async def ask(root: Path, *, is_own_group: bool = False) -> Mapping[str, Fact[Pool]]:
    return await HostMemory(FakeClock(), is_own_group=is_own_group, root=root).pools()


def known(name: str, total: int, used: int | None) -> Known[Pool]:
    return Known(Pool(name, total, used, stated=False))


async def test_a_recorded_machine_with_an_h200(tmp_path: Path, nvidia_smi: Callable[[str], None]) -> None:
    root = Path(shutil.copytree(RECORDED, tmp_path / "root"))
    tree(root, {"dev/nvidiactl": ""})
    nvidia_smi(
        f'test "$*" = "--query-gpu=memory.total,memory.used --format=csv,noheader,nounits" || exit 2\n'
        f"while read -r line; do echo $line; done < {RECORDED}/nvidia-smi.csv"
    )
    assert await ask(root) == {
        "ram": known("ram", 131981020 * 1024, (131981020 - 131453392) * 1024),
        "gpu": known("gpu", 143771 * MIB, 0),
    }


async def test_this_machine_says_what_memory_it_has() -> None:
    pool = (await HostMemory(FakeClock(), is_own_group=True).pools())["ram"]
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
    tmp_path: Path, nvidia_smi: Callable[[str], None]
) -> None:
    connector = {"sys/class/drm/card1-DP-1/status": "connected", "sys/class/drm/card3/device/vendor": "0x8086"}
    root = tree(
        tmp_path, meminfo(64 * GIB, 64 * GIB) | card(0, STRIX_HALO) | card(10, RX_570) | card(2, NAVI) | connector
    )
    nvidia_smi("echo 24576, 512; echo 49140, [N/A]")
    assert await ask(root) == {
        "ram": known("ram", 64 * GIB, 0),
        "gpu0": known("gpu0", 24 * GIB, 512 * MIB),
        "gpu1": known("gpu1", 49140 * MIB, None),
        "gpu2": known("gpu2", 17163091968, 412090368),
        "gpu3": known("gpu3", 4294967296, 412090368),
        "gpu4": known("gpu4", 64 * GIB + 536870912, 157286400 + 18874368),
    }


async def test_a_card_that_does_not_say_a_number_is_unknown(tmp_path: Path) -> None:
    root = tree(tmp_path, card(1, RX_570 | {"mem_info_vram_used": ""}))
    assert (await ask(root))["gpu"] == Unknown("card1: no number in mem_info_vram_used")


@pytest.mark.parametrize(
    ("script", "why"),
    [
        (
            "echo 'Failed to initialize NVML: Driver/library version mismatch'; exit 18",
            "nvidia-smi: Failed to initialize NVML: Driver/library version mismatch",
        ),
        ("echo No devices were found; exit 6", "nvidia-smi: No devices were found"),
        ("exit 9", "nvidia-smi: exit status 9"),
        ("echo [N/A], [N/A]", "nvidia-smi says of nvidia0: [N/A], [N/A]"),
        ("echo 0, 0", "nvidia-smi says of nvidia0: 0, 0"),
    ],
)
async def test_what_nvidia_smi_does_not_say_is_unknown(
    tmp_path: Path, nvidia_smi: Callable[[str], None], script: str, why: str
) -> None:
    nvidia_smi(script)
    assert (await ask(tree(tmp_path, {"dev/nvidiactl": ""})))["gpu"] == Unknown(why)


async def test_a_driver_without_its_program_is_unknown_and_a_program_without_driver_is_nothing(
    tmp_path: Path, nvidia_smi: Callable[[str], None]
) -> None:
    root = tree(tmp_path, {"dev/nvidiactl": ""})
    assert (await ask(root))["gpu"] == Unknown("NVIDIA's driver is there, and nvidia-smi is not in PATH")
    (root / "dev/nvidiactl").unlink()
    nvidia_smi("echo it could not talk to the driver; exit 9")
    assert set(await ask(root)) == {"ram"}


async def test_an_answer_is_kept_for_two_seconds_unless_it_must_be_fresh(
    tmp_path: Path, nvidia_smi: Callable[[str], None]
) -> None:
    clock = FakeClock()
    host = HostMemory(clock, is_own_group=False, root=tmp_path)
    nvidia_smi("echo 1000, 1")
    first = await host.pools()
    nvidia_smi("echo 1000, 2")
    clock.forward(1.9)
    assert await host.pools() == first
    clock.forward(0.1)
    assert (await host.pools())["gpu"] == known("gpu", 1000 * MIB, 2 * MIB)
    nvidia_smi("echo 1000, 3")
    assert (await host.pools(fresh=True))["gpu"] == known("gpu", 1000 * MIB, 3 * MIB)


async def test_gpus_that_were_seen_stay_while_their_driver_does_not_answer(
    tmp_path: Path, nvidia_smi: Callable[[str], None]
) -> None:
    host = HostMemory(FakeClock(), is_own_group=False, root=tree(tmp_path, {"dev/nvidiactl": ""}))
    nvidia_smi("echo 1000, 1; echo 1000, 2")
    await host.pools()
    nvidia_smi("exit 1")
    gone = Unknown("nvidia-smi: exit status 1")
    assert {name: pool for name, pool in (await host.pools(fresh=True)).items() if name != "ram"} == {
        "gpu0": gone,
        "gpu1": gone,
    }


async def test_a_program_that_hangs_holds_nobody_up(
    tmp_path: Path, nvidia_smi: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "_DEADLINE_S", 0.2)
    root = tree(tmp_path, meminfo(GIB, GIB) | {"dev/nvidiactl": ""})
    nvidia_smi("exec /bin/sleep 60")
    began = time.monotonic()
    found = await ask(root)
    assert time.monotonic() - began < 30
    assert found == {"ram": known("ram", GIB, 0), "gpu": Unknown("nvidia-smi: no answer in 0.2 s")}


async def test_a_driver_that_never_answers_costs_one_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_DEADLINE_S", 0.05)
    monkeypatch.setattr(memory, "_GRACE_S", 0.0)
    answers, asked = threading.Event(), []

    def hang(_root: Path, _limit: float) -> list[Fact[Pool]]:
        asked.append(1)
        answers.wait()
        return []

    monkeypatch.setattr(nvidia, "pools", hang)
    host = HostMemory(FakeClock(), is_own_group=False, root=tmp_path)
    for _ in range(3):
        assert (await host.pools(fresh=True))["gpu"] == Unknown("nvidia-smi: no answer in 0.05 s")
    assert len(asked) == 1
    answers.set()
    for _ in range(500):
        if "gpu" not in await host.pools(fresh=True):
            return
        await asyncio.sleep(0.01)
    pytest.fail("the driver is never asked again")
