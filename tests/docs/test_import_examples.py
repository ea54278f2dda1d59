"""The worked examples of docs/import.md: each file there makes what is shown below it, and that is valid."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from worlds import SEEDS, desired

from hal0.cli.importing import READERS, as_yaml
from hal0.core.importing.draft import Given
from hal0.core.importing.profiles import seeds_of

_EXAMPLE = re.compile(r"```text\n(.*?)```\n\n```console\n\$ hal0 import (\S+) (\S+)\n(.*?)```", re.DOTALL)
_TEXT = (Path(__file__).parents[2] / "docs" / "import.md").read_text()
EXAMPLES: list[tuple[str, str, str, str]] = _EXAMPLE.findall(_TEXT)


@pytest.mark.parametrize(("text", "kind", "name", "shown"), EXAMPLES, ids=[kind for _, kind, _, _ in EXAMPLES])
def test_an_example_makes_what_is_shown(text: str, kind: str, name: str, shown: str) -> None:
    found = READERS[kind](text, name, Given(seeds_of(SEEDS), "/srv/app", {"HOME": "/home/op"}))
    assert "\n".join(as_yaml(kind, name, found)) + "\n" == shown
    assert desired(shown).problems == ()


def test_each_importer_has_an_example() -> None:
    assert {kind for _, kind, _, _ in EXAMPLES} == set(READERS)
