"""llama-server's flags, as many as xllamacpp takes: one table from flags to fields of ``CommonParams``."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_CACHE_TYPES = ("f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "iq4_nl", "q5_0", "q5_1")


@dataclass(frozen=True, slots=True)
class Flag:
    """A flag that takes a value; ``target`` is the field, with dots where it is nested."""

    names: tuple[str, ...]
    target: str
    parse: Callable[[str], object]
    default: object = None
    help: str = ""


@dataclass(frozen=True, slots=True)
class Switch:
    """A flag without a value, which sets ``target`` to ``value``."""

    names: tuple[str, ...]
    target: str
    value: bool = True


@dataclass(frozen=True, slots=True)
class Choice:
    """A flag whose words are members of an enumeration of xllamacpp: in capitals, unless ``members`` says."""

    names: tuple[str, ...]
    target: str
    enum: str
    prefix: str
    words: tuple[str, ...]
    members: Mapping[str, str] = field(default_factory=dict)

    def member(self, word: str) -> str:
        """Return the name of the enumeration's member for a word."""
        return self.prefix + self.members.get(word, word.upper())


def gpu_layers(text: str) -> int:
    """Return a number of layers; ``auto`` lets the engine fit them, ``all`` is more than any model has."""
    return {"auto": -1, "all": 999}.get(text) or int(text)


def aliases(text: str) -> set[str]:
    """Return the names that a comma separates."""
    return {name.strip() for name in text.split(",") if name.strip()}


def hosts(text: str) -> list[str]:
    """Return the addresses to listen on: one."""
    return [text]


FLAGS: tuple[Flag, ...] = (
    Flag(("-m", "--model"), "model.path", str, help="the GGUF file to serve (required)"),
    Flag(("--host",), "hostnames", hosts, default=["127.0.0.1"]),
    Flag(("--port",), "port", int, default=8080),
    Flag(("-a", "--alias"), "model_alias", aliases, help="the model's name in the API"),
    Flag(("-c", "--ctx-size"), "n_ctx", int, help="tokens of context, shared by all --parallel places"),
    Flag(("-n", "--predict", "--n-predict"), "n_predict", int),
    Flag(("-t", "--threads"), "cpuparams.n_threads", int, help="default: the CPUs this process may use"),
    Flag(("-tb", "--threads-batch"), "cpuparams_batch.n_threads", int, help="default: as --threads"),
    Flag(("--threads-http",), "n_threads_http", int),
    Flag(("-np", "--parallel"), "n_parallel", int, help="requests served at the same time"),
    Flag(("-ngl", "--gpu-layers", "--n-gpu-layers"), "n_gpu_layers", gpu_layers),
    Flag(("-mg", "--main-gpu"), "main_gpu", int),
    Flag(("-b", "--batch-size"), "n_batch", int),
    Flag(("-ub", "--ubatch-size"), "n_ubatch", int),
    Flag(("--keep",), "n_keep", int),
    Flag(("--chat-template",), "chat_template", str),
    Flag(("-mm", "--mmproj"), "mmproj.path", str),
    Flag(("-cram", "--cache-ram"), "cache_ram_mib", int, help="MiB of host memory for saved prompts"),
    Flag(("--cache-reuse",), "n_cache_reuse", int),
    Flag(("-to", "--timeout"), "timeout_read", int),
    Flag(("--sleep-idle-seconds",), "sleep_idle_seconds", int, help="let go of the model after so long unused"),
    Flag(("--slot-save-path",), "slot_save_path", str),
    Flag(("--api-prefix",), "api_prefix", str),
    Flag(("-s", "--seed"), "sampling.seed", int),
    Flag(("--temp", "--temperature"), "sampling.temp", float),
    Flag(("--top-k",), "sampling.top_k", int),
    Flag(("--top-p",), "sampling.top_p", float),
    Flag(("--min-p",), "sampling.min_p", float),
    Flag(("-lv", "--verbosity", "--log-verbosity"), "verbosity", int),
)

SWITCHES: tuple[Switch, ...] = (
    Switch(("--embedding", "--embeddings"), "embedding"),
    Switch(("--metrics",), "endpoint_metrics"),
    Switch(("--props",), "endpoint_props"),
    Switch(("--slots",), "endpoint_slots"),
    Switch(("--no-slots",), "endpoint_slots", value=False),
    Switch(("--jinja",), "use_jinja"),
    Switch(("--no-jinja",), "use_jinja", value=False),
    Switch(("--no-warmup",), "warmup", value=False),
    Switch(("--no-webui", "--no-ui"), "ui", value=False),
    Switch(("-nocb", "--no-cont-batching"), "cont_batching", value=False),
    Switch(("--no-cache-prompt",), "cache_prompt", value=False),
    Switch(("-kvu", "--kv-unified"), "kv_unified"),
    Switch(("--context-shift",), "ctx_shift"),
    Switch(("--check-tensors",), "check_tensors"),
)

CHOICES: tuple[Choice, ...] = (
    Choice(
        ("--pooling",),
        "pooling_type",
        "llama_pooling_type",
        "LLAMA_POOLING_TYPE_",
        ("none", "mean", "cls", "last", "rank"),
    ),
    Choice(
        ("-fa", "--flash-attn"),
        "flash_attn_type",
        "llama_flash_attn_type",
        "LLAMA_FLASH_ATTN_TYPE_",
        ("on", "off", "auto"),
        {"on": "ENABLED", "off": "DISABLED"},
    ),
    Choice(("-ctk", "--cache-type-k"), "cache_type_k", "ggml_type", "GGML_TYPE_", _CACHE_TYPES),
    Choice(("-ctv", "--cache-type-v"), "cache_type_v", "ggml_type", "GGML_TYPE_", _CACHE_TYPES),
    Choice(
        ("-sm", "--split-mode"),
        "split_mode",
        "llama_split_mode",
        "LLAMA_SPLIT_MODE_",
        ("none", "layer", "row"),
    ),
)


class Parser(argparse.ArgumentParser):
    """Takes whole flags only, and answers an unknown one with the list of those it knows."""

    def __init__(self, prog: str, description: str) -> None:
        super().__init__(prog=prog, description=description, allow_abbrev=False)
        for flag in FLAGS:
            self.add_argument(*flag.names, dest=flag.target, type=flag.parse, default=flag.default, help=flag.help)
        for switch in SWITCHES:
            self.add_argument(*switch.names, dest=switch.target, action="store_const", const=switch.value)
        for choice in CHOICES:
            self.add_argument(*choice.names, dest=choice.target, choices=choice.words)
        self.add_argument("--reranking", "--rerank", dest="reranking", action="store_true")

    def settings(self, argv: Sequence[str]) -> dict[str, Any]:
        """Return the target of each flag that was given or has a default, and ``reranking``. Exits with 2."""
        found, unknown = self.parse_known_args(argv)
        if unknown:
            self.error(f"unknown: {' '.join(unknown)}; known flags are {' '.join(self.known())}")
        given = {target: value for target, value in vars(found).items() if value is not None}
        if "model.path" not in given:
            self.error("--model is required: a GGUF file")
        return given

    def known(self) -> list[str]:
        """Return every long flag, sorted."""
        return sorted(name for name in self._option_string_actions if name.startswith("--"))

    def error(self, message: str) -> NoReturn:
        """Say what is wrong on one line, without the long usage; exits with 2."""
        self.exit(2, f"{self.prog}: error: {message}\n")
