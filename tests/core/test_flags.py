from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hal0.core.enginekinds import ENGINES
from hal0.core.flags import UNKNOWN, Flag, Syntax, last_of, merged, read, words_of
from hal0.core.schema import Engine
from hal0.engine.flags import CHOICES, FLAGS, SWITCHES

LLAMA = ENGINES[Engine.LLAMA_SERVER].flags


def joined(*layers: str, known: Syntax = LLAMA) -> str:
    return " ".join(words_of(merged([layer.split() for layer in layers], known)))


@pytest.mark.parametrize(
    ("layers", "words"),
    [
        (("--ctx-size 1 --jinja", "-c 2"), "--jinja -c 2"),
        (("-c 1", "--ctx-size=2"), "--ctx-size=2"),
        (("--ctx-size 1", "--ctx_size 2"), "--ctx_size 2"),
        (("-c 1 --jinja -c 2",), "--jinja -c 2"),
        (("-ngl 999", "--n-gpu-layers -1"), "--n-gpu-layers -1"),
        (("--jinja", "--no-jinja"), "--no-jinja"),
        (("-kvo", "--no-kv-offload"), "--no-kv-offload"),
        (("--host 1.2.3.4", "--no-host"), "--host 1.2.3.4 --no-host"),
        (("--mmproj a.gguf", "--no-mmproj"), "--mmproj a.gguf --no-mmproj"),
        (("--lora a", "--lora b"), "--lora a --lora b"),
        (("-ot a=CPU", "--override-tensor b=CPU"), "-ot a=CPU --override-tensor b=CPU"),
        (("--of-tomorrow 1", "--of-tomorrow 2"), "--of-tomorrow 2"),
        (("--of-tomorrow 1 --of-tomorrow 2",), "--of-tomorrow 1 --of-tomorrow 2"),
        (("--of-tomorrow 1 --of-tomorrow 2", "--of-tomorrow 3"), "--of-tomorrow 3"),
        (("--threads 4", "--threads-batch 2"), "--threads 4 --threads-batch 2"),
        ((), ""),
        (("", "-c 1", ""), "-c 1"),
    ],
)
def test_of_each_flag_the_last_stays_where_it_stands(layers: tuple[str, ...], words: str) -> None:
    assert joined(*layers) == words


def test_a_flag_that_nothing_is_known_of_is_its_spelling() -> None:
    assert joined("serve m -c 1 --size 2", "--size 3", known=UNKNOWN) == "serve m -c 1 --size 3"
    assert joined("-c 1", "--ctx-size 2", known=UNKNOWN) == "-c 1 --ctx-size 2"


@pytest.mark.parametrize("value", ["-1", "-0.5", "-", "- a list", "--{name}", "", "a b", "-\u00e9"])
def test_a_value_that_begins_with_a_dash_is_no_flag(value: str) -> None:
    (flag,) = read(["--chat-template", value], LLAMA)
    assert (flag.name, flag.values) == ("--chat-template", (value,))


def test_a_flag_knows_its_list_and_its_place() -> None:
    assert merged([["serve", "-c", "1"], ["--x=", "-c", "2"]], LLAMA) == (
        Flag("", ("serve",), 0, 0),
        Flag("--x", ("--x=",), 1, 0),
        Flag("--ctx-size", ("-c", "2"), 1, 1),
    )


def test_the_flag_in_force_is_the_last() -> None:
    found = last_of(["-c", "1", "--ctx-size=2"], "--ctx-size", LLAMA)
    assert found is not None
    assert found.values == ("2",)
    assert last_of(["-c", "1"], "--parallel", LLAMA) is None


SPELLINGS = ["-c", "--ctx-size", "--ctx_size", "-ngl", "--lora", "--jinja", "--no-jinja", "--new", "-n", "--x=1"]
layers = st.lists(st.lists(st.sampled_from([*SPELLINGS, "1", "-1", "a b", ""]), max_size=8), max_size=4)
syntaxes = st.sampled_from([LLAMA, UNKNOWN])


@given(layers, syntaxes)
def test_what_is_merged_is_merged_already(lists: list[list[str]], known: Syntax) -> None:
    once = words_of(merged(lists, known))
    assert words_of(merged([once], known)) == once


@given(layers)
def test_a_known_flag_is_there_once_unless_it_adds_up(lists: list[list[str]]) -> None:
    counts = Counter(flag.key for flag in merged(lists, LLAMA))
    assert {key for key, count in counts.items() if count > 1 and key in LLAMA.keys} <= LLAMA.repeatable


@given(layers, syntaxes)
def test_the_last_lists_flags_are_all_there_in_their_order(lists: list[list[str]], known: Syntax) -> None:
    lists = [*lists, ["-c", "7", "--new", "8", "--jinja"]]
    kept = [flag for flag in merged(lists, known) if flag.layer == len(lists) - 1]
    assert words_of(kept) == tuple(lists[-1])


@given(layers, syntaxes)
def test_every_key_that_was_given_is_there_and_nothing_is_made_up(lists: list[list[str]], known: Syntax) -> None:
    given_flags = [flag for at, words in enumerate(lists) for flag in read(words, known, layer=at)]
    found = merged(lists, known)
    assert {flag.key for flag in found} == {flag.key for flag in given_flags}
    assert [flag for flag in given_flags if flag in found] == list(found)


@given(st.lists(st.text(max_size=6) | st.sampled_from(SPELLINGS), max_size=9), syntaxes)
def test_reading_loses_no_word(words: list[str], known: Syntax) -> None:
    assert words_of(read(words, known)) == tuple(words)


@pytest.mark.parametrize("row", [*FLAGS, *SWITCHES, *CHOICES], ids=lambda row: row.names[-1])
def test_the_table_agrees_with_the_embedded_engine(row: object) -> None:
    names = row.names  # type: ignore[attr-defined]
    assert len({LLAMA.key(name) for name in names}) == 1
    assert LLAMA.key(names[0]) in LLAMA.keys


def test_switches_of_one_setting_have_one_key() -> None:
    by_target: dict[str, set[str]] = {}
    for switch in SWITCHES:
        by_target.setdefault(switch.target, set()).update(LLAMA.key(name) for name in switch.names)
    assert {target: keys for target, keys in by_target.items() if len(keys) > 1} == {}


@pytest.mark.parametrize("engine", Engine)
def test_no_spelling_stands_for_two_flags(engine: Engine) -> None:
    known = ENGINES[engine].flags
    assert all(known.keys[key] == key for key in known.keys.values())
    assert known.repeatable <= set(known.keys.values())
    own = [flag.key for flag in read(ENGINES[engine].base, known) if flag.key]
    assert {*own, *filter(None, (ENGINES[engine].context, ENGINES[engine].threads))} <= {*known.keys, "--metrics"}
