"""What other tools were told to run, as manifests: samples as they were agreed, and any configuration at all.

HAL0_UPDATE_GOLDEN=1 writes what is expected of the samples again.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import words
from worlds import SEEDS, desired

from hal0.cli.importing import READERS, as_yaml
from hal0.core.documents import parse_file
from hal0.core.importing import profiles
from hal0.core.importing.draft import Given, Imported
from hal0.core.importing.profiles import seeds_of
from hal0.core.schema import Device
from hal0.core.spec import Desired
from hal0.errors import UsageError

SAMPLES = Path(__file__).parent / "samples"
EXPECTED = Path(__file__).parent / "expected"
GIVEN = Given(seeds_of(SEEDS), "/srv/app", {"HOME": "/home/op"})
FILES = {
    "llama-swap.yaml": "llama-swap",
    "llama-swap-unified.yaml": "llama-swap",
    "compose-engines.yaml": "compose",
    "compose-lab.yaml": "compose",
    "llama.container": "quadlet",
    "whisper.container": "quadlet",
    "vllm.container": "quadlet",
}
SECRET = "planted"  # noqa: S105  what every secret in a sample, and in what hypothesis makes, begins with


def printed(kind: str, name: str, found: Imported) -> str:
    return "\n".join(as_yaml(kind, name, found)) + "\n"


def imported(kind: str, text: str, given: Given = GIVEN) -> tuple[Imported, Desired]:
    """Import a text, and hold what is printed to the promise: it reads back, it resolves, and it holds no secret."""
    found = READERS[kind](text, f"a.{'container' if kind == 'quadlet' else 'yaml'}", given)
    shown = printed(kind, "a", found)
    assert SECRET not in shown
    documents, errors = parse_file("a.yaml", shown)
    assert errors == []
    assert [dict(document.data) for document in documents] == json.loads(json.dumps(found.manifests))
    resolved = desired(shown)
    assert [str(problem) for problem in resolved.problems] == []
    return found, resolved


def only(kind: str, text: str, **given: Any) -> tuple[dict[str, Any], dict[str, Any], set[str]]:
    """Import a text that makes one slot; return the slot, its profile if it has one, and what was lost."""
    found, _ = imported(kind, text, replace(GIVEN, **given))
    by_kind = {manifest["kind"]: manifest for manifest in found.manifests}
    return by_kind.get("Slot", {}), by_kind.get("Profile", {}), {lost.what for lost in found.lost}


def as_text(tree: object) -> str:
    """Return a tree as YAML: JSON is that, but for what it makes of characters beyond 16 bits."""
    return re.sub(
        r"\\u(d[89ab]..)\\u(d[c-f]..)",
        lambda pair: f"\\U{ord(bytes.fromhex(pair[1] + pair[2]).decode('utf-16-be')):08x}",
        json.dumps(tree),
    )


def swap(cmd: str, **keys: object) -> str:
    return json.dumps({"models": {"m": {"cmd": cmd, **keys}}})


def service(**keys: object) -> str:
    return json.dumps({"services": {"s": keys}})


@pytest.mark.parametrize("name", FILES)
def test_a_sample_becomes_what_was_agreed(name: str) -> None:
    text, kind = (SAMPLES / name).read_text(), FILES[name]
    found, resolved = imported(kind, text)
    shown, golden = printed(kind, name, found), EXPECTED / f"{name}.txt"
    if os.environ.get("HAL0_UPDATE_GOLDEN") == "1":
        golden.write_text(shown)
    assert shown == golden.read_text()
    assert SECRET in text
    assert resolved.slots


# Any configuration.

FLAGS = [
    *("-m", "--model", "--model", "-hf", "-hff", "-mu", "--mmproj", "-c", "--ctx-size", "-ngl", "--port", "--alias"),
    *("--embeddings", "--jinja", "-v", "-p", "-l", "--ubatch-size", "--diffusion-model", "--gpu_memory_utilization"),
]
PROGRAMS = [
    "llama-server",
    "/opt/llama-server-b1",
    "vllm serve",
    "whisper-server",
    "sd-server",
    "docker run",
    "podman run",
]
IMAGES = [
    "registry.example/ggml-org/llama.cpp:server-cuda",
    "vllm/vllm-openai",
    "ggml-org/whisper.cpp:main",
    "postgres",
    "${IMAGE}",
]
VALUES = [
    "/models/a.gguf",
    "b.gguf",
    "8080",
    "0.0.0.0",
    "org/repo:Q4",
    "org/repo-GGUF",
    "https://h/d/c.gguf?x=1",
    "./m:/models",
    "8081:8080",
    "${env.X}",
    "$X",
    "%n",
]
SECRETS = ["--api-key=planted", "--hf-token planted", "-e HF_TOKEN=planted", "--proxy http://u:planted@h/"]
SECRETS += ["-mu https://h/d.gguf?token=planted", "-mu https://u:planted@h/e.gguf"]


def plain_words() -> st.SearchStrategy[str]:
    """Words of command lines and names of things: mostly what files hold, and now and then anything."""
    return st.one_of(st.sampled_from([*FLAGS, *VALUES, *IMAGES]), words())


def commands() -> st.SearchStrategy[str]:
    tail = st.lists(st.one_of(plain_words(), st.sampled_from(SECRETS)), max_size=8).map(" ".join)
    return st.builds("{} {}".format, st.sampled_from(PROGRAMS), tail)


def anything() -> st.SearchStrategy[Any]:
    leaf = st.none() | st.booleans() | st.integers(-10, 2**40) | st.floats(allow_nan=False) | plain_words()
    return st.recursive(leaf, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words(), inner, max_size=3))


def tables(known: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[dict[str, Any]]:
    """Tables with some of these keys: each as it should be, or of any other form."""
    return st.fixed_dictionaries({}, optional={key: value | anything() for key, value in known.items()})


MODEL_KEYS = {
    "cmd": commands(),
    "aliases": st.lists(plain_words(), max_size=3),
    "env": st.lists(st.builds("{}={}".format, words(), plain_words()) | st.just("HF_TOKEN=planted"), max_size=3),
    "ttl": st.integers(-1, 100),
    "filters": tables({"stripParams": words(), "setParams": st.dictionaries(words(), anything(), max_size=2)}),
    "concurrencyLimit": st.integers(0, 5),
    "checkEndpoint": st.sampled_from(["/health", "none"]),
    "macros": st.dictionaries(st.sampled_from(["a", "b"]), plain_words(), max_size=2),
}
PEER_KEYS = {
    "proxy": st.sampled_from(["http://a:1", "https://b/api", "tailcat://planted", "http://u:planted@c"]),
    "apiKey": st.sampled_from(["planted-key", "${env.KEY}"]),
    "models": st.lists(plain_words(), max_size=2),
    "timeouts": tables({"connect": st.integers(0, 100)}),
}
GROUP_KEYS = {flag: st.booleans() for flag in ("swap", "exclusive", "persistent")}
SERVICE_KEYS = {
    "image": st.sampled_from([*IMAGES, "ollama/ollama"]),
    "command": commands() | st.lists(plain_words(), max_size=6),
    "entrypoint": st.sampled_from(["/app/llama-server", ["sh", "-c"], "vllm serve"]),
    "environment": st.dictionaries(words(), plain_words(), max_size=2) | st.just({"HF_TOKEN": "planted", "A": None}),
    "ports": st.lists(st.sampled_from(["8080:8080", "8085", "1-3:1-3", "[::1]:9:9/tcp", {"target": 1}]), max_size=2),
    "volumes": st.lists(st.sampled_from(["./m:/models", "v:/models", "/a:/models/b:ro", {"source": "/c"}]), max_size=3),
    "devices": st.lists(plain_words(), max_size=2),
    "group_add": st.lists(plain_words(), max_size=2),
    "shm_size": st.sampled_from(["4g", 2**26, "0", "x", "${Y}"]),
    "mem_limit": st.sampled_from(["4g", "512m", 0, "x"]),
    "cpus": st.sampled_from(["2.0", 3, "x", "nan", -1]),
    "healthcheck": tables({"test": st.lists(plain_words(), max_size=3)}),
    "deploy": tables({"resources": tables({"limits": tables({"memory": words(), "cpus": words()})})}),
}


@st.composite
def swap_configs(draw: st.DrawFn) -> str:
    models = draw(st.dictionaries(plain_words(), tables(MODEL_KEYS) | anything(), max_size=4))
    members = st.lists(st.sampled_from(sorted(models)), max_size=3) if models else st.just([])
    group = tables({**GROUP_KEYS, "members": members})
    optional = {
        "macros": st.dictionaries(st.sampled_from(["a", "b"]), plain_words() | st.integers(-9, 9), max_size=2),
        "peers": st.dictionaries(plain_words() | st.just("hal0"), tables(PEER_KEYS) | anything(), max_size=3),
        "groups": st.dictionaries(words(), group, max_size=3),
        "apiKeys": st.just(["planted-key"]),
        "globalTTL": st.integers(0, 100),
        "startPort": st.sampled_from([0, 1, 5800, 65500, 65536, "x"]),
        "hooks": st.just({"on_startup": {"preload": sorted(models)}}),
    }
    return as_text({"models": models} | draw(tables(optional)))


@settings(max_examples=50)
@given(swap_configs())
def test_any_configuration_of_llama_swap_makes_valid_manifests(text: str) -> None:
    imported("llama-swap", text)


@settings(max_examples=100)
@given(st.dictionaries(plain_words(), tables(SERVICE_KEYS) | anything(), max_size=4))
def test_any_compose_file_makes_valid_manifests(services: dict[str, Any]) -> None:
    imported("compose", as_text({"services": services}))


QUADLET_KEYS = [
    "Exec",
    "Volume",
    "Environment",
    "PublishPort",
    "AddDevice",
    "GroupAdd",
    "Memory",
    "ShmSize",
    "PodmanArgs",
    "Entrypoint",
]
QUADLET_LINES = st.builds(
    "{}={}".format, st.sampled_from(QUADLET_KEYS), st.lists(plain_words(), max_size=4).map(" ".join)
)


@settings(max_examples=100)
@given(st.sampled_from(IMAGES[:4]), commands(), st.lists(QUADLET_LINES | plain_words(), max_size=6))
def test_any_quadlet_makes_valid_manifests(image: str, command: str, lines: list[str]) -> None:
    imported("quadlet", "\n".join(["[Container]", f"Image={image}", f"Exec={command}", *lines]))


# What becomes what.


def test_a_commented_command_of_many_lines_and_nested_macros() -> None:
    macros = {"dir": "/srv", "file": "${dir}/${MODEL_ID}.gguf", "on": True}
    cmd = "# a comment\nllama-server --port ${PORT} \\\n -m ${file}\n  # another\n --flag ${on} --empty ''"
    slot, _, lost = only("llama-swap", json.dumps({"macros": macros, "models": {"m": {"cmd": cmd}}}))
    assert slot["args"] == ["--flag", "true", "--empty", ""]
    assert lost == {"that only one of them is loaded at a time"}


def test_a_macro_of_itself_ends() -> None:
    text = json.dumps({"macros": {"a": "${a}${a}"}, "models": {"m": {"cmd": "llama-server -m ${a}"}}})
    assert only("llama-swap", text)[0] == {}


@pytest.mark.parametrize(
    ("ttl", "common", "expected"),
    [(60, 5, 60), (0, 5, "365d"), (-1, 5, 5), (None, 5, 5), (-1, 0, "365d"), ("soon", 0, "365d")],
)
def test_the_time_to_live_of_a_model(ttl: object, common: int, expected: object) -> None:
    keys = {} if ttl is None else {"ttl": ttl}
    text = json.dumps({"globalTTL": common, "models": {"m": {"cmd": "llama-server -m /a.gguf", **keys}}})
    slot, _, _ = only("llama-swap", text)
    assert (slot["run"], slot["idle_timeout"]) == ("on-demand", expected)


@pytest.mark.parametrize(
    ("flags", "device", "args"),
    [
        ("", None, []),
        ("-ngl 0", None, []),
        ("-ngl 999", "gpu-rocm", []),
        ("--gpu-layers=all", "gpu-rocm", []),
        ("--n-gpu-layers -1", "gpu-rocm", []),
        ("-ngl 20", "gpu-rocm", ["--n-gpu-layers", "20"]),
    ],
)
def test_the_device_of_a_program_of_the_host(flags: str, device: str | None, args: list[str]) -> None:
    slot, profile, _ = only("llama-swap", swap(f"llama-server -m /a.gguf {flags}"), gpu=Device.GPU_ROCM)
    assert (slot.get("device"), slot.get("args", [])) == (device, args)
    assert profile == {}


def test_groups_say_which_slots_are_never_up_together() -> None:
    models = {name: {"cmd": f"llama-server -m /{name}.gguf"} for name in "abcd"}
    groups = {"one": {"members": ["a", "b"]}, "kept": {"members": ["c"], "persistent": True, "exclusive": False}}
    found, _ = imported("llama-swap", json.dumps({"models": models, "groups": groups}))
    slots = {manifest["name"]: manifest for manifest in found.manifests if manifest["kind"] == "Slot"}
    assert {name: slot.get("exclusive_with") for name, slot in slots.items()} == {
        "a": ["b"],
        "b": None,
        "c": None,
        "d": None,
    }
    assert {name for name, slot in slots.items() if slot.get("pinned")} == {"c"}


def test_two_names_that_make_one_slot_name_are_told_apart() -> None:
    models = {name: {"cmd": "llama-server -m /a.gguf", "aliases": ["same"]} for name in ("Qwen:1", "qwen/1")}
    found, resolved = imported("llama-swap", json.dumps({"models": models}))
    assert {name: slot.spec.aliases for name, slot in resolved.slots.items()} == {
        "qwen-1": ("Qwen:1", "same"),
        "qwen-1-2": ("qwen/1",),
    }
    assert ("models.qwen/1", "the name 'same'") in {(lost.where, lost.what) for lost in found.lost}


def test_a_peer_that_is_called_as_hal0_itself() -> None:
    peers = {"hal0": {"proxy": "http://a"}, "Hal0": {"proxy": "http://b"}}
    found, resolved = imported("llama-swap", json.dumps({"models": {}, "peers": peers}))
    assert {name: upstream.prefix for name, upstream in resolved.upstreams.items()} == {
        "hal0-2": "hal0-2/",
        "hal0-3": "Hal0/",
    }
    assert [manifest["kind"] for manifest in found.manifests] == ["Upstream", "Upstream"]


IMAGE = "registry.example/ggml-org/llama.cpp:server"


@pytest.mark.parametrize(
    ("volumes", "model", "path", "mounts"),
    [
        (["./m:/models"], "/models/a.gguf", "/srv/app/m/a.gguf", []),
        (["~/m:/models:ro,z"], "/models/sub/a.gguf", "/home/op/m/sub/a.gguf", []),
        (["/one.gguf:/models/a.gguf"], "/models/a.gguf", "/one.gguf", []),
        (["/x:/data", "/y:/data/in"], "/data/in/a.gguf", "/y/a.gguf", ["/x:/data"]),
        (["named:/models"], "/models/a.gguf", "a.gguf", []),
        (["/m:/m", "/cache:/cache"], "/m/a.gguf", "/m/a.gguf", ["/cache:/cache"]),
    ],
)
def test_where_a_model_of_a_container_is_on_the_host(
    volumes: list[str], model: str, path: str, mounts: list[str]
) -> None:
    text = service(image=IMAGE, command=["-m", model], volumes=volumes)
    found, resolved = imported("compose", text)
    by_kind = {manifest["kind"]: manifest for manifest in found.manifests}
    assert by_kind["Model"]["path"] == path
    assert by_kind["Profile"].get("mounts", []) == mounts
    assert set(resolved.slots) == {"s"}


def test_a_model_inside_of_the_image_makes_no_slot() -> None:
    assert only("compose", service(image=IMAGE, command="-m /baked/in.gguf"))[0] == {}


def test_a_path_that_leads_out_of_an_unknown_folder_makes_no_slot_and_no_other_path() -> None:
    text = "models: {a: {cmd: llama-server -m ../shared/x.gguf}, b: {cmd: llama-server -m ./y/.z.gguf}}"
    found, resolved = imported("llama-swap", text)
    assert [slot.spec.model_path for slot in resolved.slots.values()] == ["/models/y/.z.gguf"]
    assert [lost.why for lost in found.lost if lost.what == "../shared/x.gguf"] == [
        "leads out of a folder that is not known: a slot needs a file of the host"
    ]


def test_a_mount_that_hal0s_own_would_hide_is_moved_and_the_flags_follow() -> None:
    command = "-m /models/a.gguf --chat-template-file=/models/p --lora /models/l.gguf,/models2/x.gguf"
    slot, profile, _ = only("compose", service(image=IMAGE, command=command, volumes=["/m:/models"]))
    assert profile["mounts"] == ["/m:/imported/models"]
    assert slot["args"] == [
        "--chat-template-file=/imported/models/p",
        "--lora",
        "/imported/models/l.gguf,/models2/x.gguf",
    ]


@pytest.mark.parametrize(
    ("keys", "devices", "device"),
    [
        ({"runtime": "nvidia"}, ["nvidia.com/gpu=all"], "gpu-cuda"),
        ({"gpus": "all"}, ["nvidia.com/gpu=all"], "gpu-cuda"),
        ({"deploy": [{"driver": "nvidia", "count": 2}]}, ["nvidia.com/gpu=0", "nvidia.com/gpu=1"], "gpu-cuda"),
        ({"deploy": [{"device_ids": ["3"]}]}, ["nvidia.com/gpu=3"], "gpu-cuda"),
        ({"deploy": [{"driver": "cdi", "device_ids": ["nvidia.com/gpu=1"]}]}, ["nvidia.com/gpu=1"], "gpu-cuda"),
        ({"devices": ["/dev/kfd", "/dev/dri"]}, ["/dev/kfd", "/dev/dri"], "gpu-rocm"),
        ({"devices": ["/dev/dri"]}, ["/dev/dri"], "gpu-vulkan"),
        ({}, None, None),
    ],
)
def test_the_gpus_of_a_service(keys: dict[str, Any], devices: list[str] | None, device: str | None) -> None:
    if "deploy" in keys:
        keys = {"deploy": {"resources": {"reservations": {"devices": keys["deploy"]}}}}
    slot, profile, _ = only("compose", service(image=IMAGE, command="-m a.gguf", **keys))
    assert (profile.get("devices"), slot.get("device")) == (devices, device)


@pytest.mark.parametrize(
    ("text", "values", "expected"),
    [
        ("${TAG:-server}", {}, "server"),
        ("$TAG", {"TAG": "b1"}, "b1"),
        ("${TAG:+set}x", {}, "x"),
        ("$$TAG", {"TAG": "b1"}, "$TAG"),
    ],
)
def test_variables_of_compose(text: str, values: dict[str, str], expected: str) -> None:
    slot, _, _ = only("compose", service(image=IMAGE, command=["-m", "a.gguf", "--x", text]), values=values)
    assert slot["args"] == ["--x", expected]


def test_a_variable_without_a_value_takes_its_flag_with_it_and_says_how_to_give_one() -> None:
    found, _ = imported("compose", service(image=IMAGE, command="-m a.gguf --draft ${N} --jinja"))
    (lost,) = [lost for lost in found.lost if lost.what == "--draft"]
    assert lost.why == "the variable N has no value here: --set N=VALUE gives it one"
    assert found.manifests[-1]["args"] == ["--jinja"]


@pytest.mark.parametrize(
    "command",
    [
        ["bash", "-c", "exec /app/llama-server -m a.gguf --jinja"],
        ["/app/llama-server -m a.gguf --jinja"],
        ["--server", "-m", "a.gguf", "--jinja"],
    ],
)
def test_a_shell_that_only_starts_the_engine_is_left_out(command: list[str]) -> None:
    slot, _, _ = only("compose", service(image=IMAGE, command=command))
    assert slot["args"] == ["--jinja"]


@pytest.mark.parametrize(
    "command",
    [
        "--model /m/llama --dtype auto",
        "vllm serve /m/llama --dtype auto",
        "python3 -m vllm.entrypoints.openai.api_server --model=/m/llama --dtype auto",
    ],
)
def test_each_way_to_start_vllm_is_one(command: str) -> None:
    slot, profile, _ = only("compose", service(image="vllm/vllm-openai", command=command, volumes=["/srv:/m"]))
    assert slot["args"] == ["--dtype", "auto"]
    assert (profile["engine"], profile["entrypoint"]) == ("vllm", "vllm")


def model_of(cmd: str) -> tuple[dict[str, Any], dict[str, Any], set[str]]:
    """Import a command of llama-server; return the Model without its name, the slot, and what was lost."""
    found, _ = imported("llama-swap", swap(f"llama-server {cmd}"))
    by_kind = {manifest["kind"]: manifest for manifest in found.manifests}
    model = {key: value for key, value in by_kind["Model"].items() if key not in {"kind", "name"}}
    return model, by_kind["Slot"], {lost.what for lost in found.lost}


@pytest.mark.parametrize(
    ("cmd", "expected"),
    [
        ("-hf org/m-GGUF -hff m.gguf", {"source": {"repo": "org/m-GGUF", "file": "m.gguf"}}),
        (
            "--hf-repo=org/m --hf-file q/m.gguf -m /d/m",
            {"path": "/d/m", "source": {"repo": "org/m", "file": "q/m.gguf"}},
        ),
        ("-mu https://h/d/m.gguf?x=1", {"source": {"url": "https://h/d/m.gguf?x=1"}}),
        (
            "--model-url https://h/m.gguf --model /d/n.gguf",
            {"path": "/d/n.gguf", "source": {"url": "https://h/m.gguf"}},
        ),
        ("-m /d/m.gguf --mmproj /d/p/mmproj.gguf", {"path": "/d/m.gguf", "mmproj": "/d/p/mmproj.gguf"}),
        ("-m d/m.gguf -mm mmproj.gguf", {"path": "d/m.gguf", "mmproj": "mmproj.gguf"}),
    ],
)
def test_where_a_model_comes_from(cmd: str, expected: dict[str, Any]) -> None:
    model, slot, _ = model_of(cmd)
    assert (model, "args" in slot) == (expected, False)


@pytest.mark.parametrize("char", ["\x85", "\u2028", "\u2029", "\ufeff", "\t", "\x7f"])
def test_a_character_that_no_terminal_shows_is_printed_and_read_back(char: str) -> None:
    found, _ = imported("compose", service(image=IMAGE, command=["-m", f"{char}0.gguf"]))
    assert found.manifests[0]["path"] == f"{char}0.gguf"


@pytest.mark.parametrize(("repo", "file"), [("org/m-GGUF:Q8_0", "m-Q8_0.gguf"), ("org/m-gguf", "m-Q4_K_M.gguf")])
def test_a_repository_without_a_file_is_guessed_and_told(repo: str, file: str) -> None:
    model, _, lost = model_of(f"-hf {repo}")
    assert model["source"]["file"] == file
    assert f"the name of {file}" in lost


@pytest.mark.parametrize("model", ["/d/m.gguf", "d/m.gguf"])
def test_a_vision_part_that_no_slot_sees_beside_its_model_stays_a_flag(model: str) -> None:
    _, slot, lost = model_of(f"-m {model} --mmproj /e/mmproj.gguf")
    assert slot["args"] == ["--mmproj", "/e/mmproj.gguf"]
    assert "the file /e/mmproj.gguf" in lost


def test_one_file_from_two_places_is_one_model() -> None:
    models = {name: {"cmd": f"llama-server -mu https://{name}/m.gguf"} for name in "ab"}
    found, resolved = imported("llama-swap", json.dumps({"models": models}))
    assert {slot.spec.model for slot in resolved.slots.values()} == {"m"}
    assert ("models.b", "the source of m.gguf") in {(lost.where, lost.what) for lost in found.lost}


WHISPER_IMAGE = "ggml-org/whisper.cpp:main"


@pytest.mark.parametrize(
    ("image", "command", "keys", "expected"),
    [
        ("ggml-org/llama.cpp:server", "-m a.gguf", {}, None),
        ("ggml-org/llama.cpp:server-cuda", "-m a.gguf -ngl 99", {"gpus": "all"}, None),
        ("ggml-org/llama.cpp:server-cuda", "-m a.gguf", {"gpus": "all"}, {"devices": ["nvidia.com/gpu=all"]}),
        ("ggml-org/llama.cpp:server", "-m a.gguf --embedding", {}, "llama-server-cpu"),
        ("ggml-org/llama.cpp:server", "-m a.gguf --embedding -ub 512", {}, None),
        (WHISPER_IMAGE, "whisper-server -m a.bin -l de", {}, None),
        (WHISPER_IMAGE, "whisper-server -m a.bin", {}, {"engine": "whisper-server", "entrypoint": "whisper-server"}),
        ("leejet/stable-diffusion.cpp:master", "-m a.gguf", {}, None),
        ("vllm/vllm-openai:latest", "--model m", {"gpus": "all"}, "vllm-cuda"),
        ("vllm/vllm-openai:latest", "--model m", {"gpus": "all", "shm_size": "4g"}, "vllm-cuda"),
        ("vllm/vllm-openai:latest", "--model m", {"gpus": "all", "shm_size": "8g"}, {"extends": "vllm-cuda"}),
    ],
)
def test_a_seed_profile_is_taken_where_the_command_stays_the_same(
    image: str, command: str, keys: dict[str, Any], expected: str | dict[str, str] | None
) -> None:
    slot, profile, _ = only("compose", service(image=image, command=command, **keys))
    if isinstance(expected, dict):
        assert expected.items() <= profile.items()
    else:
        assert (slot.get("profile"), profile) == (expected, {})


def commands_of(text: str) -> dict[str, list[str]]:
    """Return each slot's engine and its flags; all layers on the GPU are one number of them."""
    _, resolved = imported("compose", text)
    slots = {name: slot for name, slot in resolved.slots.items() if slot.spec.engine != "vllm"}
    return {name: sorted(plain_layers(slot.launch.argv)) for name, slot in slots.items()}


def plain_layers(argv: tuple[str, ...]) -> list[str]:
    after = dict(pairwise(argv)).get("--n-gpu-layers", "")
    is_all = after and not (after.isdigit() and int(after) < 99)
    return [word for word in argv if "label=hal0.spec" not in word and (word != after or not is_all)]


@settings(max_examples=50)
@given(st.dictionaries(st.sampled_from("ab"), tables(SERVICE_KEYS), min_size=1))
def test_a_profile_that_extends_a_seed_runs_the_command_of_one_that_does_not(services: dict[str, Any]) -> None:
    text = as_text({"services": services})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(profiles, "_seed", lambda *_: None)
        alone = commands_of(text)
    assert commands_of(text) == alone


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("llama-swap", swap("docker run --shm-size 2g llama.cpp -m a.gguf")),
        ("compose", service(image=IMAGE, command="-m a.gguf", shm_size="2gb")),
        ("quadlet", "[Container]\nImage=a/llama.cpp\nExec=-m a.gguf\nShmSize=2g\n"),
    ],
)
def test_shared_memory_is_carried_over(kind: str, text: str) -> None:
    assert only(kind, text)[1]["shm_size"] == "2Gi"


@pytest.mark.parametrize(("start", "ports"), [(10001, "10001-10100"), (65500, "65500-65535"), (0, None), (70000, None)])
def test_slots_take_ports_from_where_llama_swap_did(start: int, ports: str | None) -> None:
    text = json.dumps({"startPort": start, "models": {"m": {"cmd": "llama-server -m /a.gguf"}}})
    hosts = [manifest for manifest in imported("llama-swap", text)[0].manifests if manifest["kind"] == "Host"]
    assert [host.get("slot_ports") for host in hosts] == [ports] * len(hosts)
    assert bool(hosts) == bool(ports)


def test_ports_are_one_each_and_hal0s_own_stays_its_own() -> None:
    services = {
        name: {"image": IMAGE, "command": "-m a.gguf", "ports": [port]}
        for name, port in {"a": "8080:8080", "b": "0.0.0.0:9000:8080", "c": "9000:8080"}.items()
    }
    _, resolved = imported("compose", json.dumps({"services": services}))
    assert {name: slot.spec.port for name, slot in resolved.slots.items()} == {"a": 8081, "b": 9000, "c": 8082}


def test_a_quadlets_empty_value_takes_back_those_before_it() -> None:
    text = "[Container]\nImage=a/llama.cpp\nExec=-m a.gguf\nAddDevice=/dev/dri\nAddDevice=\nAddDevice=/dev/kfd\n"
    assert only("quadlet", text)[1]["devices"] == ["/dev/kfd"]


@pytest.mark.parametrize(
    ("kind", "text", "said"),
    [
        ("llama-swap", "models: [", "a.yaml:1: "),
        ("llama-swap", "services: {}", "a.yaml has no table 'models'"),
        ("compose", "", "a.yaml has no table 'services'"),
        ("quadlet", "[Pod]\nPodName=x\n", "a.container has no [Container] with an Image"),
    ],
)
def test_a_file_of_another_kind_is_an_error_that_says_so(kind: str, text: str, said: str) -> None:
    with pytest.raises(UsageError, match=re.escape(said)):
        imported(kind, text)
