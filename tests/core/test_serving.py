from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import Data, resolved, worlds
from worlds import MODEL, desired

from hal0.core.differences import differences
from hal0.core.documents import Document, parse_file
from hal0.core.endpoints import ENDPOINTS
from hal0.core.schema import Abort
from hal0.core.spec import Desired, HostFacts, HostSpec, Serving, SlotSpec
from hal0.core.validate import validate

EMBED = "kind: Slot\nname: embed\nmodel: m\n"
LLAMA_SERVER = {"/v1/rerankings": "/v1/rerank", "/v1/tokenize": "/tokenize", "/v1/infill": "/infill"}
SLOT = "kind: Slot\nname: chat\nmodel: m\n"
UPSTREAM = "kind: Upstream\nname: up\nbase_url: http://h/v1\n"


def wanted(slot: str = "", *others: str) -> Desired:
    found = desired("---\n".join([MODEL, SLOT + slot, EMBED, *others]))
    assert not found.problems, [str(problem) for problem in found.problems]
    return found


def serving(slot: str = "", *others: str) -> Serving:
    return wanted(slot, *others).slots["chat"].spec.serving


def problems(text: str) -> list[str]:
    return [str(problem) for problem in desired(text).problems]


# Keys.

_ENGINES = "/v1/rerankings=/v1/rerank, /v1/tokenize=/tokenize"
KEYS: dict[str, tuple[str, object, str]] = {
    "load_wait": ("load_wait: 1m\n", 60.0, "load_wait: none -> 60"),
    "queue": ("queue: 0\n", 0, "queue: 1024 -> 0"),
    "concurrency": ("concurrency: 4\n", 4, "concurrency: 512 -> 4"),
    "max_keep_alive": ("max_keep_alive: 0\n", 0.0, "max_keep_alive: none -> 0"),
    "abort": ("abort: drain\n", Abort.DRAIN, "abort: cancel -> drain"),
    "drain_timeout": ("drain_timeout: 90\n", 90.0, "drain_timeout: 30 -> 90"),
    "strip": ("strip: [logprobs, a b]\n", ("logprobs", "a b"), "strip: none -> logprobs a b"),
    "set": ("set: {top_k: 1, stop: [x]}\n", {"top_k": 1, "stop": ["x"]}, "set: none -> top_k=1, stop=['x']"),
    "fallback": ("fallback: [embed, hal0/embed]\n", ("embed", "hal0/embed"), "fallback: none -> embed hal0/embed"),
    "paths": (
        "profile: own\n---\nkind: Profile\nname: own\nimage: ggml-org/llama.cpp:server\npaths: {/v1/infill: /fim}\n",
        LLAMA_SERVER | {"/v1/infill": "/fim"},
        f"paths: {_ENGINES}, /v1/infill=/infill -> {_ENGINES}, /v1/infill=/fim",
    ),
}


def test_a_slot_that_says_nothing_is_served_by_the_defaults() -> None:
    assert serving() == Serving(paths=LLAMA_SERVER)
    assert {field.name for field in fields(Serving)} == set(KEYS)


@pytest.mark.parametrize("key", KEYS)
def test_each_key_reaches_what_the_dispatcher_reads(key: str) -> None:
    text, value, _ = KEYS[key]
    changes: dict[str, Any] = {key: value}
    assert serving(text) == replace(serving(), **changes)


@pytest.mark.parametrize("key", KEYS)
def test_a_change_of_serving_is_a_new_generation_and_no_other_command_or_definition(key: str) -> None:
    before, after = wanted(), wanted(KEYS[key][0])
    assert after.content != before.content
    assert after.slots["chat"].launch == before.slots["chat"].launch
    assert after.slots["chat"].body == before.slots["chat"].body


@pytest.mark.parametrize("key", KEYS)
def test_a_difference_of_serving_is_told_by_its_key(key: str) -> None:
    text, _, told = KEYS[key]
    reasons = {str(reason) for reason in differences(wanted().slots["chat"].spec, wanted(text).slots["chat"].spec)}
    assert reasons == {told} | ({"profile: llama-server-cpu -> own"} if key == "paths" else set())


def test_keys_of_serving_and_of_the_command_line_are_told_together() -> None:
    before, after = wanted().slots["chat"].spec, wanted("queue: 1\ncontext_size: 9\n").slots["chat"].spec
    assert {reason.field for reason in differences(before, after)} == {"queue", "context_size"}
    assert list(differences(before, before)) == []


@settings(max_examples=40, deadline=None)
@given(worlds())
def test_no_key_that_only_the_dispatcher_reads_is_seen_by_an_engine(
    world: tuple[HostFacts, list[Data], Desired],
) -> None:
    facts, datas, found = world
    read = {field.name for field in fields(Serving)}
    plain = resolved(({key: value for key, value in data.items() if key not in read} for data in datas), facts)
    for name, slot in found.slots.items():
        other = plain.slots[name]
        assert (other.launch, other.body) == (slot.launch, slot.body)
        told = {reason.field for reason in differences(other.spec, slot.spec)}
        assert told == {key for key in read if getattr(other.spec.serving, key) != getattr(slot.spec.serving, key)}
    is_same = specs(plain) == specs(found) and plain.upstreams == found.upstreams
    assert (plain.content == found.content) is is_same


def specs(found: Desired) -> dict[str, SlotSpec]:
    return {name: slot.spec for name, slot in found.slots.items()}


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("load_wait: soon", "load_wait: is not a duration: write it like 90s, 15m or 1h30m"),
        ("load_wait: -1", "load_wait: is not a duration"),
        ("queue: -1", "queue: input should be greater than or equal to 0"),
        ("queue: many", "queue: input should be a valid integer"),
        ("queue: true", "queue: input should be a valid integer"),
        ("concurrency: 0", "concurrency: input should be greater than or equal to 1"),
        ("concurrency: 1.5", "concurrency: input should be a valid integer"),
        ("max_keep_alive: -1s", "max_keep_alive: is not a duration"),
        ("abort: stop", "abort: 'stop' is not one of cancel, drain"),
        ("abort: drian", "abort: 'drian' is not one of cancel, drain (did you mean 'drain'?)"),
        ("drain_timeout: []", "drain_timeout: is not a duration"),
        ("strip: temperature", "strip: input should be a valid list"),
        ("strip: [1]", "strip[0]: input should be a valid string"),
        ('strip: ["a\\nb"]', "strip[0]: must be one line, without NUL"),
        ("set: [a]", "set: input should be a valid dictionary"),
        ("fallback: embed", "fallback: input should be a valid list"),
        ("fallback: ['']", "fallback[0]: '' does not fit "),
    ],
)
def test_a_wrong_value_is_named_with_its_line(text: str, error: str) -> None:
    (found,) = problems(f"{SLOT}{text}\n---\n{MODEL}")
    assert found.startswith(f"test.yaml:4: {error}")


# Profiles and the host.


@pytest.mark.parametrize(
    ("profile", "paths"),
    [
        ("engine: llama-server", LLAMA_SERVER),
        ("engine: custom", {"/v1/rerankings": "/v1/rerank"}),
        (
            "paths: {/v1/rerankings: /r, /v1/embeddings: /e}",
            LLAMA_SERVER | {"/v1/rerankings": "/r", "/v1/embeddings": "/e"},
        ),
        ("engine: custom\npaths: {/v1/rerankings: /v1/rerankings}", {"/v1/rerankings": "/v1/rerankings"}),
    ],
)
def test_a_profiles_paths_win_over_those_of_its_engine(profile: str, paths: dict[str, str]) -> None:
    assert serving("profile: own\n", f"kind: Profile\nname: own\nimage: i\n{profile}\n").paths == paths
    assert set(LLAMA_SERVER) <= set(ENDPOINTS)


@pytest.mark.parametrize("text", ["{v1: /a}", "{/v1/rerank: a}", '{"/a b": /a}', '{/a: "/a\\n"}', "[/a]", "{/a: 1}"])
def test_what_is_no_path_is_refused(text: str) -> None:
    (found,) = problems(f"kind: Profile\nname: own\nimage: i\npaths: {text}\n")
    assert found.startswith("test.yaml:4: paths")


@pytest.mark.parametrize(
    ("text", "changes"),
    [
        ("", {}),
        ("load_wait: 0\n", {"load_wait": 0.0}),
        ("load_wait: 10m\n", {"load_wait": 600.0}),
        ("max_body: 1Gi\n", {"max_body": 2**30}),
    ],
)
def test_the_hosts_keys_reach_what_the_dispatcher_reads(text: str, changes: Mapping[str, Any]) -> None:
    host = wanted("", f"kind: Host\n{text}").host
    assert host == replace(HostSpec(model_dir="/models"), **changes)
    assert (wanted("", f"kind: Host\n{text}").content == wanted().content) is (not changes)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("load_wait: long", "load_wait: is not a duration"),
        ("max_body: 0", "max_body: is not a size"),
        ("max_body: all", "max_body: is not a size: write it like 512Mi, 8Gi or 4G"),
    ],
)
def test_a_wrong_value_of_the_host_is_named_with_its_line(text: str, error: str) -> None:
    (found,) = problems(f"kind: Host\n{text}\n")
    assert found.startswith(f"test.yaml:2: {error}")


# Request parameters are JSON.

NOT_FINITE = [float("nan"), float("inf"), -float("inf")]
wrapped = st.recursive(
    st.sampled_from(NOT_FINITE).map(lambda number: (number, "")),
    lambda inner: (
        inner.map(lambda found: ([0.5, found[0]], f"[1]{found[1]}"))
        | inner.map(lambda found: ({"ok": 1.5, "a": found[0]}, f".a{found[1]}"))
    ),
    max_leaves=4,
)


@given(wrapped, st.sampled_from([("Slot", "defaults"), ("Slot", "set"), ("Model", "defaults")]))
def test_a_number_that_json_does_not_have_is_refused_wherever_it_stands(
    value: tuple[object, str], place: tuple[str, str]
) -> None:
    kind, key = place
    data = {"kind": kind, "name": "x", "model": "m", "path": "m", key: {"fine": 1.0, "top_p": value[0]}}
    data.pop("path" if kind == "Slot" else "model")
    good, errors = validate([Document("a.toml", data, 1, {(key,): 7})])
    assert not good
    assert [str(error) for error in errors] == [
        f"a.toml:7: {key}: top_p{value[1]} is not a finite number, and JSON has no other"
    ]


@pytest.mark.parametrize(("toml", "yaml"), [("nan", ".nan"), ("inf", ".inf"), ("-inf", "-.Inf"), ("+nan", ".NaN")])
@pytest.mark.parametrize("key", ["defaults", "set"])
def test_toml_and_yaml_have_more_numbers_than_a_manifest_may_hold(key: str, toml: str, yaml: str) -> None:
    toml = f'kind = "Slot"\nname = "x"\nmodel = "m"\n[{key}]\nok = 1.5\ntop_p = [{toml}]\n'
    yaml = f"kind: Slot\nname: x\nmodel: m\n{key}:\n  ok: 1.5\n  top_p: [{yaml}]\n"
    for file, text in (("a.toml", toml), ("a.yaml", yaml)):
        documents, errors = parse_file(file, text)
        assert not documents
        assert [str(error) for error in errors] == [f"{file}:6: is not a finite number"]


# Fallbacks.


@pytest.mark.parametrize(
    ("name", "others"),
    [
        ("embed", ()),
        ("hal0/embed", ()),
        ("m", ()),
        ("alias-of-embed", ()),
        ("alias-of-m", ()),
        ("up/anything", (UPSTREAM,)),
        ("up/x", (UPSTREAM + "models: [x]\n",)),
        ("x", (UPSTREAM + "models: [x]\n",)),
        ("p/anything/at:all", (UPSTREAM + "prefix: p/\n",)),
        ("anything", (UPSTREAM + "prefix: ''\n",)),
    ],
)
@pytest.mark.parametrize("is_upstreams", [True, False])
def test_a_fallback_is_a_name_that_leads_somewhere(name: str, others: tuple[str, ...], is_upstreams: bool) -> None:
    model = MODEL + "aliases: [alias-of-m]\n"
    embed = EMBED + "aliases: [alias-of-embed]\n"
    text = f"fallback: [embed, {name}]\n"
    owner = UPSTREAM.replace("up", "owner", 1) + text if is_upstreams else SLOT + text
    assert problems("---\n".join([model, embed, owner, *others])) == []


@pytest.mark.parametrize(
    ("name", "others", "hint"),
    [
        ("embbed", (), "did you mean 'embed'?"),
        ("nobody", (), "name a slot, a model, or upstream/model"),
        ("hal0/nobody", (), ""),
        ("hal0/m", (), ""),
        ("hal0/nobody", (UPSTREAM + "prefix: ''\n",), ""),
        ("unheld", ("kind: Model\nname: unheld\npath: u\n",), ""),
        ("up/x", (), ""),
        ("up/x", (UPSTREAM + "models: [y]\n",), "did you mean 'up/y'?"),
        ("x", (UPSTREAM,), "name a slot, a model, or upstream/model"),
        ("up/x", (UPSTREAM + "prefix: other/\n",), ""),
    ],
)
@pytest.mark.parametrize("is_upstreams", [True, False])
def test_a_fallback_that_leads_nowhere_is_named_with_its_line_and_a_hint(
    name: str, others: tuple[str, ...], hint: str, is_upstreams: bool
) -> None:
    owner = UPSTREAM.replace("up", "owner", 1) if is_upstreams else SLOT
    text = "---\n".join([f"{owner}fallback:\n- embed\n- {name}\n", MODEL, EMBED, *others])
    (found,) = problems(text)
    assert found.startswith(f"test.yaml:6: fallback[1]: nothing is called {name!r} (")
    assert hint in found


def test_a_slot_whose_fallback_leads_nowhere_keeps_what_it_had_and_the_others_go_on() -> None:
    before = wanted("fallback: [embed]\n")
    after = desired("---\n".join([MODEL, SLOT + "fallback: [gone]\n", EMBED + "queue: 1\n"]), before=before)
    assert after.slots["chat"].spec == before.slots["chat"].spec
    assert [problem.key for problem in after.slots["chat"].problems] == ["fallback[0]"]
    assert after.slots["embed"].spec.serving.queue == 1
    assert not after.slots["embed"].problems
