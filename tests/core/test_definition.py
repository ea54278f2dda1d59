from __future__ import annotations

import tomllib

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from strategies import desired_slots, names

from hal0.core.definition import Mark, digest, is_edited, split, stamp
from hal0.core.spec import Desired, DesiredSlot, HostFacts

BODY = "[Service]\nExecStart=/bin/true\n"
bodies = st.text(max_size=60) | st.just("\n[X-Hal0]\n") | st.just(BODY)
hashes = st.from_regex(r"[0-9a-f]{16}", fullmatch=True)
generations = st.integers(0, 10**9)


def stamped(body: str = BODY) -> str:
    return stamp(body, slot="chat", spec_hash="0" * 16, generation=3)


@settings(deadline=None)
@given(bodies, names(), hashes, generations)
def test_what_is_stamped_is_split_again(body: str, slot: str, spec_hash: str, generation: int) -> None:
    text = stamp(body, slot=slot, spec_hash=spec_hash, generation=generation)
    assert split(text) == (body, Mark(slot, spec_hash, digest(body), generation))
    assert not is_edited(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        BODY,
        BODY + "\n[X-Hal0]\n",
        stamped().replace("Slot", "Sl0t"),
        stamped().replace('SpecHash = "', "SpecHash = '"),
        stamped().replace('"3"', '"three"'),
        stamped().replace("Digest", "# Digest"),
        stamped().replace("[X-Hal0]", "[X-Other]"),
    ],
)
def test_a_file_without_a_whole_mark_is_not_hal0s(text: str) -> None:
    assert split(text) == (text, None)
    assert not is_edited(text)


@pytest.mark.parametrize(
    "text",
    [
        "# mine\n" + stamped(),
        stamped().replace("true", "false"),
        stamped().replace("ExecStart", " ExecStart"),
        stamped() + "\n",
        stamped() + "Extra = 1\n",
        stamped().rstrip("\n"),
        stamped().replace('"3"', '"03"'),
        stamped().replace("\n", "\r\n", 1),
        stamped(BODY.replace("true", "other")).replace(digest(BODY.replace("true", "other")), digest(BODY)),
    ],
)
def test_a_marked_file_that_was_touched_is_edited(text: str) -> None:
    assert split(text)[1] is not None
    assert is_edited(text)


@settings(deadline=None)
@given(st.data(), st.text(max_size=3))
def test_an_edit_of_the_body_is_noticed_wherever_it_is(data: st.DataObject, text: str) -> None:
    start = data.draw(st.integers(0, len(BODY)))
    end = data.draw(st.integers(start, len(BODY)))
    edited = BODY[:start] + text + BODY[end:]
    assume(edited != BODY)
    assert is_edited(stamped().replace(BODY, edited, 1))


def test_a_newer_generation_of_the_same_text_is_no_edit() -> None:
    assert not is_edited(stamp(BODY, slot="chat", spec_hash="0" * 16, generation=4))


@settings(deadline=None)
@given(st.text(max_size=20), st.text(max_size=20))
def test_digests_are_short_and_differ_where_the_text_does(one: str, other: str) -> None:
    assert (digest(one) == digest(other)) == (one == other)
    assert len(digest(one)) == 16


@settings(max_examples=40, deadline=None)
@given(desired_slots("process"), generations)
def test_a_process_definition_is_toml_that_says_the_same_argv_and_environment(
    world: tuple[HostFacts, DesiredSlot, Desired], generation: int
) -> None:
    slot = world[1]
    text = stamp(slot.body, slot=slot.spec.name, spec_hash=slot.spec_hash, generation=generation)
    found = tomllib.loads(text)
    assert tuple(found["process"]["argv"]) == slot.launch.argv
    assert found["process"]["env"] == slot.launch.env
    assert found["process"]["stop_timeout"] == pytest.approx(slot.spec.stop_timeout, abs=0.05)
    assert found["X-Hal0"] == {
        "Slot": slot.spec.name,
        "SpecHash": slot.spec_hash,
        "Digest": digest(slot.body),
        "Generation": str(generation),
    }
