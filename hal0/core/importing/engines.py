"""Command lines of engines: which engine it is, and what its flags say that hal0 says by keys of its own."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto

from hal0.core.importing.words import groups, holds_secret, unknown_in
from hal0.core.schema import SlotType


class Says(Enum):
    """What the value of an engine's flag is."""

    MODEL = auto()
    REPO = auto()  # of the Hugging Face hub, perhaps with :QUANT
    REPO_FILE = auto()
    URL = auto()
    CONTEXT = auto()
    NAME = auto()
    PORT = auto()
    LAYERS = auto()  # on the GPU
    ROUTE = auto()  # where the engine serves what it is for
    PREFIX = auto()  # before all of its paths
    OURS = auto()  # hal0 says it itself, and it needs no telling


@dataclass(frozen=True, slots=True)
class EngineKind:
    """An engine: how it is recognised, what its flags are, and how hal0 calls it.

    ``call`` is its command line as a custom profile has it; empty for llama-server, whose command line hal0 knows.
    """

    name: str
    programs: tuple[str, ...]
    in_image: tuple[str, ...]
    image: str
    flags: Mapping[str, Says]
    type: SlotType = SlotType.LLM
    types: Mapping[str, SlotType] = field(default_factory=dict)  # by a flag that takes no value
    leaders: tuple[str, ...] = ()  # words before the first flag that hal0 says itself
    entrypoint: str = ""
    call: tuple[str, ...] = ()
    port: int = 8080
    probe: str = "/health"


@dataclass(frozen=True, slots=True)
class Command:
    """An engine's command line, read: what is known of it, and the words that remain the engine's own."""

    says: Mapping[Says, str]
    type: SlotType
    rest: tuple[str, ...]
    model_flag: str
    lost: tuple[tuple[str, str], ...]


_LLAMA = EngineKind(
    "llama-server",
    ("llama-server",),
    ("llama.cpp", "llama-server", "llama-cpp"),
    "ggml-org/llama.cpp:server",
    {
        **dict.fromkeys(("-m", "--model"), Says.MODEL),
        **dict.fromkeys(("-hf", "-hfr", "--hf-repo"), Says.REPO),
        **dict.fromkeys(("-hff", "--hf-file"), Says.REPO_FILE),
        **dict.fromkeys(("-mu", "--model-url"), Says.URL),
        **dict.fromkeys(("-c", "--ctx-size"), Says.CONTEXT),
        **dict.fromkeys(("-a", "--alias"), Says.NAME),
        **dict.fromkeys(("-ngl", "--gpu-layers", "--n-gpu-layers"), Says.LAYERS),
        **dict.fromkeys(("--host", "--metrics", "--server"), Says.OURS),
        "--port": Says.PORT,
    },
    types={
        **dict.fromkeys(("--embedding", "--embeddings"), SlotType.EMBEDDING),
        **dict.fromkeys(("--rerank", "--reranking"), SlotType.RERANKING),
    },
    leaders=("--server",),
)
_VLLM = EngineKind(
    "vllm",
    ("vllm",),
    ("vllm",),
    "vllm/vllm-openai:latest",
    {
        "--model": Says.MODEL,
        "--max-model-len": Says.CONTEXT,
        "--served-model-name": Says.NAME,
        **dict.fromkeys(("-m", "--host"), Says.OURS),  # python -m vllm.entrypoints.openai.api_server
        "--port": Says.PORT,
    },
    leaders=("serve", "python", "python3"),
    entrypoint="vllm",
    call=("serve", "{model}", "--host", "{host}", "--port", "{port}", "--served-model-name", "{served}"),
    port=8000,
)
_WHISPER = EngineKind(
    "whisper-server",
    ("whisper-server",),
    ("whisper.cpp", "whisper-cpp", "whisper-server"),
    "ggml-org/whisper.cpp:main",
    {
        **dict.fromkeys(("-m", "--model"), Says.MODEL),
        "--host": Says.OURS,
        "--port": Says.PORT,
        "--inference-path": Says.ROUTE,
        "--request-path": Says.PREFIX,
    },
    SlotType.TRANSCRIPTION,
    entrypoint="whisper-server",
    call=("--model", "{model}", "--host", "{host}", "--port", "{port}"),
    probe="/",
)
_DIFFUSION = EngineKind(
    "sd-server",
    ("sd-server",),
    ("stable-diffusion.cpp", "sd-server"),
    "leejet/stable-diffusion.cpp:master",
    {
        **dict.fromkeys(("-m", "--model", "--diffusion-model"), Says.MODEL),
        **dict.fromkeys(("-l", "--listen-ip"), Says.OURS),
        "--listen-port": Says.PORT,
    },
    SlotType.IMAGE,
    entrypoint="/sd-server",
    call=("{model_flag}", "{model}", "--listen-ip", "{host}", "--listen-port", "{port}"),
    port=1234,
    probe="/v1/models",
)
ENGINES = (_LLAMA, _VLLM, _WHISPER, _DIFFUSION)
KNOWN = ", ".join(kind.name for kind in ENGINES)
_OWN_FLAGS = {
    "LLAMA_ARG_MODEL": "--model",
    "LLAMA_ARG_MODEL_URL": "--model-url",
    "LLAMA_ARG_HF_REPO": "--hf-repo",
    "LLAMA_ARG_HF_FILE": "--hf-file",
    "LLAMA_ARG_CTX_SIZE": "--ctx-size",
    "LLAMA_ARG_ALIAS": "--alias",
    "LLAMA_ARG_N_GPU_LAYERS": "--n-gpu-layers",
    "LLAMA_ARG_HOST": "--host",
    "LLAMA_ARG_PORT": "--port",
}
_OWN_SWITCHES = {
    "LLAMA_ARG_EMBEDDINGS": "--embedding",
    "LLAMA_ARG_RERANKING": "--reranking",
    "LLAMA_ARG_ENDPOINT_METRICS": "--metrics",
}
_TRUE = frozenset({"1", "true", "on", "enabled"})
_SHELL = re.compile(r"[;&|<>`$()\n]")


def by_program(word: str) -> EngineKind | None:
    """Return the engine of a program, be it a path, or a name with a version behind it."""
    name = posixpath.basename(word)
    return next((kind for kind in ENGINES if name.startswith(kind.programs)), None)


def by_image(image: str) -> EngineKind | None:
    """Return the engine of an image by its name, which says nothing of its registry."""
    return next((kind for kind in ENGINES if any(word in image.lower() for word in kind.in_image)), None)


def without_shell(words: Sequence[str]) -> list[str] | None:
    """Return a command line that a shell was to run, where it is one plain command; None where it is a script."""
    if len(words) > 2 and posixpath.basename(words[0]) in {"sh", "bash"} and words[1] in {"-c", "-lc", "-ec"}:  # noqa: PLR2004
        return without_shell(words[2:])
    if len(words) == 1 and any(char.isspace() for char in words[0]):
        return None if _SHELL.search(words[0]) else words[0].removeprefix("exec ").split()
    return list(words)


def from_env(env: Mapping[str, str]) -> tuple[list[str], dict[str, str]]:
    """Return the flags that llama-server takes from its environment and hal0 has keys for, and the other variables."""
    words: list[str] = []
    for name, value in env.items():
        if flag := _OWN_FLAGS.get(name):
            words += [flag, value]
        elif (switch := _OWN_SWITCHES.get(name)) and value.lower() in _TRUE:
            words.append(switch)
    return words, {name: value for name, value in env.items() if name not in _OWN_FLAGS | _OWN_SWITCHES}


def read(kind: EngineKind, words: Iterable[str]) -> Command:
    """Read a command line of an engine, its program left out."""
    says: dict[Says, str] = {}
    slot_type, rest, model_flag, lost = kind.type, list[str](), "--model", list[tuple[str, str]]()
    for flag, values, written in groups(words):
        if not flag:
            free = [word for word in values if word not in kind.leaders]
            says |= {Says.MODEL: free[0]} if free and kind is _VLLM else {}
        elif holds_secret(flag, " ".join(values)):
            lost.append((flag, "holds a secret: hal0 asks for keys itself (api_keys of the Host manifest)"))
        elif flag in kind.types:
            slot_type = kind.types[flag]
        elif flag in kind.flags:
            says |= {kind.flags[flag]: values[0]} if values else {}
            model_flag = flag if kind.flags[flag] is Says.MODEL else model_flag
        elif name := unknown_in(written):
            lost.append((flag, f"the variable {name} has no value here: --set {name}=VALUE gives it one"))
        else:
            rest += written
    return Command(says, slot_type, tuple(rest), model_flag, tuple(lost))
