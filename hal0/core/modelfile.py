"""A model on disk as a value: how large it is, and what its header says."""

from __future__ import annotations

from dataclasses import dataclass

from hal0.core.facts import Fact


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What a model's file says of itself.

    ``size`` is that of all its parts. ``kv_heads`` has one number for each layer: the heads whose keys and values are
    kept, 0 where a layer keeps none. ``head_k`` and ``head_v`` are elements of one head's key and value.
    """

    architecture: str
    size: int
    layers: int
    kv_heads: tuple[int, ...]
    head_k: int
    head_v: int
    context_length: int


@dataclass(frozen=True, slots=True)
class ModelCard:
    """What a model's file says of itself to a reader; what it does not say is empty, or None.

    ``parameters`` are counted in its tensors. ``kind`` is ``model``, or what else a file may hold: ``mmproj``,
    ``adapter``.
    """

    architecture: str = ""
    title: str = ""
    kind: str = "model"
    parameters: int | None = None
    quantization: str = ""
    context_length: int | None = None
    chat_template: str = ""


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A model on disk: the bytes of all its parts, and what its header says."""

    size: Fact[int]
    facts: Fact[ModelFacts]
