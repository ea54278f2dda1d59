"""What a slot claims of its memory pool, with the arithmetic: stated, measured, estimated, or the size of its file."""

from __future__ import annotations

import json

from hal0.core.definition import digest
from hal0.core.enginekinds import ENGINES
from hal0.core.facts import Known, Unknown
from hal0.core.flags import Flag, last_of
from hal0.core.modelfile import ModelFacts, ModelFile
from hal0.core.pools import Claim, ClaimSource
from hal0.core.quantity import show_size
from hal0.core.schema import Device, Engine
from hal0.core.spec import SlotSpec

_KEYS = "--cache-type-k"
_VALUES = "--cache-type-v"
_CACHE_ON_HOST = frozenset({"-nkvo", "--no-kv-offload"})
_BLOCK = 32
_BLOCK_BYTES = {
    "f32": 128,
    "f16": 64,
    "bf16": 64,
    "q8_0": 34,
    "q5_1": 24,
    "q5_0": 22,
    "q4_1": 20,
    "q4_0": 18,
    "iq4_nl": 18,
}
"""Bytes of 32 elements of the KV cache, by llama.cpp's name of the type."""
_DEFAULT_TYPE = "f16"
_OVERHEAD_SHARE = 10
"""The overhead is this part of the weights: compute buffers grow with the model."""
_LEAST_OVERHEAD = 64 * 2**20


def claim_of(spec: SlotSpec, model: ModelFile, measured: int | None) -> Claim:
    """Return what a slot claims of its pool: the best that is known.

    ``measured`` is the most bytes that runs of its ``claim_key`` held; None where there were none.
    """
    if (stated := spec.placing.claim) is not None:
        return Claim(stated, ClaimSource.STATED, f"{show_size(stated)}, as its manifest says")
    if measured is not None:
        return Claim(measured, ClaimSource.MEASURED, f"{show_size(measured)}, the most that its last runs held")
    if spec.engine is Engine.LLAMA_SERVER and isinstance(model.facts, Known):
        return estimate(spec, model.facts.value)
    return _by_file(spec, model)


def claim_key(spec: SlotSpec, size: int | None) -> str:
    """Return what a measured run counts for: all that decides on a slot's memory.

    Its name, port and container are no part of it: the same spec elsewhere needs the same. ``size`` is the model's.
    """
    parts = [spec.model_path, size, spec.context_size, spec.args, dict(spec.env), spec.image, spec.entrypoint]
    parts += [spec.command, spec.device, spec.type, spec.engine, spec.threads, spec.memory]
    return digest(json.dumps(parts, sort_keys=True))


def estimate(spec: SlotSpec, facts: ModelFacts) -> Claim:
    """Return what llama.cpp's server will hold of a model: weights, KV cache for its context, and an overhead.

    On a GPU it is what ``--n-gpu-layers`` puts there. The weights of a layer count as an equal share of the file.
    Models whose layers do not all keep the whole context hold less than this.
    """
    tokens = _tokens(spec, facts)
    cache = _cache_of_layers(spec, facts, tokens)
    layers, cached = _on_gpu(spec, facts)
    weights_here = facts.size * layers // facts.layers
    cache_here = sum(cache[facts.layers - cached :])
    overhead = facts.size // _OVERHEAD_SHARE + _LEAST_OVERHEAD
    total = weights_here + cache_here + overhead
    rest = facts.size + sum(cache) - weights_here - cache_here
    how = (
        f"weights {show_size(weights_here)} + KV cache {show_size(cache_here)} ({_told_cache(spec, tokens)}) + overhead"
        f" {show_size(overhead)} = {show_size(total)}"
    )
    if rest:
        how += f"; {layers} of {facts.layers} layers are on the gpu, and {show_size(rest)} more in ram"
    return Claim(total, ClaimSource.ESTIMATED, how)


def is_context_fixed(spec: SlotSpec) -> bool:
    """Return whether arguments state the context, so that ``context_size`` has no say."""
    return _flag(spec, "--ctx-size") is not None


def _by_file(spec: SlotSpec, model: ModelFile) -> Claim:
    if isinstance(model.size, Unknown):
        return Claim(None, ClaimSource.UNKNOWN, model.size.reason)
    size = model.size.value
    why = model.facts.reason if isinstance(model.facts, Unknown) else f"the engine is {spec.engine}"
    return Claim(size, ClaimSource.FILE, f"{show_size(size)}, the size of its model's file ({why})")


def _cache_of_layers(spec: SlotSpec, facts: ModelFacts, tokens: int) -> list[int]:
    """Return the bytes of each layer's KV cache. A context is shared by all --parallel places, not had by each."""
    keys, values = (_block_bytes(spec, key) for key in (_KEYS, _VALUES))
    token = facts.head_k * keys + facts.head_v * values
    return [heads * token * tokens // _BLOCK for heads in facts.kv_heads]


def _on_gpu(spec: SlotSpec, facts: ModelFacts) -> tuple[int, int]:
    """Return how many layers' weights, and how many layers' caches, count for the slot's pool: the last ones."""
    if spec.device in {Device.CPU, Device.NPU}:
        return facts.layers, facts.layers
    layers = min(_gpu_layers(spec, facts.layers), facts.layers)
    offload = _flag(spec, "--kv-offload")
    return layers, 0 if offload and offload.name in _CACHE_ON_HOST else layers


def _gpu_layers(spec: SlotSpec, layers: int) -> int:
    """Return the layers that the engine is told to put on the GPU; what is not a number means all of them."""
    try:
        count = int(_value(spec, "--gpu-layers"))
    except ValueError:
        return layers
    return count if count >= 0 else layers


def _tokens(spec: SlotSpec, facts: ModelFacts) -> int:
    """Return the context that the engine is started with. Its own arguments come last and win; 0 is the model's."""
    try:
        tokens = int(_value(spec, "--ctx-size"))
    except ValueError:
        tokens = spec.context_size or 0
    return tokens if tokens > 0 else facts.context_length


def _told_cache(spec: SlotSpec, tokens: int) -> str:
    types = dict.fromkeys(_value(spec, key) or _DEFAULT_TYPE for key in (_KEYS, _VALUES))
    return f"{tokens} tokens, {'/'.join(types)}"


def _block_bytes(spec: SlotSpec, key: str) -> int:
    return _BLOCK_BYTES.get(_value(spec, key), _BLOCK_BYTES[_DEFAULT_TYPE])


def _value(spec: SlotSpec, key: str) -> str:
    """Return the value of a flag that a slot gives its engine; empty where it gives none."""
    flag = _flag(spec, key)
    return flag.values[0] if flag and flag.values else ""


def _flag(spec: SlotSpec, key: str) -> Flag | None:
    return last_of(spec.args, key, ENGINES[spec.engine].flags)
