"""Profiles that extend others, and the flags that come of it."""

from __future__ import annotations

import pytest
from worlds import MODEL, desired

from hal0.core.schema import Engine
from hal0.core.spec import SlotSpec

BASE = "kind: Profile\nname: base\nimage: base:1\nargs: [-c, 1, --jinja]\nenv: {A: base, B: base}\nprobe: /up\n"
SLOT = f"{MODEL}---\nkind: Slot\nname: chat\nmodel: m\n"


def profile(name: str, text: str) -> str:
    return f"---\nkind: Profile\nname: {name}\n{text}"


def spec(profiles: str, slot: str = "profile: own\n") -> SlotSpec:
    found = desired(f"{SLOT}{slot}---\n{BASE}{profiles}")
    assert not found.problems, [str(problem) for problem in found.problems]
    return found.slots["chat"].spec


def problems(profiles: str, slot: str = "profile: own\n") -> list[str]:
    return [str(problem) for problem in desired(f"{SLOT}{slot}---\n{BASE}{profiles}").problems]


def test_what_a_profile_does_not_say_is_that_of_the_one_it_extends() -> None:
    found = spec(profile("own", "extends: base\nargs: [--ctx-size, 2]\nenv: {B: own}\n"))
    assert (found.profile, found.image, found.probe) == ("own", "base:1", "/up")
    assert found.args == ("--jinja", "--ctx-size", "2")
    assert found.env == {"A": "base", "B": "own"}


def test_what_a_profile_says_wins_although_it_is_the_default() -> None:
    assert spec(profile("own", "extends: base\nprobe: /health\nimage: own:1\n")).probe == "/health"


def test_a_list_takes_the_place_of_the_other() -> None:
    text = profile("mid", "extends: base\ndevices: [/dev/a]\n") + profile("own", "extends: mid\ndevices: [/dev/b]\n")
    assert spec(text).devices == ("/dev/b",)
    assert spec(profile("own", "extends: base\nmounts: []\n")).mounts == ()


def test_chains_end_with_the_last_and_the_slot_wins_over_all() -> None:
    text = profile("mid", "extends: base\nargs: [-c, 2, -b, 2]\nenv: {A: mid}\n")
    text += profile("own", "extends: mid\nargs: [-b, 3]\n")
    found = spec(text, "profile: own\nargs: [--ctx-size, 4]\nenv: {B: slot}\n")
    assert found.args == ("--jinja", "-b", "3", "--ctx-size", "4")
    assert found.env == {"A": "mid", "B": "slot"}


def test_a_seed_can_be_extended_by_another_name_and_by_its_own() -> None:
    for name, slot in (("own", "profile: own\n"), ("llama-server-vulkan", "device: gpu-vulkan\n")):
        found = spec(profile(name, "extends: llama-server-vulkan\nimage: mine:1\n"), slot)
        assert (found.image, found.devices) == ("mine:1", ("/dev/dri",))
        assert found.args == ("--n-gpu-layers", "999")


def test_a_seed_that_is_replaced_is_what_others_extend() -> None:
    text = profile("llama-server-cpu", "image: mine:1\n") + profile("own", "extends: llama-server-cpu\n")
    assert spec(text).image == "mine:1"


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("extends: bass\n", "test.yaml:19: extends: no Profile 'bass' (did you mean 'base'?)"),
        ("extends: own\n", "test.yaml:19: extends: a profile can't extend itself (only one that replaces a seed may)"),
        (
            "extends: base\nengine: vllm\n",
            (
                "test.yaml:20: engine: 'base', which this extends, is for llama-server"
                " (the flags of one engine are not those of another)"
            ),
        ),
    ],
)
def test_what_can_not_be_extended_is_named_where_it_is_written_and_at_the_slot(text: str, error: str) -> None:
    assert problems(profile("own", text)) == [f"test.yaml:8: profile: profile 'own' is wrong: {error}", error]


def test_an_error_is_said_once_however_many_profiles_lead_to_it() -> None:
    text = profile("own", "extends: nowhere\n") + profile("b", "extends: own\n") + profile("c", "extends: b\n")
    assert len(problems(text, "")) == 1


def test_a_circle_is_named_at_each_of_its_profiles() -> None:
    text = profile("a", "extends: b\n") + profile("b", "extends: a\n") + profile("c", "extends: a\n")
    assert problems(text, "") == [
        "test.yaml:18: extends: profiles extend each other: a -> b -> a",
        "test.yaml:22: extends: profiles extend each other: b -> a -> b",
    ]


def test_an_engine_is_taken_over_with_the_rest() -> None:
    text = profile("whisper", "engine: whisper-server\nimage: w:1\n") + profile("own", "extends: whisper\n")
    assert spec(text).engine is Engine.WHISPER_SERVER


# Flags that never go together


@pytest.mark.parametrize(
    ("slot", "own", "error"),
    [
        ("type: embedding\nargs: [--jinja, --rerank]\n", "", "9: args[1]: --embedding and --rerank never go together"),
        ("args: [--reranking, --embeddings]\n", "", "8: args[1]: --reranking and --embeddings never go together"),
        ("type: reranking\n", "args: [--embeddings]\n", "9: profile: --reranking and --embeddings never go together"),
    ],
)
def test_embedding_and_reranking_are_two_slots(slot: str, own: str, error: str) -> None:
    found = problems(profile("own", f"extends: base\n{own}"), f"{slot}profile: own\n")
    assert found == [f"test.yaml:{error} (one engine does one of them: declare two slots)"]
