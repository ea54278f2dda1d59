"""Command lines of engines: which engine it is, and what its flags say that hal0 says by keys of its own."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto

from hal0.core import flags
from hal0.core.enginekinds import ENGINES as ENGINE_KINDS
from hal0.core.importing.words import holds_secret, unknown_in
from hal0.core.schema import Device, Engine, SlotType


class Says(Enum):
    """What the value of an engine's flag is."""

    MODEL = auto()
    REPO = auto()  # of the Hugging Face hub, perhaps with :QUANT
    REPO_FILE = auto()
    URL = auto()
    MMPROJ = auto()
    CONTEXT = auto()
    NAME = auto()
    LAYERS = auto()  # on the GPU
    OURS = auto()  # hal0 says it itself, and it needs no telling


@dataclass(frozen=True, slots=True)
class Known:
    """An engine: how it is recognised, and what its flags are, by their keys (``hal0.core.enginekinds``).

    ``like`` is the seed profile that says how its program is called, whatever it computes on. ``seeds`` are further
    ones by device, of an engine that no type of slot has by default. ``defaults`` are flags with the value that the
    engine has without them.
    """

    engine: Engine
    like: str
    in_image: tuple[str, ...]
    flags: Mapping[str, Says]
    type: SlotType = SlotType.LLM
    types: Mapping[str, SlotType] = field(default_factory=dict)  # by a flag that takes no value
    leaders: tuple[str, ...] = ()  # words before the first flag that hal0 says itself
    seeds: Mapping[Device, str] = field(default_factory=dict)
    defaults: Mapping[str, str] = field(default_factory=dict)
    gpu: Device = Device.CPU  # that it computes on where nothing says another

    @property
    def name(self) -> str:
        """What its program and hal0 call it."""
        return self.engine.value

    @property
    def is_llama(self) -> bool:
        """Whether it is the engine that slots of text have by default."""
        return self.engine is Engine.LLAMA_SERVER


@dataclass(frozen=True, slots=True)
class Command:
    """An engine's command line, read: what is known of it, and the words that remain the engine's own."""

    says: Mapping[Says, str]
    type: SlotType
    rest: tuple[str, ...]
    model_flag: str
    lost: tuple[tuple[str, str], ...]


_LLAMA = Known(
    Engine.LLAMA_SERVER,
    "llama-server-cpu",
    ("llama.cpp", "llama-server", "llama-cpp"),
    {
        "--model": Says.MODEL,
        "--hf-repo": Says.REPO,
        "--hf-file": Says.REPO_FILE,
        "--model-url": Says.URL,
        "--mmproj": Says.MMPROJ,
        "--ctx-size": Says.CONTEXT,
        "--alias": Says.NAME,
        "--gpu-layers": Says.LAYERS,
        **dict.fromkeys(("--host", "--port", "--api-prefix", "--metrics", "--server"), Says.OURS),
    },
    types={"--embeddings": SlotType.EMBEDDING, "--reranking": SlotType.RERANKING},
    leaders=("--server",),
)
_VLLM = Known(
    Engine.VLLM,
    "vllm-cuda",
    ("vllm",),
    {
        "--model": Says.MODEL,
        "--max-model-len": Says.CONTEXT,
        "--served-model-name": Says.NAME,
        **dict.fromkeys(("-m", "--host", "--port"), Says.OURS),  # python -m vllm.entrypoints.openai.api_server
    },
    leaders=("serve", "python", "python3"),
    seeds={Device.GPU_CUDA: "vllm-cuda"},
    defaults={"--gpu-memory-utilization": "0.9"},
    gpu=Device.GPU_CUDA,
)
_WHISPER = Known(
    Engine.WHISPER_SERVER,
    "whisper-server-cpu",
    ("whisper.cpp", "whisper-cpp", "whisper-server"),
    {
        "--model": Says.MODEL,
        **dict.fromkeys(("--host", "--port", "--inference-path", "--request-path"), Says.OURS),
    },
    SlotType.TRANSCRIPTION,
)
_DIFFUSION = Known(
    Engine.SD_SERVER,
    "sd-server-cpu",
    ("stable-diffusion.cpp", "sd-server"),
    {
        "--model": Says.MODEL,
        **dict.fromkeys(("--listen-ip", "--listen-port"), Says.OURS),
    },
    SlotType.IMAGE,
)
ENGINES = (_LLAMA, _VLLM, _WHISPER, _DIFFUSION)
KNOWN = ", ".join(kind.name for kind in ENGINES)
_OWN_FLAGS = {
    "LLAMA_ARG_MODEL": "--model",
    "LLAMA_ARG_MODEL_URL": "--model-url",
    "LLAMA_ARG_HF_REPO": "--hf-repo",
    "LLAMA_ARG_HF_FILE": "--hf-file",
    "LLAMA_ARG_MMPROJ": "--mmproj",
    "LLAMA_ARG_THREADS": "--threads",  # hal0 says how many by a flag, which goes before the variable
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


def by_program(word: str) -> Known | None:
    """Return the engine of a program, be it a path, or a name with a version behind it."""
    name = posixpath.basename(word)
    return next((kind for kind in ENGINES if name.startswith(kind.name)), None)


def by_image(image: str) -> Known | None:
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


def read(kind: Known, words: Iterable[str]) -> Command:
    """Read a command line of an engine, its program left out."""
    says: dict[Says, str] = {}
    slot_type, rest, model_flag, lost = kind.type, list[str](), "--model", list[tuple[str, str]]()
    for flag in flags.read(list(words), ENGINE_KINDS[kind.engine].flags):
        values = [*flag.values]
        if not flag.key:
            free = [word for word in values if word not in kind.leaders]
            says |= {Says.MODEL: free[0]} if free and kind is _VLLM else {}
        elif holds_secret(flag.name, " ".join(values)):
            lost.append((flag.name, "holds a secret: hal0 asks for keys itself (api_keys of the Host manifest)"))
        elif flag.key in kind.types:
            slot_type = kind.types[flag.key]
        elif flag.key in kind.flags:
            says |= {kind.flags[flag.key]: values[0]} if values else {}
            model_flag = flag.name if kind.flags[flag.key] is Says.MODEL else model_flag
        elif name := unknown_in(flag.words):
            lost.append((flag.name, f"the variable {name} has no value here: --set {name}=VALUE gives it one"))
        else:
            rest += flag.words
    return Command(says, slot_type, tuple(rest), model_flag, tuple(lost))
