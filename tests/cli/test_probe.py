from __future__ import annotations

from typing import Any

import pytest

from hal0.cli.probe import machine_text

from .conftest import Place


def test_a_probe_needs_neither_daemon_nor_manifests(place: Place) -> None:
    done = place.hal0("probe", "--scope", "user")
    assert (done.returncode, done.stderr) == (0, "")
    rows = {line.split()[0]: line for line in done.stdout.splitlines() if not line.startswith(" ")}
    assert {"cpu", "memory", "models", "pool", "default"} <= rows.keys()
    assert f"{place.folder}/state/models" in rows["models"]


@pytest.mark.daemon
def test_the_daemon_is_asked_where_one_runs(place: Place) -> None:
    place.put_slots("chat")
    with place.serving():
        place.until_ready("chat")
        found = place.json("probe")
        assert found["model_disk"]["path"] == f"{place.folder}/state/models"
        asked = place.ask("/api/hardware")
        assert (found["cpu"], found["default"]) == (asked["cpu"], asked["default"])


GPU: dict[str, Any] = {
    "name": "AMD GPU 1002:1586",
    "gfx": "gfx1151",
    "driver": "amdgpu",
    "driver_version": "",
    "pci": "0000:c1:00.0",
    "render_node": "/dev/dri/renderD128",
    "render_gid": 993,
    "unified": True,
    "memory": {"vram_bytes": 2**29, "vram_used_bytes": 2**27, "shared_bytes": 2**37, "shared_used_bytes": 0},
    "busy": 0.37,
    "unknown": "",
}


def test_a_machine_as_a_person_reads_it() -> None:
    late = GPU | {"name": "NVIDIA H200", "gfx": "", "driver": "nvidia", "driver_version": "580", "render_node": ""}
    late |= {"memory": None, "unknown": "NVML: no answer in 2 s"}
    cpu = {"model": "Ryzen", "arch": "x86_64", "cores": 16, "threads": 32, "usable": 8, "flags": ["avx2", "f16c"]}
    pool = {"name": "gpu", "total_bytes": 2**37, "for_slots_bytes": 2**36, "used_bytes": 2**30, "stated": False}
    found: dict[str, Any] = {
        "cpu": cpu,
        "memory": {"total_bytes": 2**37, "available_bytes": 2**36, "swap_bytes": 0},
        "gpus": [GPU, late],
        "npus": [{"driver": "amdxdna", "ids": "1022:17f0", "node": "/dev/accel/accel0", "gid": 993}],
        "virtualization": {"kind": "vm", "name": "qemu"},
        "cdi": {"names": ["nvidia.com/gpu=all"], "unread": ["/etc/cdi/x.yaml can't be read: no permission"]},
        "model_disk": {"path": "/models", "filesystem": "ext4", "total_bytes": 2**40, "free_bytes": 2**39},
        "pools": [pool | {"unknown": ""}, {"name": "gpu1", "unknown": "NVML: no answer in 2 s"}],
        "unknown": {"memory": "/proc/meminfo can't be read"},
        "default": {"device": "gpu-vulkan", "why": "AMD GPU 1002:1586 at /dev/dri/renderD128"},
    }
    assert list(machine_text(found)) == [
        "cpu       Ryzen (x86_64): 16 cores, 32 threads, 8 usable",
        "          flags: avx2 f16c",
        "memory    128.0 GiB, 64.0 GiB available, 0 B swap",
        "gpu       AMD GPU 1002:1586 (gfx1151): amdgpu, 0000:c1:00.0, /dev/dri/renderD128 (group 993)",
        "          VRAM 128.0 MiB of 512.0 MiB, GTT 0 B of 128.0 GiB, shares the machine's memory, busy 37%",
        "gpu       NVIDIA H200: nvidia 580, 0000:c1:00.0, no node below /dev",
        "          NVML: no answer in 2 s",
        "npu       amdxdna 1022:17f0, /dev/accel/accel0 (group 993)",
        "inside    vm qemu",
        "cdi       nvidia.com/gpu=all",
        "cdi       /etc/cdi/x.yaml can't be read: no permission",
        "models    /models: 512.0 GiB of 1.0 TiB free (ext4)",
        "pool      gpu  64.0 GiB for slots of 128.0 GiB, 1.0 GiB in use",
        "pool      gpu1  unknown: NVML: no answer in 2 s",
        "unknown   memory: /proc/meminfo can't be read",
        "default   gpu-vulkan: AMD GPU 1002:1586 at /dev/dri/renderD128",
    ]
