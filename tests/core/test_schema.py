from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from hal0 import resources
from hal0.core.documents import parse_file
from hal0.core.kinds import KINDS, ManifestUnion
from hal0.core.quantity import parse_duration, parse_size, show_duration, show_size
from hal0.core.schema import HostManifest, SlotManifest
from hal0.core.validate import validate

QUICKSTART = Path(__file__).parents[2] / "manifests" / "quickstart"


@pytest.mark.parametrize(
    ("text", "size"),
    [
        (1, 1),
        (8 * 2**30, 8 * 2**30),
        ("1024", 1024),
        ("1024B", 1024),
        ("512Mi", 512 * 2**20),
        ("512MiB", 512 * 2**20),
        ("8Gi", 8 * 2**30),
        (" 8 Gi ", 8 * 2**30),
        ("1.5Gi", 3 * 2**29),
        ("2Ti", 2**41),
        ("1k", 1000),
        ("1K", 1000),
        ("1ki", 1024),
        ("500M", 500 * 10**6),
        ("4G", 4 * 10**9),
    ],
)
def test_a_size_is_bytes_or_a_number_with_a_unit(text: object, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text",
    [
        "",
        "8 Pi",
        "Gi",
        "8gi",
        "8 G i",
        "-1",
        "8Gi4Mi",
        "1e9",
        "0",
        "0.0001k",
        "9" * 400,
        "٣x",
        0,
        -1,
        True,
        1.5,
        None,
        ["8Gi"],
    ],
)
def test_what_is_no_size_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match="is not a size"):
        parse_size(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (0, 0.0),
        (90, 90.0),
        (0.5, 0.5),
        ("90s", 90.0),
        (" 15m ", 900.0),
        ("1h30m", 5400.0),
        ("1.5h", 5400.0),
        ("250ms", 0.25),
        ("1d", 86400.0),
        ("1m1m", 120.0),
    ],
)
def test_a_duration_is_seconds_or_numbers_with_units(text: object, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text",
    ["", "90", "s", "1h 30m", "-5s", "5S", "5sec", "1h30", "1,5h", -1, True, None, [], float("inf"), float("nan"),
     "9" * 400 + "s"],
)  # fmt: skip
def test_what_is_no_duration_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        parse_duration(text)


@settings(deadline=None)
@given(st.text() | st.from_regex(r"[0-9.]{1,20}[kKMGTimshd]{0,2}", fullmatch=True))
def test_any_text_is_a_quantity_or_a_value_error(text: str) -> None:
    for parse in (parse_size, parse_duration):
        try:
            assert 0 <= parse(text) < float("inf")
        except ValueError as error:
            assert "write it like" in str(error)  # noqa: PT017  (either outcome is right)


@pytest.mark.parametrize(
    ("size", "text"),
    [(None, "-"), (0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1536 * 2**20, "1.5 GiB"), (3 * 2**40, "3.0 TiB")],
)
def test_a_size_is_shown_in_a_unit_that_people_read(size: int | None, text: str) -> None:
    assert show_size(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0.0s"), (0.44, "0.4s"), (10, "10s"), (310, "5m10s"), (3600, "1h"), (86400 * 2 + 3 * 3600 + 59, "2d3h")],
)
def test_a_duration_is_shown_in_two_units_at_the_most(seconds: float, text: str) -> None:
    assert show_duration(seconds) == text


@settings(deadline=None)
@given(st.integers(10, 10**8))
def test_a_shown_duration_is_read_again_to_within_its_smaller_unit(seconds: int) -> None:
    again = parse_duration(show_duration(seconds))
    assert again <= seconds < again + max(1, seconds / 24)


def test_numbers_in_an_argument_list_need_no_quotes() -> None:
    slot = SlotManifest.model_validate({"kind": "Slot", "name": "a", "model": "m", "args": ["--n", 7, 0.5]})
    assert slot.args == ["--n", "7", "0.5"]


def test_the_range_of_ports_has_both_ends() -> None:
    assert HostManifest(kind="Host", slot_ports="9000-9000").port_range == (9000, 9000)


def test_the_quickstart_and_the_seeds_are_valid() -> None:
    files = [(path.name, path.read_text("utf-8")) for path in QUICKSTART.iterdir()] + resources.seeds()
    parsed = [parse_file(file, text) for file, text in files]
    good, errors = validate(document for documents, _ in parsed for document in documents)
    assert not errors
    assert not [error for _, found in parsed for error in found]
    assert {located.manifest.kind for located in good} == {"Slot", "Model", "Profile"}


def test_the_json_schema_names_every_key_of_every_kind_and_allows_no_other() -> None:
    schema = TypeAdapter(ManifestUnion).json_schema()
    assert set(schema["discriminator"]["mapping"]) == set(KINDS)
    for kind, model in KINDS.items():
        part = schema["$defs"][model.__name__]
        assert part["additionalProperties"] is False
        assert set(part["properties"]) == set(model.model_fields)
        assert "kind" in part["required"]
        assert part["properties"]["kind"]["const"] == kind


def test_the_json_schema_takes_sizes_and_durations_as_people_write_them() -> None:
    parts = TypeAdapter(ManifestUnion).json_schema()["$defs"]
    memory, idle = parts["Limits"]["properties"]["memory"], parts["SlotManifest"]["properties"]["idle_timeout"]
    assert [option["type"] for option in memory["anyOf"] if "type" in option][-1] == "null"
    assert {option.get("type") for option in idle["anyOf"]} == {"string", "number"}
