"""Every profile that ships with hal0, as a slot has it. HAL0_UPDATE_GOLDEN=1 writes the definitions again."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from seeded import BY_TYPE, NAMED, slot_of
from worlds import SEEDS

from hal0.core.definition import stamp
from hal0.core.enginekinds import ENGINES
from hal0.core.flags import read
from hal0.core.seeds import EMBEDDED_PROFILE, SEED_PROFILES

HERE = Path(__file__).parent / "seeds"


@pytest.mark.parametrize("name", sorted(BY_TYPE | NAMED))
def test_a_seed_is_rendered_as_it_was_agreed(name: str) -> None:
    slot = slot_of(name)
    assert slot.spec.profile == name
    definition = stamp(slot.body, slot=name, spec_hash=slot.spec_hash, generation=1)
    golden = HERE / f"{name}.conf"
    if os.environ.get("HAL0_UPDATE_GOLDEN") == "1":
        golden.write_bytes(definition.encode())
    assert definition == golden.read_bytes().decode()


@pytest.mark.parametrize("name", sorted(BY_TYPE | NAMED))
def test_a_seed_leaves_no_placeholder_and_gives_no_flag_twice(name: str) -> None:
    slot = slot_of(name)
    inside = slot.launch.argv[slot.launch.argv.index(slot.spec.image) + 1 :]
    assert not [word for word in inside if "{" in word]
    kind = ENGINES[slot.spec.engine]
    keys = [flag.key for flag in read(inside, kind.flags) if flag.key]
    assert len(keys) == len(set(keys))
    assert not [both for both in kind.apart if both <= set(keys)]


def test_every_seed_is_for_a_type_and_a_device_or_named_here_and_has_its_golden_file() -> None:
    seeds = {seed.manifest.name for seed in SEEDS if seed.manifest.kind == "Profile"}
    assert seeds - {EMBEDDED_PROFILE} == {*BY_TYPE, *NAMED}
    assert {path.stem for path in HERE.iterdir()} == {*BY_TYPE, *NAMED}
    assert len(BY_TYPE) == len(SEED_PROFILES)


def test_no_seed_names_a_registry() -> None:
    images = [slot_of(name).spec.image for name in BY_TYPE | NAMED]
    assert not [image for image in images if "." in image.partition("/")[0]]
