from __future__ import annotations

from pathlib import Path

import pytest

from hal0.host.cgroups import NOT_KNOWN, Limits, limits_of


@pytest.mark.parametrize(
    ("memory", "cpu", "limits"),
    [
        ("536870912\n", "150000 100000\n", Limits(536870912, 1.5)),
        ("max\n", "max 100000\n", Limits(0, 0.0)),
        (None, None, Limits(None, None)),
        ("lots\n", "1\n", Limits(None, None)),
        ("1\n", "1 0\n", Limits(1, None)),
    ],
)
def test_limits_are_read_from_the_kernel(tmp_path: Path, memory: str | None, cpu: str | None, limits: Limits) -> None:
    folder = tmp_path / "system.slice" / "libpod-payload-1"
    folder.mkdir(parents=True)
    for name, text in (("memory.max", memory), ("cpu.max", cpu)):
        if text is not None:
            (folder / name).write_text(text)
    assert limits_of("/system.slice/libpod-payload-1", tmp_path) == limits


@pytest.mark.parametrize("cgroup", ["", "/", "/no/such"])
def test_a_cgroup_that_is_not_there_is_not_known(tmp_path: Path, cgroup: str) -> None:
    (tmp_path / "memory.max").write_text("1")
    assert limits_of(cgroup, tmp_path) == NOT_KNOWN
