from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import Data, documents, located, resolved, words, worlds
from worlds import FACTS, MODEL, SEEDS, TEMPLATES

from hal0.core.documents import ManifestError, parse_file
from hal0.core.launch import qualified_image
from hal0.core.resolve import resolve
from hal0.core.schema import Device, DriftPolicy, Engine, RunPolicy, SlotType
from hal0.core.spec import Desired, HostFacts, Serving, SlotSpec
from hal0.core.validate import validate

CHAT = "kind: Slot\nname: chat\nmodel: m\n"
EMBED = "kind: Slot\nname: embed\nmodel: m\n"
TWO = {"model.yaml": MODEL, "chat.yaml": CHAT, "embed.yaml": EMBED}
DECLARE = "declare it: hal0 model scan --write if its file is there, else hal0 model pull OWNER/REPO/FILE"
PROCESS = replace(FACTS, runtime="process")


def desire(
    files: Mapping[str, str] | str,
    *,
    facts: HostFacts = FACTS,
    last_good: Mapping[str, SlotSpec] | None = None,
    errors: tuple[ManifestError, ...] = (),
) -> Desired:
    """Resolve files of manifests, or the text of one."""
    parsed = [parse_file(*file) for file in ({"a.yaml": files} if isinstance(files, str) else files).items()]
    good, invalid = validate(document for found, _ in parsed for document in found)
    wrong = [*errors, *(error for _, found in parsed for error in found), *invalid]
    return resolve(good, wrong, seeds=SEEDS, facts=facts, templates=TEMPLATES, last_good=last_good)


def specs(found: Desired) -> dict[str, SlotSpec]:
    return {name: slot.spec for name, slot in found.slots.items()}


def ports(found: Desired) -> dict[str, int]:
    return {name: slot.spec.port for name, slot in found.slots.items()}


def problems(found: Desired) -> list[str]:
    return [str(problem) for problem in found.problems]


def spec_of(text: str, facts: HostFacts = FACTS) -> SlotSpec:
    found = desire(MODEL + "---\n" + text, facts=facts)
    assert not found.problems
    return found.slots["chat"].spec


# Defaults


def test_the_least_slot_has_every_default_made_explicit() -> None:
    assert spec_of(CHAT) == SlotSpec(
        name="chat",
        type=SlotType.LLM,
        model="m",
        model_path="/models/m.gguf",
        profile="llama-server-cpu",
        engine=Engine.LLAMA_SERVER,
        device=Device.CPU,
        run=RunPolicy.ALWAYS,
        port=8081,
        context_size=None,
        aliases=(),
        idle_timeout=900.0,
        env={},
        args=(),
        memory=None,
        cpus=None,
        threads=4,
        defaults={},
        suspend=False,
        drift=DriftPolicy.HEAL,
        image="ggml-org/llama.cpp:server",
        entrypoint="",
        command=(),
        devices=(),
        groups=(),
        mounts=(),
        container_port=8080,
        probe="/health",
        start_deadline=600.0,
        stop_timeout=20.0,
        source="a.yaml:5",
        serving=Serving(paths={"/v1/rerankings": "/v1/rerank", "/v1/tokenize": "/tokenize", "/v1/infill": "/infill"}),
    )


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("context_size", "", 4096),
        ("context_size", "context_size: 512", 512),
        ("defaults", "defaults: {top_k: 5}", {"temperature": 0.5, "top_k": 5}),
        ("defaults", "defaults: {temperature: 1}", {"temperature": 1, "top_k": 1}),
        ("env", "env: {B: own}", {"A": "profile", "B": "own"}),
        ("args", "args: [--own]", ("--profile", "--own")),
        ("model", "", "m"),
        ("memory", "limits: {memory: 1Gi}", 2**30),
        ("idle_timeout", "idle_timeout: 1m", 60.0),
        ("sleep_after", "sleep_after: 1m", 60.0),
        ("sleep_after", "", None),
    ],
)
def test_what_a_slot_says_wins_over_its_model_and_its_profile(key: str, text: str, value: object) -> None:
    model = "kind: Model\nname: m\naliases: [n]\npath: m\ncontext_size: 4096\ndefaults: {temperature: 0.5, top_k: 1}\n"
    profile = "kind: Profile\nname: own\nimage: i\nargs: [--profile]\nenv: {A: profile, B: profile}\n"
    slot = "kind: Slot\nname: chat\nmodel: n\nprofile: own\n" + text
    found = desire(f"{model}---\n{profile}---\n{slot}\n")
    assert getattr(found.slots["chat"].spec, key) == value


@pytest.mark.parametrize(
    ("cpus", "limit", "threads"),
    [(4, None, 4), (4, 2, 2), (4, 2.9, 2), (4, 0.2, 1), (4, 16, 4), (0.5, None, 1), (2.5, None, 2)],
)
def test_threads_follow_the_cpus_and_the_limit(cpus: float, limit: float | None, threads: int) -> None:
    text = CHAT + (f"limits: {{cpus: {limit}}}\n" if limit else "")
    assert spec_of(text, replace(FACTS, cpus=cpus)).threads == threads


@pytest.mark.parametrize(
    ("device", "facts", "profile"),
    [
        ("cpu", FACTS, "llama-server-cpu"),
        ("gpu-vulkan", FACTS, "llama-server-vulkan"),
        ("gpu-rocm", FACTS, "llama-server-rocm"),
        ("gpu-cuda", FACTS, "llama-server-cuda"),
        ("cpu", PROCESS, "embedded"),
    ],
)
def test_every_device_has_a_seed_profile(device: str, facts: HostFacts, profile: str) -> None:
    assert spec_of(CHAT + f"device: {device}\n", facts).profile == profile


def test_the_process_runtime_has_a_command_and_no_image() -> None:
    spec = spec_of(CHAT, PROCESS)
    assert spec.command[0] == PROCESS.python
    assert spec.image == ""
    assert spec_of(CHAT).command == ()


def test_a_profile_of_a_seeds_name_replaces_it() -> None:
    spec = spec_of(CHAT + "---\nkind: Profile\nname: llama-server-cpu\nimage: mine:1\n")
    assert (spec.profile, spec.image) == ("llama-server-cpu", "mine:1")


@pytest.mark.parametrize(
    ("path", "model_dir", "found"),
    [
        ("m.gguf", None, "/models/m.gguf"),
        ("sub/./m.gguf", None, "/models/sub/m.gguf"),
        ("../m.gguf", None, "/m.gguf"),
        ("/data/m.gguf", None, "/data/m.gguf"),
        ("m.gguf", "/data/", "/data/m.gguf"),
        ("m.gguf", "below", "/models/below/m.gguf"),
    ],
)
def test_a_models_path_is_below_the_model_directory(path: str, model_dir: str | None, found: str) -> None:
    host = f"kind: Host\nmodel_dir: {model_dir}\n---\n" if model_dir else ""
    assert desire(host + f"kind: Model\nname: m\npath: {path}\n---\n" + CHAT).slots["chat"].spec.model_path == found


@pytest.mark.parametrize(
    ("rootless", "groups", "found"),
    [
        (False, "[video, render]", ("44", "105")),
        (False, "[video, nobody-has-this]", ("44",)),
        (False, "['7', nobody-has-this]", ("7",)),
        (True, "[video, nobody-has-this]", ("keep-groups",)),
        (True, "[]", ()),
        (False, "[]", ()),
    ],
)
def test_groups_are_the_hosts_ids_and_rootless_the_users_own(
    rootless: bool, groups: str, found: tuple[str, ...]
) -> None:
    facts = replace(FACTS, groups={"video": 44, "render": 105}, rootless=rootless)
    text = CHAT + f"profile: own\n---\nkind: Profile\nname: own\nimage: i\ngroups: {groups}\n"
    assert spec_of(text, facts).groups == found


@pytest.mark.parametrize(
    ("image", "registry", "found"),
    [
        ("engine:1", "", "engine:1"),
        ("engine:1", "registry.example", "registry.example/engine:1"),
        ("org/engine:1", "registry.example/mirror/", "registry.example/mirror/org/engine:1"),
        ("other.example/engine", "registry.example", "other.example/engine"),
        ("host:5000/engine", "registry.example", "host:5000/engine"),
        ("localhost/engine", "registry.example", "localhost/engine"),
        ("org/engine@sha256:0", "registry.example", "registry.example/org/engine@sha256:0"),
    ],
)
def test_only_an_image_without_a_registry_gets_the_hosts(image: str, registry: str, found: str) -> None:
    assert qualified_image(image, registry) == found


def test_the_hosts_registry_is_that_of_the_seed_profiles_too() -> None:
    spec = spec_of(CHAT + "---\nkind: Host\nimage_registry: registry.example\n")
    assert spec.image == "registry.example/ggml-org/llama.cpp:server"


# References and claims


@pytest.mark.parametrize(
    ("text", "facts", "problem"),
    [
        ("model: mm", FACTS, "7: model: no Model 'mm' (did you mean 'm'?)"),
        ("model: other", FACTS, f"7: model: no Model 'other' ({DECLARE})"),
        ("model: m\nprofile: llama-server-cpi", FACTS, "8: profile: no Profile 'llama-server-cpi' (did you mean "),
        ("model: m\nprofile: x", FACTS, "8: profile: no Profile 'x' (known: embedded, kokoro-cpu, "),
        (
            "model: m\ndevice: npu",
            FACTS,
            "8: device: device npu has no seed profile for type llm (name a profile of your own)",
        ),
        ("model: m\nprofile: embedded", FACTS, "8: profile: profile 'embedded' has no image, which the systemd "),
        ("model: m\ndevice: gpu-rocm", PROCESS, "5: profile: profile 'llama-server-rocm' has no command, which the "),
    ],
)
def test_a_reference_that_leads_nowhere_is_named_with_a_hint(text: str, facts: HostFacts, problem: str) -> None:
    found = desire(MODEL + "---\nkind: Slot\nname: chat\n" + text, facts=facts)
    assert [text.startswith(f"a.yaml:{problem}") for text in problems(found)] == [True]
    assert not found.slots


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "run: on-demand\nidle_timeout: 5m\nsleep_after: 300",
            "sleep_after: the slot is stopped after 5m unused, before it would sleep",
        ),
        ("profile: p\nsleep_after: 1m", "sleep_after: profile 'p' has an engine that hal0 can't tell to sleep"),
        ("sleep_after: 0.5s", "sleep_after: input should be greater than or equal to 1"),
    ],
)
def test_a_slot_that_would_never_sleep_is_refused(text: str, problem: str) -> None:
    profile = "---\nkind: Profile\nname: p\nengine: custom\nimage: i\n"
    found = desire(MODEL + "---\n" + CHAT + text + "\n" + profile)
    assert [problem in text for text in problems(found)] == [True]
    assert not found.slots


@pytest.mark.parametrize("text", ["run: on-demand\nidle_timeout: 5m\nsleep_after: 299", "sleep_after: 4h"])
def test_a_slot_may_sleep_before_it_is_stopped_or_if_it_never_is(text: str) -> None:
    assert spec_of(CHAT + text + "\n").sleep_after in {299.0, 14400.0}


def test_every_broken_reference_of_a_slot_is_named_at_once() -> None:
    assert len(desire("kind: Slot\nname: chat\nmodel: m\nprofile: x\n").problems) == 2


@pytest.mark.parametrize(
    ("first", "second", "claim"),
    [
        ("name: chat\nport: 8085", "name: embed\nport: 8085", "port: port 8085 is claimed twice"),
        ("name: chat\naliases: [x, y]", "name: embed\naliases: [y]", "'y' is claimed twice"),
        ("name: chat\naliases: [embed]", "name: embed", "'embed' is claimed twice"),
        ("name: chat", "name: chat", "name: Slot 'chat' is declared twice"),
    ],
)
def test_of_two_slots_that_claim_one_thing_both_are_blamed(first: str, second: str, claim: str) -> None:
    files = {f"{at}.yaml": f"kind: Slot\nmodel: m\n{text}\n" for at, text in enumerate([first, second])}
    found = desire({"model.yaml": MODEL, **files})
    assert not found.slots
    blamed = [problem for problem in problems(found) if claim in problem]
    assert len(blamed) == 2
    assert blamed[0].startswith("0.yaml:")
    assert blamed[0].endswith("also at 1.yaml:1")
    assert blamed[1].startswith("1.yaml:")
    assert blamed[1].endswith("also at 0.yaml:1")


def test_a_slot_that_repeats_its_own_name_as_an_alias_is_told_so() -> None:
    found = desire(MODEL + "---\n" + CHAT + "aliases: [chat]\n")
    assert problems(found) == [
        "a.yaml:6: name: 'chat' is claimed twice: also at a.yaml:5",
        "a.yaml:8: aliases[0]: 'chat' is claimed twice: also at a.yaml:5",
    ]


def test_a_second_host_and_a_model_alias_that_is_taken_are_named_and_the_slots_go_on() -> None:
    hosts = {"h1.yaml": "kind: Host\n", "h2.yaml": "kind: Host\nlisten: 0.0.0.0:1\n"}
    taken = {"n.yaml": "kind: Model\nname: n\npath: n\naliases: [m]\n"}
    found = desire({**TWO, **hosts, **taken})
    assert problems(found) == [
        "h2.yaml:1: kind: a second Host: the first is h1.yaml:1",
        "n.yaml:4: aliases[0]: 'm' is taken by model.yaml:1",
    ]
    assert set(found.slots) == {"chat", "embed"}
    assert found.host.listen == "127.0.0.1:8080"
    assert found.models == {"m": "m", "n": "n"}


# Ports


def test_slots_get_the_next_free_ports_in_the_order_of_their_names() -> None:
    assert ports(desire({**TWO, "b.yaml": "kind: Slot\nname: b\nmodel: m\nport: 8081\n"})) == {
        "b": 8081,
        "chat": 8082,
        "embed": 8083,
    }


def test_a_slot_keeps_the_port_that_it_had_when_others_come_and_go() -> None:
    before = specs(desire(TWO))
    assert ports(desire({"model.yaml": MODEL, "embed.yaml": EMBED}, last_good=before)) == {"embed": 8082}
    more = {**TWO, "a.yaml": "kind: Slot\nname: a\nmodel: m\n"}
    assert ports(desire(more, last_good=before)) == {"a": 8083, "chat": 8081, "embed": 8082}


def test_a_slot_that_must_move_takes_no_port_that_another_had() -> None:
    fixed = {**TWO, "chat.yaml": CHAT + "port: 9000\n", "embed.yaml": EMBED + "port: 8081\n"}
    before = specs(desire(fixed))
    assert ports(desire(TWO, last_good=before)) == {"chat": 8082, "embed": 8081}


def test_an_explicit_port_wins_over_a_remembered_one() -> None:
    before = specs(desire(TWO))
    found = desire({**TWO, "embed.yaml": EMBED + "port: 8081\n"}, last_good=before)
    assert not found.problems
    assert ports(found) == {"chat": 8082, "embed": 8081}


def test_a_slot_without_a_free_port_is_told_so_and_the_others_go_on() -> None:
    found = desire({**TWO, "host.yaml": "kind: Host\nslot_ports: 8090-8090\n"})
    assert ports(found) == {"chat": 8090}
    (problem,) = problems(found)
    assert problem == "embed.yaml:1: port: no free port in 8090-8090: widen slot_ports of the Host manifest"


def test_a_running_slot_without_a_free_port_stays_where_it_is() -> None:
    before = specs(desire(TWO))
    found = desire({**TWO, "host.yaml": "kind: Host\nslot_ports: 8090-8090\n"}, last_good=before)
    assert ports(found) == {"chat": 8090, "embed": 8082}
    assert [problem.name for problem in found.slots["embed"].problems] == ["embed"]


def test_a_port_that_a_kept_slot_holds_is_not_given_to_another() -> None:
    before = specs(desire({"model.yaml": MODEL, "old.yaml": "kind: Slot\nname: old\nmodel: m\nport: 8085\n"}))
    renamed = {"model.yaml": MODEL, "new.yaml": "kind: Slot\nname: new\nmodel: m\nport: 8085\n"}
    found = desire({**renamed, "broken.yaml": "kind: ["}, last_good=before)
    assert ports(found) == {"old": 8085}
    assert any(text.startswith("new.yaml:4: port: port 8085 is held by slot 'old'") for text in problems(found))
    assert ports(desire(renamed, last_good=before)) == {"new": 8085}


# The last good spec


BREAKS: Mapping[str, Mapping[str, str]] = {
    "an unknown key": {"chat.yaml": CHAT + "prot: 1\n"},
    "a broken file": {"chat.yaml": "kind: Slot\nname: [\n"},
    "a name that is not one": {"chat.yaml": CHAT.replace("chat", "Chat!")},
    "a misspelt kind": {"chat.yaml": CHAT.replace("Slot", "Slit")},
    "a model that is gone": {"chat.yaml": CHAT.replace("m\n", "gone\n")},
    "a broken model": {"model.yaml": MODEL + "size: 7\n"},
    "a broken file of models": {"model.yaml": "kind: Model\n\tname: m\n"},
    "a clash": {"chat.yaml": CHAT + "port: 8086\n", "third.yaml": "kind: Slot\nname: third\nmodel: m\nport: 8086\n"},
}


@pytest.mark.parametrize("what", BREAKS)
def test_a_broken_manifest_never_takes_down_a_good_slot(what: str) -> None:
    before = desire(TWO)
    after = desire({**TWO, **BREAKS[what]}, last_good=specs(before))
    assert set(after.slots) == {"chat", "embed"}
    assert after.slots["chat"].spec == before.slots["chat"].spec
    assert after.slots["chat"].launch == before.slots["chat"].launch
    assert after.slots["embed"].launch == before.slots["embed"].launch
    assert after.slots["chat"].problems


@pytest.mark.parametrize("what", sorted({*BREAKS} - {"a broken model", "a broken file of models"}))
def test_a_slot_beside_a_broken_one_is_not_blamed(what: str) -> None:
    after = desire({**TWO, **BREAKS[what]}, last_good=specs(desire(TWO)))
    assert after.slots["embed"].problems == ()


@pytest.mark.parametrize(
    ("what", "line"),
    [
        ("an unknown key", "chat.yaml:4: prot: unknown key (did you mean 'port'?)"),
        ("a misspelt kind", "chat.yaml:1: kind: 'Slit' is not a kind (did you mean 'Slot'?)"),
        ("a model that is gone", f"chat.yaml:3: model: no Model 'gone' ({DECLARE})"),
        ("a broken model", f"chat.yaml:3: model: no Model 'm' ({DECLARE})"),
        ("a clash", "chat.yaml:4: port: port 8086 is claimed twice: also at third.yaml:1"),
    ],
)
def test_a_kept_slot_says_which_line_keeps_it_from_its_manifest(what: str, line: str) -> None:
    after = desire({**TWO, **BREAKS[what]}, last_good=specs(desire(TWO)))
    assert [str(problem) for problem in after.slots["chat"].problems] == [line]


def test_a_kept_slot_without_an_error_of_its_own_says_those_of_its_file() -> None:
    broken = {"chat.yaml": "kind: Slit\n", "embed.yaml": "kind: Sloot\n"}
    after = desire({**TWO, **broken}, last_good=specs(desire(TWO)))
    assert {name: [problem.file for problem in slot.problems] for name, slot in after.slots.items()} == {
        "chat": ["chat.yaml"],
        "embed": ["embed.yaml"],
    }


def test_a_broken_slot_that_never_ran_is_not_desired() -> None:
    after = desire({**TWO, **BREAKS["an unknown key"]}, last_good={})
    assert set(after.slots) == {"embed"}


@pytest.mark.parametrize("file", ["", "manifests"])
def test_an_unreadable_root_keeps_every_slot_and_each_says_why(file: str) -> None:
    before = desire(TWO)
    unreadable = ManifestError(file, 0, "can't be read: No such file or directory")
    after = desire({}, last_good=specs(before), errors=(unreadable,))
    assert {name: slot.launch for name, slot in after.slots.items()} == {
        name: slot.launch for name, slot in before.slots.items()
    }
    assert all(slot.problems == (unreadable,) for slot in after.slots.values())


def test_a_slot_whose_file_is_gone_is_removed_only_when_all_is_well() -> None:
    before = specs(desire(TWO))
    less = {"model.yaml": MODEL, "chat.yaml": CHAT}
    assert set(desire(less, last_good=before).slots) == {"chat"}
    assert set(desire({**less, "x.yaml": "kind: Slit\n"}, last_good=before).slots) == {"chat", "embed"}


def test_problems_come_in_the_order_of_their_places() -> None:
    found = desire({"b.yaml": "kind: X\n", "a.yaml": CHAT + "zz: 1\naa: 2\n"})
    assert [(problem.file, problem.line) for problem in found.problems] == [("a.yaml", 4), ("a.yaml", 5), ("b.yaml", 1)]


# Generations


@pytest.mark.parametrize(
    ("chat", "is_same"),
    [
        (CHAT, True),
        ("# a comment moves lines\n\n" + CHAT, True),
        ("name: chat\nmodel: m\nkind: Slot\n", True),
        (CHAT + "run: always\n", True),
        (CHAT + "run: on-demand\n", False),
        (CHAT + "aliases: [x]\n", False),
        (CHAT + "args: [x]\n", False),
        (CHAT + "defaults: {temperature: 1}\n", False),
    ],
)
def test_a_generation_is_new_where_the_content_is(chat: str, is_same: bool) -> None:
    assert (desire({**TWO, "chat.yaml": chat}).content == desire(TWO).content) is is_same


def test_a_changed_host_is_a_new_generation() -> None:
    assert desire({**TWO, "host.yaml": "kind: Host\nresync: 10s\n"}).content != desire(TWO).content


def test_a_slot_that_moves_to_another_file_is_no_new_generation() -> None:
    assert desire(f"{MODEL}---\n{EMBED}---\n{CHAT}").content == desire(TWO).content


def backwards(tree: Data) -> Data:
    return {key: backwards(value) if isinstance(value, dict) else value for key, value in reversed(tree.items())}


@settings(max_examples=60, deadline=None)
@given(worlds(), st.data(), st.integers(1, 1000))
def test_neither_the_order_of_files_and_keys_nor_their_lines_make_a_generation(
    world: tuple[HostFacts, list[Data], Desired], data: st.DataObject, line: int
) -> None:
    facts, datas, found = world
    other = located(documents(map(backwards, data.draw(st.permutations(datas))), first_line=line))
    again = resolve(other, [], seeds=SEEDS, facts=facts, templates=TEMPLATES)
    assert not again.problems
    assert again.content == found.content
    assert ports(again) == ports(found)


# Properties


@settings(max_examples=40, deadline=None)
@given(worlds())
def test_manifests_that_hold_together_resolve_without_problems(world: tuple[HostFacts, list[Data], Desired]) -> None:
    _, datas, found = world
    assert not found.problems
    assert set(found.slots) == {data["name"] for data in datas if data["kind"] == "Slot"}
    assert len(set(ports(found).values())) == len(found.slots)
    assert all(slot.spec.name == name and not slot.problems for name, slot in found.slots.items())


@settings(max_examples=40, deadline=None)
@given(worlds())
def test_resolving_again_with_what_was_applied_changes_nothing(world: tuple[HostFacts, list[Data], Desired]) -> None:
    facts, datas, found = world
    assert resolved(datas, facts, last_good=specs(found)) == found


@settings(max_examples=60, deadline=None)
@given(worlds(), st.data())
def test_whatever_breaks_nothing_is_removed_and_no_two_slots_share_a_port(
    world: tuple[HostFacts, list[Data], Desired], data: st.DataObject
) -> None:
    facts, datas, before = world
    rest = data.draw(st.lists(st.sampled_from(datas), unique_by=id))
    model = next(data["name"] for data in datas if data["kind"] == "Model")
    claims = data.draw(st.lists(st.integers(8081, 8092), max_size=3, unique=True))
    fresh = [{"kind": "Slot", "name": f"brand-new-{port}", "model": model, "port": port} for port in claims]
    found = resolve(
        located(documents([*rest, *fresh])),
        [ManifestError("x.yaml", 1, "is broken")],
        seeds=SEEDS,
        facts=facts,
        templates=TEMPLATES,
        last_good=specs(before),
    )
    declared = {data["name"] for data in rest if data["kind"] == "Slot"}
    assert set(before.slots) <= set(found.slots)
    assert len(set(ports(found).values())) == len(found.slots)
    assert all(found.slots[name].problems for name in before.slots if name not in declared)


values = st.none() | st.booleans() | st.integers(-1, 10**6) | st.floats(0, 1e300) | words() | st.just([{"a": "b"}, "m"])


@settings(max_examples=60, deadline=None)
@given(worlds(max_slots=2), st.data())
def test_whatever_stands_in_a_manifest_it_is_resolved_or_reported_and_can_be_stored(
    world: tuple[HostFacts, list[Data], Desired], data: st.DataObject
) -> None:
    facts, datas, _ = world
    written = data.draw(st.sampled_from(datas))
    key = data.draw(st.sampled_from([*written, "port", "limits", "env", "stop_timeout", "profile"]))
    good, invalid = validate(documents([*datas, {**written, key: data.draw(values)}]))
    found = resolve(good, invalid, seeds=SEEDS, facts=facts, templates=TEMPLATES)
    assert all(json.loads(json.dumps(asdict(slot.spec)))["name"] == name for name, slot in found.slots.items())
    assert found.content
