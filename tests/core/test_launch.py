from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import arguments, desired_slots, environments
from worlds import MODEL, desired

from hal0.core.launch import launch
from hal0.core.schema import Device, DriftPolicy, Engine, RunPolicy, SlotType
from hal0.core.spec import Desired, DesiredSlot, HostFacts, Launch, SlotSpec

SPEC = desired(f"{MODEL}---\nkind: Slot\nname: chat\nmodel: m\n").slots["chat"].spec
ALWAYS = [
    *("--replace", "--rm", "--detach", "--pull=never", "--cgroups=split", "--sdnotify=conmon", "--read-only"),
    *("--tmpfs=/tmp", "--cap-drop=all", "--security-opt=no-new-privileges"),
]
World = tuple[HostFacts, DesiredSlot, Desired]
any_slot = settings(max_examples=30, deadline=None)


def podman(**changes: object) -> list[str]:
    return list(launch(replace(SPEC, **changes), "systemd", model_dirs=["/models"]).argv)  # type: ignore[arg-type]


def process(**changes: object) -> list[str]:
    spec = replace(SPEC, command=("engine",), **changes)  # type: ignore[arg-type]
    return list(launch(spec, "process", model_dirs=["/models"]).argv)


def options(started: Launch, spec: SlotSpec) -> list[str]:
    """Return what podman itself reads: the words before the image."""
    rest = list(started.argv[2:])
    return rest[: rest.index(spec.image)]


def label(argv: list[str]) -> str:
    return next(word for word in argv if word.startswith("--label=hal0.spec="))


def values(argv: list[str], flag: str) -> list[str]:
    return [argv[at + 1] for at, word in enumerate(argv[:-1]) if word == flag]


# podman


def test_the_least_slot_is_this_command_line() -> None:
    argv = podman()
    spec_hash = argv[11].removeprefix("--label=hal0.spec=")
    assert argv == [
        *("/usr/bin/podman", "run", "--name=hal0-slot-chat", "--replace", "--rm", "--detach", "--pull=never"),
        *("--cgroups=split", "--sdnotify=conmon", "--log-driver=passthrough", "--label=hal0.slot=chat"),
        *(f"--label=hal0.spec={spec_hash}", "--publish=127.0.0.1:8081:8080", "--read-only", "--tmpfs=/tmp"),
        *("--cap-drop=all", "--security-opt=no-new-privileges", "--volume=/models:/models:ro", SPEC.image),
        *("--model", "/models/m.gguf", "--host", "0.0.0.0", "--port", "8080", "--alias", "chat", "--metrics"),
        *("--threads", "4"),
    ]


@pytest.mark.parametrize("build", [podman, process])
def test_an_engine_is_told_in_whole_seconds_when_to_sleep(build: Callable[..., list[str]]) -> None:
    assert values(build(sleep_after=90.2), "--sleep-idle-seconds") == ["91"]
    assert values(build(), "--sleep-idle-seconds") == []


@any_slot
@given(desired_slots("systemd"))
def test_every_container_is_hardened_and_named_and_labelled_as_its_slots(world: World) -> None:
    _, slot, _ = world
    found = options(slot.launch, slot.spec)
    assert all(found.count(option) == 1 for option in ALWAYS)
    assert [word for word in found if word.startswith("--name=")] == [f"--name=hal0-slot-{slot.spec.name}"]
    assert [word for word in found if word.startswith("--label=")] == [
        f"--label=hal0.slot={slot.spec.name}",
        f"--label=hal0.spec={slot.spec_hash}",
    ]
    assert all(word.startswith("--") for word in found)
    assert not {"--privileged", "--network=host", "--pid=host"} & set(found)


@any_slot
@given(desired_slots("systemd"))
def test_a_container_is_published_on_loopback_and_nowhere_else(world: World) -> None:
    _, slot, _ = world
    published = [word for word in options(slot.launch, slot.spec) if word.startswith(("--publish", "-p", "-P"))]
    assert [word for word in published if word != "--pull=never"] == [
        f"--publish=127.0.0.1:{slot.spec.port}:{slot.spec.container_port}"
    ]


@any_slot
@given(desired_slots("systemd"))
def test_models_are_mounted_read_only_and_found_where_the_engine_looks(world: World) -> None:
    _, slot, found = world
    (mount,) = [word for word in options(slot.launch, slot.spec) if word.endswith(":/models:ro")]
    source = mount.removeprefix("--volume=").removesuffix(":/models:ro")
    assert source in {*found.host.model_roots, "/data"}
    if slot.spec.engine is Engine.LLAMA_SERVER:
        argv = list(slot.launch.argv)
        model = values(argv[argv.index(slot.spec.image) :], "--model")[0]
        assert model.replace("/models", source, 1) == slot.spec.model_path


@pytest.mark.parametrize(
    ("path", "model_dir", "mount", "model"),
    [
        ("/models/m.gguf", "/models", "/models", "/models/m.gguf"),
        ("/models/a/b.gguf", "/models/", "/models/", "/models/a/b.gguf"),
        ("/data/m.gguf", "/models", "/data", "/models/m.gguf"),
        ("/models2/m.gguf", "/models", "/models2", "/models/m.gguf"),
        ("/hf/snapshots/a/m.gguf", "/models", "/hf", "/models/snapshots/a/m.gguf"),
        ("/models/{port}.gguf", "/models", "/models", "/models/{port}.gguf"),
    ],
)
def test_a_model_outside_of_the_model_directory_brings_its_own_folder(
    path: str, model_dir: str, mount: str, model: str
) -> None:
    argv = list(launch(replace(SPEC, model_path=path), "systemd", model_dirs=[model_dir, "/hf"]).argv)
    assert f"--volume={mount}:/models:ro" in argv
    assert values(argv, "--model") == [model]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"memory": 2**30}, ["--memory=1073741824b"]),
        ({"cpus": 1.5}, ["--cpus=1.5"]),
        ({"cpus": 2.0}, ["--cpus=2"]),
        ({"env": {"B": "x y", "A": "1"}}, ["--env=A=1", "--env=B=x y"]),
        ({"devices": ("/dev/dri", "vendor.example/gpu=all")}, ["--device=/dev/dri", "--device=vendor.example/gpu=all"]),
        ({"groups": ("44", "keep-groups")}, ["--group-add=44", "--group-add=keep-groups"]),
        ({"mounts": ("/srv:/srv:ro",)}, ["--volume=/srv:/srv:ro"]),
        ({"entrypoint": "/bin/engine"}, ["--entrypoint=/bin/engine"]),
    ],
)
def test_what_a_slot_asks_of_podman_stands_before_the_image(changes: dict[str, object], words: list[str]) -> None:
    argv = podman(**changes)
    assert [word for word in argv[: argv.index(SPEC.image)] if word not in podman()][1:] == words


# The engine


@pytest.mark.parametrize(
    ("kind", "flags"),
    [(kind, {"embedding": ["--embedding"], "reranking": ["--reranking"]}.get(kind.value, [])) for kind in SlotType],
)
def test_a_type_has_its_flag_and_never_embedding_and_reranking_together(kind: SlotType, flags: list[str]) -> None:
    for argv in (podman(type=kind), process(type=kind)):
        assert [word for word in argv if word in {"--embedding", "--reranking"}] == flags


@pytest.mark.parametrize("flag", ["--threads", "-t"])
def test_threads_that_a_slot_sets_are_not_set_again(flag: str) -> None:
    argv = podman(args=(flag, "2"))
    assert [word for word in argv if word in {"--threads", "-t"}] == [flag]


def test_a_flag_with_its_value_behind_an_equals_sign_counts_as_set() -> None:
    assert podman(args=("--threads=2",)).count("--threads") == 0


def test_a_word_that_only_begins_like_the_flag_does_not_count_as_set() -> None:
    assert values(podman(args=("--threads-batch", "2")), "--threads") == ["4"]


def test_a_context_size_is_given_where_one_is_known() -> None:
    assert values(podman(context_size=4096), "--ctx-size") == ["4096"]
    assert values(podman(context_size=None), "--ctx-size") == []


def test_the_slots_own_arguments_come_last_so_that_they_win() -> None:
    assert podman(args=("--ctx-size", "1"), context_size=2)[-2:] == ["--ctx-size", "1"]


def test_a_custom_engine_gets_its_arguments_and_no_other() -> None:
    argv = podman(engine=Engine.CUSTOM, args=("serve", "{model}", "--at={host}:{port}"))
    assert argv[argv.index(SPEC.image) + 1 :] == ["serve", "/models/m.gguf", "--at=0.0.0.0:8080"]


@pytest.mark.parametrize(
    ("word", "filled"),
    [
        ("{model}", "/models/m.gguf"),
        ("{host}:{port}", "127.0.0.1:8081"),
        ("{name}", "chat"),
        ("{context_size}/{threads}", "512/4"),
        ('{"a": {"port": 1}, "b": {}}', '{"a": {"port": 1}, "b": {}}'),
        ('{"port": {port}}', '{"port": 8081}'),
        ("{other} {} {{name}} {model", "{other} {} {chat} {model"),
        ("%n $HOME", "%n $HOME"),
    ],
)
def test_placeholders_are_filled_and_other_braces_left_alone(word: str, filled: str) -> None:
    assert process(args=(word,), context_size=512)[-1] == filled


def test_a_placeholder_in_a_models_path_is_a_part_of_the_path() -> None:
    assert values(process(model_path="/models/{name}-{port}.gguf"), "--model") == ["/models/{name}-{port}.gguf"]


# The process runtime


def test_a_child_process_is_the_command_on_loopback_at_the_slots_port() -> None:
    assert process() == [
        *("engine", "--model", "/models/m.gguf", "--host", "127.0.0.1", "--port", "8081", "--alias", "chat"),
        *("--metrics", "--threads", "4"),
    ]


@any_slot
@given(desired_slots("process"))
def test_a_child_process_listens_on_loopback_and_has_its_slots_environment(world: World) -> None:
    _, slot, _ = world
    assert slot.launch.env == slot.spec.env
    assert "0.0.0.0" not in slot.launch.argv
    if slot.spec.engine is Engine.LLAMA_SERVER:
        argv = list(slot.launch.argv)[len(slot.spec.command) :]
        assert argv[:6] == ["--model", slot.spec.model_path, "--host", "127.0.0.1", "--port", str(slot.spec.port)]


# The hash


@any_slot
@given(desired_slots())
def test_a_slot_that_is_started_the_same_way_has_the_same_hash(world: World) -> None:
    facts, slot, found = world
    unseen = replace(
        slot.spec,
        source="elsewhere.yaml:7",
        run=RunPolicy.NEVER,
        drift=DriftPolicy.ALERT,
        suspend=True,
        aliases=("other",),
        defaults={"temperature": 2},
        idle_timeout=1.0,
        probe="/other",
        start_deadline=1.0,
        stop_timeout=1.0,
        device=Device.NPU,
        profile="other",
        env=dict(reversed(list(slot.spec.env.items()))),
    )
    assert launch(unseen, facts.runtime, model_dirs=found.host.model_roots) == slot.launch


CHANGES: dict[str, Callable[[SlotSpec], SlotSpec]] = {
    "port": lambda spec: replace(spec, port=spec.port + 1),
    "args": lambda spec: replace(spec, args=(*spec.args, "--another")),
    "env": lambda spec: replace(spec, env={**spec.env, "ANOTHER": "1"}),
}


@any_slot
@given(desired_slots(), st.sampled_from(sorted(CHANGES)))
def test_a_slot_that_is_started_in_another_way_has_another_hash(world: World, what: str) -> None:
    facts, slot, found = world
    if what == "port" and facts.runtime == "process" and slot.spec.engine is Engine.CUSTOM:
        what = "args"
    other = launch(CHANGES[what](slot.spec), facts.runtime, model_dirs=found.host.model_roots)
    assert other.spec_hash != slot.spec_hash


@settings(max_examples=80, deadline=None)
@given(arguments(), environments(), arguments(), environments())
def test_hashes_are_equal_exactly_where_argv_and_environment_are(
    args: list[str], env: dict[str, str], other_args: list[str], other_env: dict[str, str]
) -> None:
    first = launch(replace(SPEC, args=tuple(args), env=env), "process", model_dirs=["/models"])
    other = launch(replace(SPEC, args=tuple(other_args), env=other_env), "process", model_dirs=["/models"])
    assert (first.spec_hash == other.spec_hash) == ((first.argv, first.env) == (other.argv, other.env))


@pytest.mark.parametrize("field", ["image", "memory", "cpus", "devices", "groups", "mounts", "entrypoint"])
def test_whatever_changes_the_container_changes_the_hash(field: str) -> None:
    value = {"image": "other:1", "memory": 1, "cpus": 0.5, "entrypoint": "/x"}.get(field, ("x",))
    assert label(podman(**{field: value})) != label(podman())
