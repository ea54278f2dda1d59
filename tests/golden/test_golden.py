"""Definitions as they are on disk, rendered from the manifests beside them.

A fixture's comments are its specification: ``# process`` and ``# rootless`` set the machine, ``# assert:`` says what
must be there. HAL0_UPDATE_GOLDEN=1 writes the definitions again.
"""

from __future__ import annotations

import os
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
from worlds import FACTS, SEEDS, TEMPLATES

from hal0.core.definition import stamp
from hal0.core.documents import parse_file
from hal0.core.resolve import resolve
from hal0.core.spec import DesiredSlot
from hal0.core.validate import validate

HERE = Path(__file__).parent
FIXTURES = sorted(HERE.glob("*.yaml"))


def rendered(fixture: Path) -> tuple[DesiredSlot, str, Path]:
    """Return the only slot of a fixture, its definition, and where that is kept."""
    text = fixture.read_text("utf-8")
    is_process = "\n# process\n" in text
    facts = replace(
        FACTS,
        runtime="process" if is_process else "systemd",
        groups={"video": 44, "render": 105},
        rootless="\n# rootless\n" in text,
    )
    documents, errors = parse_file(fixture.name, text)
    good, invalid = validate(documents)
    found = resolve(good, [*errors, *invalid], seeds=SEEDS, facts=facts, templates=TEMPLATES)
    assert not found.problems, [str(problem) for problem in found.problems]
    (slot,) = found.slots.values()
    definition = stamp(slot.body, slot=slot.spec.name, spec_hash=slot.spec_hash, generation=1)
    return slot, definition, fixture.with_suffix(".toml" if is_process else ".conf")


@pytest.mark.parametrize("fixture", FIXTURES, ids=lambda path: path.stem)
def test_a_definition_is_rendered_as_it_was_agreed(fixture: Path) -> None:
    _, definition, golden = rendered(fixture)
    if os.environ.get("HAL0_UPDATE_GOLDEN") == "1":
        golden.write_bytes(definition.encode())
    assert definition == golden.read_bytes().decode()


@pytest.mark.parametrize("fixture", FIXTURES, ids=lambda path: path.stem)
def test_a_definition_holds_what_its_fixture_asserts(fixture: Path) -> None:
    _, definition, _ = rendered(fixture)
    lines = fixture.read_text("utf-8").split("\n")
    asserts = [line.removeprefix("# assert: ").partition(" ") for line in lines if line.startswith("# assert: ")]
    assert asserts
    assert {verb for verb, _, _ in asserts} <= {"contains", "lacks"}
    assert [text for verb, _, text in asserts if verb == "contains" and text not in definition] == []
    assert [text for verb, _, text in asserts if verb == "lacks" and text in definition] == []


@pytest.mark.parametrize("fixture", sorted(HERE.glob("embedded*.yaml")), ids=lambda path: path.stem)
def test_a_process_definition_reads_back_as_what_is_launched(fixture: Path) -> None:
    slot, definition, _ = rendered(fixture)
    found = tomllib.loads(definition)["process"]
    assert (tuple(found["argv"]), found["env"]) == (slot.launch.argv, slot.launch.env)


def test_every_golden_file_has_its_fixture() -> None:
    kept = {path.name for suffix in ("*.conf", "*.toml") for path in HERE.glob(suffix)}
    assert kept == {rendered(fixture)[2].name for fixture in FIXTURES}
