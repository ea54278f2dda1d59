from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter
from worlds import SEEDS, desired, slots
from written import block_yaml

from hal0.core.capability import CHILDREN, CapabilityName, children_of
from hal0.core.documents import parse_file
from hal0.core.index import index
from hal0.core.kinds import ManifestUnion
from hal0.core.registry import model_spec
from hal0.core.schema import Fetch, ModelManifest, RunPolicy, SlotType
from hal0.core.validate import Located, validate

MODEL = "kind: Model\nname: m\npath: m.gguf\n"
SEEING = "kind: Model\nname: m\npath: m.gguf\nmmproj: eyes.gguf\n"


def manifest(name: str, *lines: str) -> str:
    return "".join(f"{line}\n" for line in ("kind: Capability", f"name: {name}", *lines))


def errors_of(*texts: str) -> list[str]:
    return [str(problem) for problem in desired("---\n".join(texts)).problems]


# What is on becomes ordinary slots.


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.sampled_from(sorted(CHILDREN)), st.sampled_from([True, False, {"model": "m"}])))
def test_exactly_the_children_that_are_on_are_slots_of_their_types_and_the_two_flags_never_meet(
    switches: dict[str, bool | dict[str, str]],
) -> None:
    named = {CHILDREN[name].capability for name in switches}
    datas = [
        {"kind": "Capability", "name": str(capability)}
        | {name: value for name, value in switches.items() if CHILDREN[name].capability == capability}
        for capability in named
    ]
    found = desired(f"{SEEING}---\n{block_yaml(datas)}")
    assert found.problems == ()
    assert set(found.slots) == {name for name, value in switches.items() if value}
    for name, slot in found.slots.items():
        assert (slot.spec.name, slot.spec.type, slot.spec.run) == (name, CHILDREN[name].type, RunPolicy.ON_DEMAND)
        assert slot.spec.model == (CHILDREN[name].model if switches[name] is True else "m")
        flags = {"--embedding", "--reranking"} & set(slot.launch.argv)
        assert flags == {SlotType.EMBEDDING: {"--embedding"}, SlotType.RERANKING: {"--reranking"}}.get(
            slot.spec.type, set()
        )


def test_a_child_says_what_a_slot_says_and_is_the_same_slot() -> None:
    keys = "model: m, run: always, port: 9001, context_size: 512, args: [--parallel, 2], limits: {memory: 1Gi}"
    child = desired(f"{MODEL}---\n{manifest('embed', f'embed: {{{keys}}}')}").slots["embed"]
    slot = desired(f"{MODEL}---\n{{kind: Slot, name: embed, type: embedding, {keys}}}\n").slots["embed"]
    assert child.spec_hash == slot.spec_hash
    assert replace(child.spec, source="") == replace(slot.spec, source="")


def test_a_child_is_located_at_its_own_lines() -> None:
    text = manifest("embed", "# the one", "embed:", "  model: m", "rerank: true")
    found = desired(f"{text}---\n{MODEL}")
    assert found.slots["embed"].spec.source == "test.yaml:4"
    assert found.slots["rerank"].spec.source == "test.yaml:6"


@pytest.mark.parametrize("name", list(CapabilityName))
def test_every_child_has_a_seed_model_that_nobody_fetches_unasked(name: CapabilityName) -> None:
    models = {seed.manifest.name: seed for seed in SEEDS if isinstance(seed.manifest, ModelManifest)}
    for child in children_of(name):
        seed = models[CHILDREN[child].model]
        assert isinstance(seed.manifest, ModelManifest)
        spec = model_spec(Located(seed.manifest, seed.document), "/models")
        assert spec.fetch is Fetch.MANUAL or spec.download is None
        assert bool(spec.mmproj) == CHILDREN[child].sees


def test_only_the_seed_models_that_slots_name_are_declared() -> None:
    found = desired(manifest("embed", "embed: true", "rerank: false"))
    assert set(found.registry) == set(found.models) == {"nomic-embed-text-v1.5"}
    assert found.registry["nomic-embed-text-v1.5"].place.startswith("seed:models.yaml:")
    assert found.download(found.slots["embed"].spec) is None
    assert found.mend(found.slots["embed"].spec) == "hal0 model pull nomic-embed-text-v1.5"
    assert set(desired(slots("chat")).registry) == {"m"}


@pytest.mark.parametrize("names", ["name: whisper-base", "name: own\naliases: [whisper-base]"])
def test_a_model_that_is_declared_takes_the_place_of_a_seed_of_its_name(names: str) -> None:
    found = desired(f"kind: Model\n{names}\npath: own.bin\n---\n{manifest('voice', 'stt: true')}")
    assert found.slots["stt"].spec.model_path == "/models/own.bin"
    assert set(found.registry) == {names.split()[1]}


# What is wrong.


@pytest.mark.parametrize(
    ("lines", "error"),
    [
        (["embed:", "  modle: m"], "4: embed.modle: unknown key (did you mean 'model'?)"),
        (["embed: {device: gpu}"], "3: embed.device: 'gpu' is not one of cpu, "),
        (["rerank: true", "embed: {model: mm}"], "4: embed.model: no Model 'mm' (did you mean 'm'?)"),
        (["embed:", "  model: m", "  profile: p"], "5: embed.profile: no Profile 'p' (known: "),
        (["embed:", "  model: m", "  args: [--reranking]"], "5: embed.args[0]: --embedding and --reranking never go "),
        (["embed:", "  model: m", "  port: 8080"], "5: embed.port: port 8080 is hal0's own"),
        (["embed:", "  model: m", "  name: e"], "3: embed: name: the child's name says that: leave it out"),
        (["embed: {type: llm, kind: Slot}"], "3: embed: kind, type: the child's name says that: leave it out"),
        (["embed: 1"], "3: embed: write true, false, or a table of a slot's keys"),
        (["embed: yes please"], "3: embed: write true, false, or a table of a slot's keys"),
        (["embed:"], "3: embed: write true, false, or a table of a slot's keys"),
        (["embed: true", "stt: true"], "4: stt: is no part of embed (it is of capability voice)"),
        (["rerankk: true"], "3: rerankk: unknown key (did you mean 'rerank'?)"),
        ([], "2: name: turns nothing on (say what: embed: true or rerank: true)"),
    ],
)
def test_what_is_wrong_with_a_child_is_named_with_its_line(lines: list[str], error: str) -> None:
    (found,) = errors_of(manifest("embed", *lines), MODEL)
    assert found.startswith(f"test.yaml:{error}")


def test_what_is_no_child_of_a_capability_is_no_slot() -> None:
    assert set(desired(manifest("embed", "embed: true", "stt: true")).slots) == {"embed"}


def test_a_capability_that_is_none_is_named_with_the_nearest() -> None:
    (found,) = errors_of(manifest("voise", "stt: true"))
    assert found == "test.yaml:2: name: 'voise' is not one of embed, voice, img, vision (did you mean 'voice'?)"


def test_a_slot_of_a_childs_name_clashes_with_it_at_both_places() -> None:
    found = errors_of(manifest("embed", "embed: true"), "kind: Slot\nname: embed\nmodel: m\n", MODEL)
    assert "test.yaml:3: embed.name: Slot 'embed' is declared twice: also at test.yaml:5" in found
    assert "test.yaml:6: name: Slot 'embed' is declared twice: also at test.yaml:3" in found


def test_a_capability_that_is_declared_twice_is_an_error_at_both_places_and_no_other() -> None:
    text = manifest("img", "img: true")
    assert errors_of(text, text) == [
        "test.yaml:2: name: Capability 'img' is declared twice: also at test.yaml:5",
        "test.yaml:6: name: Capability 'img' is declared twice: also at test.yaml:1",
    ]


def test_vision_is_an_llm_whose_model_sees() -> None:
    (found,) = errors_of(manifest("vision", "vision: {model: m}"), MODEL)
    assert found.startswith(
        "test.yaml:3: vision.model: Model 'm' has no vision part (write `mmproj` into its manifest, "
    )
    assert "test.yaml:5" in found
    slot = desired(f"{manifest('vision', 'vision: {model: m}')}---\n{SEEING}").slots["vision"]
    assert slot.spec.type is SlotType.LLM
    assert "--mmproj" in slot.launch.argv
    assert errors_of("kind: Slot\nname: vision\nmodel: m\n", MODEL) == []


def test_a_child_whose_manifest_is_broken_keeps_its_last_good_spec() -> None:
    before = desired(f"{manifest('embed', 'embed: {model: m}', 'rerank: true')}---\n{MODEL}")
    for line in ("embed: {model: lost}", "embed: {modle: m}"):
        after = desired(f"{manifest('embed', line, 'rerank: true')}---\n{MODEL}", before=before)
        assert after.slots["embed"].spec.model == "m"
        assert [problem.key for problem in after.slots["embed"].problems] == [f"embed.{line[8:13]}"]
    assert after.slots["rerank"].spec.model == "bge-reranker-v2-m3"


# What editors and other views make of it.


def test_editors_are_told_the_keys_of_a_child() -> None:
    tree = TypeAdapter(ManifestUnion).json_schema()
    child = tree["$defs"]["CapabilityManifest"]["properties"]["embed"]
    flag, table = child["anyOf"]
    assert flag == {"type": "boolean"}
    assert {"model", "device", "run", "args"} <= set(table["properties"])
    assert not {"kind", "name", "type"} & set(table["properties"])
    assert "required" not in table
    assert table["properties"]["run"]["default"] == "on-demand"


def test_a_child_is_looked_up_as_a_slot_with_its_own_keys() -> None:
    (document,), _ = parse_file("a.yaml", manifest("embed", "embed: {model: m}", "rerank: true"))
    known = index(validate([document])[0], SEEDS)
    assert known.slots["embed"].data == {"model": "m"}
    assert known.slots["rerank"].data == {}
    assert known.capabilities["embed"].data == document.data
