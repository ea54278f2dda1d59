"""Whole machines: what hal0 makes of what is recorded of them, and of the one that the tests run on."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from fakes import FakeClock
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hal0.core.backend import Choice, default_device
from hal0.core.facts import Known, Unknown, known
from hal0.core.hardware import NOT_SAMPLED, Disk, Gpu, Machine, Platform, Vendor, Virt, VirtKind, pools
from hal0.core.hardware_json import machine_json
from hal0.core.schema import Device
from hal0.host import drm
from hal0.host import machine as host_machine
from hal0.host.hardware import HostHardware

from .machines import MACHINES, machine, tree

MIB, GIB = 2**20, 2**30
KIB = 2**10


class Told(NamedTuple):
    """What is to be told of a machine. ``pools`` are (total, used), or None where that is unknown."""

    device: Device
    why: str
    pools: dict[str, tuple[int, int | None] | None]
    virt: VirtKind = VirtKind.NONE


TOLD = {
    "strix-halo": Told(
        Device.GPU_VULKAN,
        "AMD GPU 1002:1586 at /dev/dri/renderD128; gpu-rocm works too",
        {"gpu": (536870912 + 131000000 * KIB, 131000000 * KIB - 100 * GIB)},
    ),
    "radeon-7900": Told(
        Device.GPU_VULKAN,
        "AMD GPU 1002:744c at /dev/dri/renderD129; gpu-rocm works too",
        {"gpu0": (25753026560, 1288490188), "gpu1": (536870912 + 33554432000, 62914560)},
    ),
    "mi210": Told(
        Device.GPU_ROCM, "AMD Instinct MI210 (gfx90a), which has no Vulkan driver", {"gpu": (68702699520, 10850304)}
    ),
    "rx-570": Told(Device.GPU_VULKAN, "AMD GPU 1002:67df at /dev/dri/renderD128", {"gpu": (4294967296, 412090368)}),
    "arc-a770": Told(Device.GPU_VULKAN, "Intel GPU 8086:56a0 at /dev/dri/renderD129", {}),
    "arc-backport": Told(Device.GPU_VULKAN, "Intel GPU 8086:56a0 at /dev/dri/renderD128", {"gpu": (17079205888, None)}),
    "intel-laptop": Told(
        Device.CPU,
        "Intel GPU 8086:7d55 is part of the processor, and seldom quicker: device gpu-vulkan uses it",
        {},
    ),
    "two-nvidia": Told(
        Device.GPU_CUDA,
        "NVIDIA GeForce RTX 3090, which CDI hands to containers",
        {"gpu0": (24 * GIB, GIB), "gpu1": (24 * GIB, 0)},
    ),
    "nvidia-laptop": Told(
        Device.CPU,
        "NVIDIA GeForce RTX 4070 Laptop GPU is there, but no CDI file names nvidia.com/gpu for podman: nvidia-ctk cdi"
        " generate --output=/etc/cdi/nvidia.yaml; Intel GPU 8086:a7a0 is part of the processor, and seldom quicker:"
        " device gpu-vulkan uses it",
        {"gpu": (8585740288, 345702400)},
    ),
    "gb10": Told(Device.GPU_CUDA, "NVIDIA GB10, which CDI hands to containers", {"gpu": None}),
    "nouveau": Told(Device.CPU, "NVIDIA GPU 10de:1c82 has the driver nouveau: CUDA needs NVIDIA's own", {}),
    "wsl": Told(
        Device.CPU,
        "NVIDIA GeForce RTX 3060 is there, but no CDI file names nvidia.com/gpu for podman: nvidia-ctk cdi generate"
        " --output=/etc/cdi/nvidia.yaml",
        {"gpu": (12 * GIB, 900000000)},
        VirtKind.WSL,
    ),
    "lxc": Told(
        Device.CPU,
        "AMD GPU 1002:1638 has no render node below /dev/dri here",
        {"gpu": (536870912 + 8388608 * KIB, 8388608 * KIB - 8000000 * KIB)},
        VirtKind.LXC,
    ),
    "vm": Told(Device.CPU, "no GPU is to be seen", {}, VirtKind.VM),
    "h200": Told(
        Device.CPU,
        "NVIDIA H200 is there, but no CDI file names nvidia.com/gpu for podman: nvidia-ctk cdi generate"
        " --output=/etc/cdi/nvidia.yaml",
        {"gpu": (143771 * MIB, 0)},
        VirtKind.VM,
    ),
}


async def seen(name: str, root: Path, patch: pytest.MonkeyPatch) -> Machine:
    host = HostHardware(FakeClock(), is_own_group=False, root=machine(name, root, patch))
    return await host.machine(str(root))


def platform(found: Machine) -> Platform:
    assert isinstance(found.platform, Known)
    return found.platform.value


@pytest.mark.parametrize("name", MACHINES)
async def test_pools_device_and_surroundings(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found, told = await seen(name, tmp_path, monkeypatch), TOLD[name]
    memory = {
        pool: (fact.value.total, fact.value.used) if isinstance(fact, Known) else None
        for pool, fact in pools(found.sample).items()
        if pool != "ram"
    }
    choice = default_device(found, "systemd")
    assert (choice.device, choice.why, memory) == (told.device, told.why, told.pools)
    assert platform(found).virt.kind is told.virt
    assert default_device(found, "process").device is Device.CPU


async def test_an_apu_and_its_npu_in_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = await seen("strix-halo", tmp_path, monkeypatch)
    view: Any = machine_json(found, default_device(found, "systemd"), pools(found.sample))
    assert view["cpu"]["model"] == "AMD RYZEN AI MAX+ 395 w/ Radeon 8060S"
    assert (view["cpu"]["arch"], view["cpu"]["cores"], view["cpu"]["threads"]) == ("x86_64", 16, 32)
    assert {"avx512_bf16", "avx_vnni", "f16c"} <= set(view["cpu"]["flags"]) < {*view["cpu"]["flags"], "fpu"}
    assert view["memory"] == {
        "total_bytes": 131000000 * KIB,
        "available_bytes": 100 * GIB,
        "swap_bytes": 8388604 * KIB,
    }
    gid = (tmp_path / "dev/dri/renderD128").stat().st_gid
    assert view["gpus"] == [
        {
            "vendor": "amd",
            "name": "AMD GPU 1002:1586",
            "driver": "amdgpu",
            "driver_version": "",
            "pci": "0000:c1:00.0",
            "ids": "1002:1586",
            "uuid": "",
            "render_node": "/dev/dri/renderD128",
            "render_gid": gid,
            "gfx": "gfx1151",
            "unified": True,
            "pool": "gpu",
            "memory": {
                "vram_bytes": 536870912,
                "vram_used_bytes": 157286400,
                "shared_bytes": 128 * GIB,
                "shared_used_bytes": 18874368,
            },
            "busy": 0.37,
            "unknown": "",
        }
    ]
    assert view["npus"] == [{"driver": "amdxdna", "ids": "1022:17f0", "node": "/dev/accel/accel0", "gid": gid}]
    assert [pool["name"] for pool in view["pools"]] == ["ram", "gpu"]
    assert view["unknown"] == {}


async def test_nvidias_gpus_have_the_nodes_of_their_cards_and_cdis_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = await seen("two-nvidia", tmp_path, monkeypatch)
    assert [(gpu.pci, gpu.node, gpu.ids, gpu.busy) for gpu in found.sample.gpus] == [
        ("0000:0a:00.0", "/dev/dri/renderD128", "10de:2204", 0.12),
        ("0000:0b:00.0", "/dev/dri/renderD129", "10de:2204", 0.0),
    ]
    assert platform(found).cdi.names == ("nvidia.com/gpu=0", "nvidia.com/gpu=1", "nvidia.com/gpu=all")


async def test_a_recorded_h200(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = await seen("h200", tmp_path, monkeypatch)
    (gpu,) = found.sample.gpus
    assert (gpu.name, gpu.driver_version, gpu.pci) == ("NVIDIA H200", "580.159.04", "0000:00:06.0")
    assert {"amx_tile", "amx_int8", "amx_bf16"} <= set(platform(found).cpu.flags)
    assert platform(found).cpu.cores == 16


async def test_a_processor_of_arm_has_its_features(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = platform(await seen("gb10", tmp_path, monkeypatch)).cpu
    assert (cpu.arch, cpu.cores, cpu.threads) == ("aarch64", 20, 20)
    assert cpu.flags == ("asimd", "asimddp", "bf16", "i8mm", "sve", "sve2")


async def test_a_gpu_that_never_says_its_memory_is_no_pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = await seen("arc-a770", tmp_path, monkeypatch)
    view: Any = machine_json(found, default_device(found, "systemd"), pools(found.sample))
    assert [(gpu["driver"], gpu["memory"], gpu["unknown"]) for gpu in view["gpus"]] == [
        ("xe", None, "xe does not tell its memory"),
        ("i915", None, "i915 does not tell its memory"),
    ]


@pytest.mark.parametrize(
    ("files", "virt"),
    [
        ({}, Virt(VirtKind.NONE)),
        ({"run/systemd/container": "systemd-nspawn\n"}, Virt(VirtKind.CONTAINER, "systemd-nspawn")),
        ({"proc/1/environ": "HOME=/\0container=lxc\0TERM=linux\0"}, Virt(VirtKind.LXC, "lxc")),
        ({"run/.containerenv": ""}, Virt(VirtKind.CONTAINER, "podman")),
        ({".dockerenv": "", "sys/class/dmi/id/sys_vendor": "QEMU\n"}, Virt(VirtKind.CONTAINER, "docker")),
        ({"sys/class/dmi/id/sys_vendor": "VMware, Inc.\n"}, Virt(VirtKind.VM, "vmware")),
        ({"proc/cpuinfo": "processor : 0\nflags\t\t: fpu hypervisor sse2\n"}, Virt(VirtKind.VM, "")),
        ({"sys/class/dmi/id/sys_vendor": "Microsoft Corporation\n"}, Virt(VirtKind.NONE)),  # a Surface
    ],
)
def test_what_hal0_runs_in(tmp_path: Path, files: dict[str, str], virt: Virt) -> None:
    assert host_machine.platform(tree(tmp_path, files)).virt == virt


def test_a_cdi_file_that_cant_be_read_is_told_and_hides_no_other(tmp_path: Path) -> None:
    good = '{"cdiVersion": "0.6.0", "kind": "amd.com/gpu", "devices": [{"name": "all"}]}'
    files = {
        "etc/cdi/bad.yaml": "kind: [",
        "etc/cdi/odd.json": "[]",
        "var/run/cdi/amd.json": good,
        "etc/cdi/README": "",
    }
    cdi = host_machine.platform(tree(tmp_path, files)).cdi
    assert cdi.names == ("amd.com/gpu=all",)
    folder = tmp_path / "etc/cdi"
    assert cdi.unread == tuple(f"{folder}/{name} can't be read: not a CDI file" for name in ("bad.yaml", "odd.json"))


def test_a_cdi_file_that_cant_be_read_is_why_an_nvidia_gpu_is_not_the_default(tmp_path: Path) -> None:
    root = tree(tmp_path, {"etc/cdi/nvidia.yaml": "kind: ["})
    gpu = Gpu(Vendor.NVIDIA, "NVIDIA H200", "nvidia")
    sample = replace(NOT_SAMPLED, gpus=(gpu,))
    found = Machine(Known(host_machine.platform(root)), sample, Unknown(""))
    why = f"NVIDIA H200 is there, but {root}/etc/cdi/nvidia.yaml can't be read: not a CDI file"
    assert default_device(found, "systemd") == Choice(Device.CPU, why)


def test_the_disk_is_that_of_the_closest_folder_that_is_there(tmp_path: Path) -> None:
    mounts = f"22 1 8:1 / / rw - ext4 /dev/sda1 rw\n23 22 0:5 / {tmp_path} rw,relatime shared:1 - xfs /dev/sdb rw\n"
    root = tree(tmp_path / "root", {"proc/self/mountinfo": mounts})
    found = host_machine.disk(f"{tmp_path}/models/not/there", root)
    stat = os.statvfs(tmp_path)
    assert isinstance(found, Known)
    assert (found.value.path, found.value.filesystem) == (f"{tmp_path}/models/not/there", "xfs")
    assert found.value.total == stat.f_blocks * stat.f_frsize
    assert 0 <= found.value.free <= found.value.total


def test_a_disk_that_cant_be_asked_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stale(_: object) -> None:
        raise OSError(116, "Stale file handle")

    monkeypatch.setattr(os, "statvfs", stale)
    assert host_machine.disk("/models", tmp_path) == Unknown("/models: Stale file handle")


async def test_this_machine() -> None:
    found = await HostHardware(FakeClock(), is_own_group=True).machine("/")
    cpu = platform(found).cpu
    assert 1 <= cpu.usable <= cpu.threads == os.cpu_count()
    assert cpu.arch == os.uname().machine
    memory, disk = known(found.sample.memory), known(found.disk)
    assert memory is not None
    assert memory.available <= memory.total
    assert isinstance(disk, Disk)
    assert disk.filesystem
    assert machine_json(found, default_device(found, "systemd"), pools(found.sample))["unknown"] == {}


def test_the_library_costs_nothing_where_there_is_no_driver(tmp_path: Path) -> None:
    code = (
        "import asyncio, sys, pathlib; from hal0.host.clock import SystemClock;"
        "from hal0.host.hardware import HostHardware;"
        f"asyncio.run(HostHardware(SystemClock(), is_own_group=True, root=pathlib.Path({str(tmp_path)!r})).pools());"
        "sys.exit('pynvml' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


FILES = [
    *("proc/meminfo", "proc/cpuinfo", "proc/version", "proc/self/cgroup", "proc/self/mountinfo", "proc/1/environ"),
    *("sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory.current", "sys/fs/cgroup/memory.stat", "sys/fs/cgroup/cpu.max"),
    *("sys/class/drm/card0/device/uevent", "sys/class/drm/card0/device/mem_info_vram_total"),
    *("sys/class/drm/card0/device/gpu_metrics", "sys/class/drm/card0/device/gpu_busy_percent"),
    *("sys/class/accel/accel0/device/uevent", "sys/class/kfd/kfd/topology/nodes/1/properties", "etc/cdi/x.yaml"),
    *("sys/class/dmi/id/sys_vendor", "run/systemd/container"),
]
WORDS = st.sampled_from(
    ["0::/", "MemTotal:", "MemAvailable:", "kB", "12", "-1", "max", "PCI_ID=1002:1", "processor", ":", "=", "\n\n"]
)
TEXTS = st.one_of(
    st.text(st.characters(max_codepoint=255), max_size=60),
    st.lists(WORDS, max_size=12).map(" ".join),
    st.lists(WORDS, max_size=12).map("\n".join),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(st.dictionaries(st.sampled_from(FILES), TEXTS))
async def test_whatever_the_files_say_it_is_told_or_unknown(tmp_path: Path, files: dict[str, str]) -> None:
    root = tree(tmp_path, dict.fromkeys(FILES, "") | files | {"dev/kfd": ""})
    found = await HostHardware(FakeClock(), is_own_group=True, root=root).machine(str(root))
    for fact in pools(found.sample).values():
        assert isinstance(fact, Unknown) or 0 <= (fact.value.used or 0) <= fact.value.total
    assert drm.gpus(root) == found.sample.gpus
    machine_json(found, default_device(found, "systemd"), pools(found.sample))
