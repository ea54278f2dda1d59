from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from hal0.host.cpus import usable_cpus

if TYPE_CHECKING:
    from pathlib import Path

V2 = "0::/user.slice/hal0.service\n"
V1 = "4:memory:/m\n3:cpu,cpuacct:/docker/abc\n1:cpuset:/\n0::/\n"


@pytest.fixture(autouse=True)
def eight_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(8)))


def cpus(root: Path, membership: str, files: dict[str, str]) -> int:
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(membership)
    for name, text in files.items():
        path = root / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return usable_cpus(proc=root / "proc", cgroups=root / "cgroup")


def test_without_control_groups_it_is_the_affinity_mask(tmp_path: Path) -> None:
    assert usable_cpus(proc=tmp_path, cgroups=tmp_path) == 8


@pytest.mark.parametrize(
    ("membership", "files", "expected"),
    [
        (V2, {"user.slice/hal0.service/cpu.max": "200000 100000"}, 2),
        (V2, {"user.slice/hal0.service/cpu.max": "max 100000"}, 8),
        (V2, {"user.slice/hal0.service/cpu.max": "max 100000", "user.slice/cpu.max": "300000 100000"}, 3),
        (V2, {"user.slice/hal0.service/cpu.max": "150000 100000"}, 1),
        (V2, {"user.slice/hal0.service/cpu.max": "50000 100000"}, 1),
        (V2, {"user.slice/hal0.service/cpu.max": "6400000 100000"}, 8),
        ("0::/\n", {"cpu.max": "400000 100000"}, 4),
        (V1, {"cpu/docker/abc/cpu.cfs_quota_us": "250000", "cpu/docker/abc/cpu.cfs_period_us": "100000"}, 2),
        (V1, {"cpu,cpuacct/cpu.cfs_quota_us": "500000", "cpu,cpuacct/cpu.cfs_period_us": "100000"}, 5),
        (V1, {"cpu/docker/abc/cpu.cfs_quota_us": "-1", "cpu/docker/abc/cpu.cfs_period_us": "100000"}, 8),
        (V1, {"unified/cpu.max": "600000 100000"}, 6),
        (V2, {"user.slice/hal0.service/cpu.max": "nonsense"}, 8),
    ],
)
def test_the_tightest_quota_wins(tmp_path: Path, membership: str, files: dict[str, str], expected: int) -> None:
    assert cpus(tmp_path, membership, files) == expected


def test_a_narrow_mask_wins_over_a_wide_quota(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {5})
    assert cpus(tmp_path, V2, {"user.slice/hal0.service/cpu.max": "400000 100000"}) == 1


def test_this_machine_has_at_least_one() -> None:
    assert usable_cpus() >= 1
