"""A cross-encoder of 70 kB, as llama.cpp reads it. Its weights are made up: its scores are real, and mean nothing."""

from __future__ import annotations

import array
import math
from collections.abc import Iterable
from itertools import islice

from models.gguf_writer import Tensor, Value, gguf, weights

_WIDE, _INNER, _LONGEST = 32, 64, 128
_WORDS = "the a panda bear is it hello what lives in china rust gears"
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
_RANK = 4  # llama.cpp's LLAMA_POOLING_TYPE_RANK
_NORMAL, _CONTROL, _UNKNOWN = 1, 3, 2


def reranker() -> bytes:
    """Return the model's file: one layer of BERT with a head that ranks."""
    return gguf(_values(), _tensors())


def _tokens() -> list[str]:
    """Return the vocabulary: whole words, letters that begin one, and letters within one."""
    begins = ["\u2581" + word for word in [*_WORDS.split(), *_LETTERS, *"?.,"]]
    return list(dict.fromkeys([*_SPECIAL, *begins, *_LETTERS]))


def _values() -> dict[str, Value]:
    tokens = _tokens()
    kinds = [_CONTROL, _UNKNOWN, _CONTROL, _CONTROL, _CONTROL]
    return {
        "general.architecture": "bert",
        "general.name": "made by a test: scores mean nothing",
        "general.file_type": 0,
        "bert.block_count": 1,
        "bert.context_length": _LONGEST,
        "bert.embedding_length": _WIDE,
        "bert.feed_forward_length": _INNER,
        "bert.attention.head_count": 2,
        "bert.attention.layer_norm_epsilon": 1e-12,
        "bert.attention.causal": False,
        "bert.pooling_type": _RANK,
        "tokenizer.ggml.model": "bert",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": kinds + [_NORMAL] * (len(tokens) - len(kinds)),
        "tokenizer.ggml.scores": [-1000.0] * len(tokens),
        "tokenizer.ggml.token_type_count": 2,
        "tokenizer.ggml.padding_token_id": 0,
        "tokenizer.ggml.unknown_token_id": 1,
        "tokenizer.ggml.bos_token_id": 2,
        "tokenizer.ggml.cls_token_id": 2,
        "tokenizer.ggml.eos_token_id": 3,
        "tokenizer.ggml.seperator_token_id": 3,  # as llama.cpp spells it
        "tokenizer.ggml.mask_token_id": 4,
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.ggml.add_eos_token": True,
    }


def _tensors() -> list[Tensor]:
    drawn = weights(seed=1)

    def matrix(name: str, *shape: int) -> Tensor:
        return Tensor(f"{name}.weight", shape, array.array("f", islice(drawn, math.prod(shape))))

    def linear(name: str, inside: int, outside: int) -> Iterable[Tensor]:
        return matrix(name, inside, outside), _same(f"{name}.bias", outside, 0.0)

    def norm(name: str) -> Iterable[Tensor]:
        return _same(f"{name}.weight", _WIDE, 1.0), _same(f"{name}.bias", _WIDE, 0.0)

    attention = ("attn_q", "attn_k", "attn_v", "attn_output")
    return [
        matrix("token_embd", _WIDE, len(_tokens())),
        matrix("position_embd", _WIDE, _LONGEST),
        matrix("token_types", _WIDE, 2),
        *norm("token_embd_norm"),
        *(tensor for name in attention for tensor in linear(f"blk.0.{name}", _WIDE, _WIDE)),
        *norm("blk.0.attn_output_norm"),
        *linear("blk.0.ffn_up", _WIDE, _INNER),
        *linear("blk.0.ffn_down", _INNER, _WIDE),
        *norm("blk.0.layer_output_norm"),
        *linear("cls", _WIDE, _WIDE),
        *linear("cls.output", _WIDE, 1),
    ]


def _same(name: str, size: int, value: float) -> Tensor:
    return Tensor(name, (size,), array.array("f", [value] * size))
