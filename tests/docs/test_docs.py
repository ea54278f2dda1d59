"""Undocumented means red. Tables are generated: ``HAL0_UPDATE_DOCS=1 pytest tests/docs`` writes them anew."""

from __future__ import annotations

import ast
import os
import re
import tomllib
from collections.abc import Iterable, Iterator
from enum import StrEnum
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args, get_origin, get_type_hints

import pytest
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from typer.main import get_command

from hal0.cli.app import app
from hal0.core import capability, fields, schema
from hal0.core.breaker import BreakerState
from hal0.core.conditions import ConditionType
from hal0.core.documents import parse_file
from hal0.core.endpoints import ENDPOINTS, engine_paths
from hal0.core.kinds import KINDS
from hal0.core.observed import Activity
from hal0.core.quantity import parse_size, show_duration
from hal0.core.routes import Rule
from hal0.core.state import EDGES, SlotState
from hal0.core.steps import Action, StepKind
from hal0.core.validate import validate
from hal0.dispatch.measures import Measures
from hal0.web.app import make_app
from hal0.web.metrics import Metrics

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = ["../README.md", *sorted(str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md"))]
UPDATE = bool(os.environ.get("HAL0_UPDATE_DOCS"))

_WORDS: tuple[tuple[object, str], ...] = (
    (fields.Name, "name"),
    (fields.ModelId, "model id"),
    (fields.Line, "text, one line"),
    (fields.Args, "list of words"),
    (fields.Env, "table of texts"),
    (fields.Duration, "duration (seconds)"),
    (fields.Size, "size (bytes)"),
    (fields.Port, "port, 1-65535"),
    (fields.Tokens, "whole number (tokens)"),
    (fields.Priority, "whole number, -100 to 100"),
    (fields.Positive, "whole number, 1 or more"),
    (fields.Count, "whole number, 0 or more"),
    (fields.BaseUrl, "address of an API"),
    (fields.SourceUrl, "address of a file"),
    (fields.RepoName, "owner/name"),
    (fields.RepoFile, "path in a repository"),
    (fields.Revision, "git revision"),
    (fields.Sha256, "64 hexadecimal digits"),
    (schema.SourceManifest, "table"),
    (fields.Variable, "name of a variable"),
    (fields.AbsolutePath, "absolute path"),
    (fields.Credential, "name of a credential"),
    (list[fields.ModelId], "list of model ids"),
    (list[fields.Name], "list of names"),
    (schema.Pools, "table of pools"),
    (capability.Switch, "true, false, or a table of a Slot's keys"),
    (list[fields.Line], "list of texts"),
    (dict[fields.EnginePath, fields.EnginePath], "table of paths"),
    (dict[fields.HeaderName, fields.Line], "table of texts"),
    (schema.SecretManifest, "place of a secret"),
    (str, "text"),
    (bool, "true or false"),
    (float, "number"),
)

# Keys that a manifest of a kind, or one with a certain key, has to have besides those that are required.
ALSO = {
    "Model": ("path",),
    **{f"Model.source.{key}": ("source.repo", "source.file") for key in ("repo", "file", "revision")},
    "Model.source.include": ("source.repo",),
}

# An example of each key, as YAML has it. A key without one is a KeyError here.
EXAMPLES: dict[str, dict[str, str]] = {
    "Slot": {
        "kind": "Slot",
        "name": "chat",
        "type": "embedding",
        "model": "qwen3-8b",
        "profile": "llama-server-vulkan",
        "device": "gpu-vulkan",
        "run": "on-demand",
        "port": "8085",
        "context_size": "8192",
        "aliases": "[gpt-4o-mini, default]",
        "idle_timeout": "15m",
        "sleep_after": "5m",
        "env": "{LLAMA_LOG_COLORS: '0'}",
        "args": "[--parallel, 2]",
        "limits.memory": "8Gi",
        "limits.cpus": "4",
        "defaults": "{temperature: 0.7}",
        "strip": "[logprobs]",
        "set": "{cache_prompt: true}",
        "load_wait": "30s",
        "queue": "64",
        "concurrency": "4",
        "max_keep_alive": "4h",
        "abort": "drain",
        "drain_timeout": "2m",
        "fallback": "[small, cloud/big-model]",
        "suspend": "true",
        "drift": "heal-when-idle",
        "priority": "10",
        "pinned": "true",
        "exclusive_with": "[pictures]",
        "claim": "9Gi",
        "pool": "gpu1",
        "replace": "in-place",
    },
    "Model": {
        "kind": "Model",
        "name": "qwen3-8b",
        "path": "qwen3-8b-q4_k_m.gguf",
        "source": "{repo: Qwen/Qwen3-8B-GGUF, file: Qwen3-8B-Q4_K_M.gguf}",
        "source.url": "https://example.com/models/qwen3-8b.gguf",
        "source.repo": "Qwen/Qwen3-8B-GGUF",
        "source.file": "Qwen3-8B-Q4_K_M.gguf",
        "source.revision": "main",
        "source.include": "['*.safetensors', '*.json']",
        "sha256": "0f3c8e5d6a7b4c1d2e9f8a7b6c5d4e3f2a1b0c9d8e7f6a5b4c3d2e1f0a9b8c7d",
        "mmproj": "mmproj-F16.gguf",
        "fetch": "manual",
        "aliases": "[qwen3]",
        "context_size": "32768",
        "defaults": "{top_p: 0.9}",
    },
    "Profile": {
        "kind": "Profile",
        "name": "fast",
        "extends": "llama-server-vulkan",
        "engine": "llama-server",
        "image": "ggml-org/llama.cpp:server",
        "entrypoint": "/app/llama-server",
        "command": "['{python}', -P, -m, hal0.engine.xllamacpp]",
        "args": "[--n-gpu-layers, 999]",
        "env": "{GGML_VK_VISIBLE_DEVICES: '0'}",
        "devices": "[/dev/dri]",
        "groups": "[video, render]",
        "mounts": "['/srv/cache:/cache:ro']",
        "shm_size": "2Gi",
        "port": "8080",
        "probe": "/health",
        "paths": "{/v1/audio/transcriptions: /inference}",
        "start_deadline": "10m",
        "stop_timeout": "20s",
    },
    "Upstream": {
        "kind": "Upstream",
        "name": "cloud",
        "base_url": "https://api.example.com/v1",
        "api": "anthropic",
        "api_key": "{credential: cloud-key}",
        "api_key.env": "CLOUD_KEY",
        "api_key.file": "/etc/hal0/keys/cloud",
        "api_key.credential": "cloud-key",
        "models": "[big-model, small-model]",
        "refresh": "1h",
        "prefix": "theirs/",
        "headers": "{X-Project: home}",
        "connect_timeout": "2s",
        "idle_timeout": "5m",
        "failures": "3",
        "cooldown": "1m",
        "fallback": "[chat]",
    },
    "Capability": {
        "kind": "Capability",
        "name": "embed",
        "embed": "true",
        "rerank": "{model: my-reranker, idle_timeout: 5m}",
        "stt": "{device: gpu-vulkan}",
        "tts": "false",
        "img": "{model: pictures, run: always}",
        "vision": "{context_size: 4096}",
    },
    "Host": {
        "kind": "Host",
        "name": "host",
        "listen": "127.0.0.1:8080",
        "model_dir": "/srv/models",
        "model_dirs": "[/srv/models, /home/eve/.cache/huggingface/hub]",
        "slot_ports": "8081-8099",
        "image_registry": "registry.example/mirror",
        "resync": "30s",
        "load_wait": "1m",
        "max_body": "256Mi",
        "api_keys": "{file: /etc/hal0/keys/clients}",
        "api_keys.env": "CLIENT_KEYS",
        "api_keys.file": "/etc/hal0/keys/clients",
        "api_keys.credential": "client-keys",
        "commit": "true",
        "pools": "{ram: 24Gi, gpu: {size: 16Gi, reserve: 1Gi}}",
        "share_gpu_with_images": "true",
    },
}


def page(name: str) -> str:
    return (DOCS / name).read_text()


def missing(words: Iterable[str], name: str) -> list[str]:
    """Return the words that a page does not name as code."""
    text = page(name)
    return sorted({word for word in words if f"`{word}`" not in text})


def generated(name: str, block: str, body: str) -> None:
    """Hold a page to a generated block, or put the block in place."""
    begin, end = f"<!-- generated: {block} -->\n", "<!-- end -->"
    text = page(name)
    head, found, rest = text.partition(begin)
    assert found, f"docs/{name} has no block {begin!r}"
    old, _, tail = rest.partition(end)
    if UPDATE and old != body:
        (DOCS / name).write_text(head + begin + body + end + tail)
        return
    assert old == body, f"docs/{name}, {block}: write it anew with HAL0_UPDATE_DOCS=1"


def rows(head: tuple[str, ...], lines: Iterable[tuple[str, ...]]) -> str:
    cells = [head, tuple("---" for _ in head), *lines]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in cells)


# Manifests: every key of every kind.


def type_words(hint: Any) -> str:
    for known, words in _WORDS:
        if hint == known:
            return words
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return "one of " + ", ".join(f"`{word.value}`" for word in hint)
    inner = [part for part in get_args(hint) if part is not type(None)]
    if len(inner) == 1 and isinstance(inner[0], str):
        return f"`{inner[0]}`"
    if get_args(hint) == (str, Any):
        return "table of anything"
    assert inner, f"say in _WORDS what {hint} is called"
    return type_words(inner[0])


def default_words(field: FieldInfo, words: str) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if value is None or value in ([], {}):
        return "none"
    if words.startswith("duration"):
        return f"`{show_duration(value)}`".replace("m0s", "m").replace(".0s", "s")
    if words.startswith("size"):
        text = f"{value // 2**20}Mi"
        assert parse_size(text) == value
        return f"`{text}`"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def keys(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, str, str, str]]:
    """Yield key, type, default and meaning of every key, those of nested parts with dots."""
    hints = get_type_hints(model, include_extras=True)
    for name, field in model.model_fields.items():
        hint = hints[name]
        if (part := nested(hint)) is None or field.description:
            words = type_words(hint)
            yield f"{prefix}{name}", words, default_words(field, words), field.description or ""
        if part is not None:
            yield from keys(part, f"{prefix}{name}.")


def nested(hint: Any) -> type[BaseModel] | None:
    """Return the model of a part that is a table with keys of its own; it may be left out where None is allowed."""
    if get_origin(hint) is dict or hint == capability.Switch:
        return None
    options = [option for option in (hint, *get_args(hint)) if isinstance(option, type)]
    return next((option for option in options if issubclass(option, BaseModel)), None)


def yaml_key(key: str, value: str) -> str:
    outer, dot, inner = key.partition(".")
    return f"{outer}: {{{inner}: {value}}}\n" if dot else f"{key}: {value}\n"


@pytest.mark.parametrize("kind", KINDS)
def test_every_key_is_in_its_table(kind: str) -> None:
    lines = [
        (f"`{key}`", words, default, f"`{EXAMPLES[kind][key]}`", meaning)
        for key, words, default, meaning in keys(KINDS[kind])
    ]
    generated("manifests.md", kind, rows(("key", "type", "default", "example", "meaning"), lines))


@pytest.mark.parametrize("kind", KINDS)
def test_every_example_of_a_key_is_valid(kind: str) -> None:
    model = KINDS[kind]
    assert set(EXAMPLES[kind]) == {key for key, *_ in keys(model)}
    required = [name for name, field in model.model_fields.items() if field.is_required()]
    for key, value in EXAMPLES[kind].items():
        names = dict.fromkeys([*required, *ALSO.get(f"{kind}.{key}", ALSO.get(kind, ())), key])
        text = "".join(yaml_key(name, EXAMPLES[kind][name]) for name in names)
        text = text.replace("}\nsource: {", ", ")  # parts of one table
        documents, errors = parse_file("example.yaml", text)
        assert [*errors, *validate(documents)[1]] == [], f"{kind}.{key}: {value}"


def code_blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("name", PAGES)
def test_every_manifest_that_is_shown_is_valid(name: str) -> None:
    for language in ("yaml", "toml"):
        for block in code_blocks(page(name), language):
            documents, errors = parse_file(f"{name}.{language}", block)
            assert [*errors, *validate(documents)[1]] == []


# The command line: every command and option.


def commands(command: Any, path: str = "hal0") -> Iterator[tuple[str, Any]]:
    """Yield every command that does something, with the words that call it."""
    inner = getattr(command, "commands", None)
    if inner is None:
        yield path, command
    for name, each in (inner or {}).items():
        yield from commands(each, f"{path} {name}")


def parameters(command: Any) -> Iterator[tuple[str, str, str]]:
    """Yield each parameter as it is typed, its default, and what it says of itself."""
    for found in command.params:
        is_option = found.param_type_name == "option"
        typed = ", ".join([*found.opts, *found.secondary_opts]) if is_option else (found.metavar or found.name.upper())
        default = "" if found.default is None or isinstance(found.default, bool) else f"`{found.default}`"
        yield f"`{typed}`", default, (found.help or "").rstrip(".")


def test_every_command_and_option_is_listed() -> None:
    parts = []
    for name, command in commands(get_command(app)):
        lines = list(parameters(command))
        table = rows(("option", "default", "meaning"), lines) + "\n" if lines else ""
        parts.append(f"### `{name}`\n\n{command.help}\n\n{table}")
    generated("cli.md", "commands", "\n" + "".join(parts))


# Codes, reasons, metrics and routes: every one that the code can give.


def texts(*paths: Path) -> Iterator[str]:
    """Yield the string constants of some modules, docstrings left out."""
    for path in paths:
        tree = ast.parse(path.read_text())
        docs = {
            id(node.body[0].value)
            for node in ast.walk(tree)
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
            and isinstance(node.body[0], ast.Expr)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs:
                yield node.value


def modules(*folders: str) -> list[Path]:
    return [path for folder in folders for path in sorted((ROOT / "hal0" / folder).glob("*.py"))]


ANSWERS = {"Refusal", "Unreadable", "error_body", "error_response"}
"""What is called with a status and a code."""


def error_codes() -> set[str]:
    """Return what stands for a code where an error is made, and every dotted word."""
    paths = [*modules("dispatch", "web"), ROOT / "hal0" / "core" / "routes.py"]
    found = {text for text in texts(*paths) if re.fullmatch(r"[a-z]+\.[a-z_]+", text)}
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and called(node) in ANSWERS and len(node.args) > 1:
                code = node.args[1]
                found |= {str(code.value)} if isinstance(code, ast.Constant) else set()
    return found


def called(node: ast.Call) -> str:
    """Return the bare name of what is called."""
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


def reasons() -> set[str]:
    """Return every reason that a condition may have."""
    core = ROOT / "hal0" / "core"
    words = {text for text in texts(core / "conditions.py") if re.fullmatch(r"([A-Z][a-z]+)+", text)}
    refusals = {match[1] for text in texts(core / "plan.py") if (match := re.match(r"([A-Z][A-Za-z]+): ", text))}
    return words | refusals | {activity.value.capitalize() for activity in Activity}


def metrics() -> set[str]:
    return {text for text in texts(*modules("dispatch", "web")) if re.fullmatch(r"hal0_[a-z_]+", text)}


def api_routes() -> set[str]:
    """Return the routes of the aiohttp application, and those that the dispatcher takes before it."""
    dispatcher: Any = SimpleNamespace(reconciler=None)
    found = make_app(dispatcher, Metrics(dispatcher, Measures()), is_local=True).router.routes()
    paths = {(route.method, route.resource.canonical) for route in found if route.resource and route.method != "HEAD"}
    own = {"GET /v1/models", "GET /v1/models/{name}", *(f"POST {path}" for path in ENDPOINTS)}
    return own | {f"{method} {path}" for method, path in paths}


def test_every_error_code_is_listed() -> None:
    assert missing(error_codes(), "errors.md") == []


def test_every_condition_and_reason_is_listed() -> None:
    assert missing(reasons() | {kind.value for kind in ConditionType}, "status.md") == []


def test_every_state_with_its_edges_is_listed() -> None:
    lines = [(f"`{state}`", ", ".join(f"`{end}`" for end in ends)) for state, ends in EDGES.items()]
    assert len(lines) == len(SlotState)
    generated("status.md", "edges", rows(("from", "to"), lines))


def test_every_action_is_listed() -> None:
    assert missing((f"{action.symbol}` | `{action}" for action in Action), "status.md") == []


def test_every_metric_is_listed() -> None:
    assert missing(metrics(), "api.md") == []


def test_every_route_is_listed() -> None:
    assert missing(api_routes(), "api.md") == []


def test_every_endpoint_is_in_its_table() -> None:
    paths = engine_paths(schema.Engine.LLAMA_SERVER, {})
    lines = [
        (
            f"`POST {path}`",
            f"`{endpoint.type}`",
            "form" if endpoint.is_form else "JSON",
            "any" if endpoint.takes_any else "a known one",
            f"`{paths.get(path, path)}`",
            endpoint.api.value,
        )
        for path, endpoint in ENDPOINTS.items()
    ]
    head = ("endpoint", "slot type", "body", "model", "llama-server's", "errors")
    generated("api.md", "endpoints", rows(head, lines))


def test_every_rule_and_every_state_of_a_breaker_is_listed() -> None:
    assert missing([*(rule.value for rule in Rule), *(state.value for state in BreakerState)], "api.md") == []


def test_every_step_is_listed() -> None:
    assert missing((kind.name.lower().replace("_", "-") for kind in StepKind), "status.md") == []


def test_every_environment_variable_is_listed() -> None:
    found = {text for text in texts(*modules("cli", "host", "loop")) if re.fullmatch(r"HAL0_[A-Z]+", text)}
    assert missing(found, "operations.md") == []


def test_every_module_is_in_the_architecture() -> None:
    paths = [path.relative_to(ROOT).as_posix() for path in (ROOT / "hal0").rglob("*.py")]
    assert missing((path for path in paths if not path.endswith("__.py")), "architecture.md") == []


# The pages themselves.


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(name: str) -> None:
    for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page(name)):
        assert (DOCS / name).parent.joinpath(link).exists(), link


def test_the_example_of_pyproject_is_what_the_layers_page_says() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    assert missing(layers, "architecture.md") == []
