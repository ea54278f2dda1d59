"""Each part of a command line knows the line that it comes from."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import documents, host_facts, located, manifest_sets, resolved
from worlds import MODEL, SEEDS, desired

from hal0.core.documents import parse_file
from hal0.core.index import index
from hal0.core.origins import HAL0, KEPT, Told, givers, told
from hal0.core.profiles import profiles_of
from hal0.core.spec import Desired
from hal0.core.validate import validate

WORLD = f"""{MODEL}context_size: 64
---
kind: Profile
name: own
extends: llama-server-vulkan
mounts: ["/srv:/srv"]
env: {{A: own, B: own}}
args:
  - --temp
  - 1
  - --lora
  - a
  - -ngl
  - 7
---
kind: Slot
name: chat
model: m
profile: own
limits: {{memory: 1Gi}}
env: {{B: slot}}
args: [--threads=2, --temperature, 2, --lora, b]
"""


def rows(text: str) -> list[Told]:
    found = desired(text)
    assert not found.problems, [str(problem) for problem in found.problems]
    known = index(validate(parse_file("test.yaml", text)[0])[0], SEEDS)
    slot = found.slots["chat"]
    return list(told(slot.spec, givers(known, profiles_of(known), slot.spec), "systemd", found.host))


def origins(text: str) -> dict[str, str]:
    return {" ".join(row.words): str(row.origin) for row in rows(text)}


def test_each_part_is_told_by_the_line_where_it_is_written() -> None:
    found = origins(WORLD)
    assert found["--model /models/m.gguf"] == found["--volume=/models:/models:ro"] == "model m (test.yaml:3)"
    assert found["--ctx-size 64"] == "model m (test.yaml:4)"
    assert found["--memory=1073741824b"] == "slot chat (test.yaml:23)"
    assert found["--env=A=own"] == "profile own (test.yaml:10)"
    assert found["--env=B=slot"] == "slot chat (test.yaml:24)"
    assert found["--volume=/srv:/srv"] == "profile own (test.yaml:9)"
    assert found["--device=/dev/dri"] == found["ggml-org/llama.cpp:server-vulkan"] == "seed llama-server-vulkan"
    assert found["-ngl 7"] == "profile own (test.yaml:16)"
    assert found["--lora a"] == "profile own (test.yaml:14)"
    assert found["--lora b"] == found["--temperature 2"] == "slot chat (test.yaml:25)"
    assert found["/usr/bin/podman run"] == found["--read-only"] == found["--metrics"] == "hal0"


def test_a_default_is_hal0s_and_a_written_one_the_slots() -> None:
    assert origins(WORLD)["--publish=127.0.0.1:8081:8080"] == "hal0"
    found = origins(WORLD.replace("limits: ", "port: 8085\ncontext_size: 32\nlimits: "))
    assert found["--publish=127.0.0.1:8085:8080"] == "slot chat (test.yaml:23)"
    assert found["--ctx-size 32"] == "slot chat (test.yaml:24)"


def test_what_a_flag_replaced_is_told_with_it() -> None:
    found = {" ".join(row.words): [(" ".join(words), str(by)) for words, by in row.replaced] for row in rows(WORLD)}
    assert found["--temperature 2"] == [("--temp 1", "profile own (test.yaml:12)")]
    assert found["--threads=2"] == [("--threads 4", "hal0")]
    assert found["-ngl 7"] == [("--n-gpu-layers 999", "seed llama-server-vulkan")]
    assert {key for key, replaced in found.items() if replaced} == {"--temperature 2", "--threads=2", "-ngl 7"}


def test_a_spec_that_was_kept_is_told_as_that() -> None:
    found = desired(WORLD)
    kept = list(told(found.slots["chat"].spec, None, "systemd", found.host))
    assert {row.origin for row in kept} == {HAL0, KEPT}
    assert [row.words for row in kept] == [row.words for row in rows(WORLD)]


@st.composite
def declared(draw: st.DrawFn) -> tuple[Desired, list[list[Told]]]:
    """Return a world, and for each of its slots what is told of it."""
    facts = draw(host_facts())
    datas = draw(manifest_sets(facts, max_slots=2))
    found = resolved(datas, facts)
    known = index(located(documents(datas)), SEEDS)
    profiles = profiles_of(known)
    specs = [slot.spec for slot in found.slots.values()]
    return found, [[*told(spec, givers(known, profiles, spec), facts.runtime, found.host)] for spec in specs]


@settings(max_examples=60, deadline=None)
@given(declared())
def test_what_is_told_is_what_is_executed(world: tuple[Desired, list[list[Told]]]) -> None:
    found, tellings = world
    for slot, rows_of_it in zip(found.slots.values(), tellings, strict=True):
        assert tuple(word for row in rows_of_it for word in row.words) == slot.launch.argv
        assert KEPT not in {row.origin for row in rows_of_it}
