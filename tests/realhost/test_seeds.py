"""What seed profiles count on: systemd takes their definitions, podman gives vLLM its place, llama-server its flags."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest
from seeded import BY_TYPE, NAMED, slot_of

from hal0 import resources
from hal0.core.definition import stamp
from hal0.core.enginekinds import ENGINES
from hal0.core.schema import Engine
from hal0.core.spec import unit_name

if TYPE_CHECKING:
    from .box import Box
    from .conftest import Engine as EngineImage

pytestmark = pytest.mark.realhost
UNITS = "/etc/systemd/system"
SEEDS = sorted(BY_TYPE | NAMED)


@pytest.fixture(scope="module")
def units(box: Box) -> Box:
    """A box with a slot for each seed, none of them started."""
    for file in ("hal0-slot@.service", "hal0.target"):
        box.write(f"{UNITS}/{file}", resources.read("systemd", file))
    for name in SEEDS:
        slot = slot_of(name)
        body = stamp(slot.body, slot=name, spec_hash=slot.spec_hash, generation=1)
        box.write(f"{UNITS}/{unit_name(name)}.d/50-hal0.conf", body)
    box.run("systemctl", "daemon-reload")
    return box


def test_every_seed_passes_systemd_analyze_verify(units: Box) -> None:
    done = units.run("systemd-analyze", "verify", *map(unit_name, SEEDS), timeout=120)
    assert (done.stdout, done.stderr) == ("", "")


@pytest.mark.parametrize("name", SEEDS)
def test_a_seeds_command_is_read_back_word_by_word(units: Box, name: str) -> None:
    path = "/org/freedesktop/systemd1/unit/hal0_2dslot_40" + name.replace("-", "_2d") + "_2eservice"
    command = ("busctl", "--json=short", "get-property", "org.freedesktop.systemd1", path)
    seen = json.loads(units.run(*command, "org.freedesktop.systemd1.Service", "ExecStart").stdout)["data"]
    assert tuple(seen[0][1]) == slot_of(name).launch.argv


def in_container(box: Box, image: str, script: str, *options: str) -> str:
    """Run a script in a container that is as hardened as a slot's."""
    hardened = ("--rm", "--read-only", "--tmpfs=/tmp", "--cap-drop=all", "--security-opt=no-new-privileges")
    command = ("podman", "run", *hardened, *options, "--entrypoint=sh", image, "-c", script)
    return box.run(*command, timeout=120).stdout


def test_a_mount_without_a_source_is_a_place_to_run_code_from_and_goes_with_the_container(
    box: Box, engine: EngineImage
) -> None:
    vllm = slot_of("vllm-cuda").launch.argv
    options = [word for word in vllm if word in {"--volume=/cache", "--shm-size=4294967296b"}]
    assert len(options) == 2
    script = "cp /bin/true /cache/it && /cache/it && echo runs; touch /it || echo refused; df -k /dev/shm"
    lines = in_container(box, engine.image, script, *options).splitlines()
    assert lines[:2] == ["runs", "refused"]
    assert lines[-1].split()[1] == str(4 * 2**20)
    assert box.run("podman", "volume", "ls", "--quiet").stdout == ""


def test_the_table_of_flags_agrees_with_llama_server_itself(box: Box, engine: EngineImage) -> None:
    known = ENGINES[Engine.LLAMA_SERVER].flags
    told = in_container(box, engine.image, "llama-server --help")
    rows = re.findall(r"^--?[A-Za-z][\w-]*(?:, +--?[\w-]+)*", told, re.MULTILINE)
    spelled = [re.split(", +", row) for row in rows]
    assert len(spelled) > 100
    assert [names for names in spelled if len({known.key(name) for name in names}) != 1] == []
