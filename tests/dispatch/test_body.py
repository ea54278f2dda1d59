from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hal0.dispatch.body import parse

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
OBJECTS = st.dictionaries(st.text(max_size=6), VALUES, max_size=5)


@given(OBJECTS, OBJECTS, st.sampled_from(["utf-8", "utf-16", "utf-8-sig"]), st.sampled_from(["", " \n"]))
def test_defaults_fill_in_what_is_missing_and_change_nothing_else(
    asked: dict[str, Any], defaults: dict[str, Any], encoding: str, space: str
) -> None:
    raw = (space + json.dumps(asked)).encode(encoding)
    assert json.loads(parse(raw).filled(defaults)) == defaults | asked


@given(OBJECTS, OBJECTS)
def test_a_body_that_lacks_nothing_is_sent_as_it_came(asked: dict[str, Any], more: dict[str, Any]) -> None:
    raw = json.dumps(asked | more, indent=3).encode()
    assert parse(raw).filled(asked) is raw


def test_what_a_client_sent_is_not_written_anew() -> None:
    raw = b'{ "model" : "chat", "seed": 1.50e1 }'
    assert parse(raw).filled({"temperature": 0.7}) == b'{"temperature": 0.7, "model" : "chat", "seed": 1.50e1 }'


@pytest.mark.parametrize("raw", [b"", b"{", b"\xff", b"[" * 100_000])
def test_what_is_no_json_is_a_value_error(raw: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  (whatever it says)
        parse(raw)


@pytest.mark.parametrize("raw", [b"[]", b'"chat"', b"7", b"null", b'{"model": 7}', b"{}"])
def test_what_names_no_model_names_none(raw: bytes) -> None:
    assert parse(raw).model is None
