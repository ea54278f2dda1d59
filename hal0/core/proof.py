"""Whether an engine really answers: the cheapest real request of each type of slot, and what came of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hal0.core.schema import SlotType
from hal0.core.spec import SlotSpec

DEADLINE = 45.0
"""Seconds for an answer. With the patience before it, the verdict falls before a late probe alone is an error."""
_SERVER_FAULT = 500
_TALK: Mapping[str, Any] = {"messages": [{"role": "user", "content": "."}], "max_tokens": 1, "stream": False}
_QUESTIONS: Mapping[SlotType, tuple[str, Mapping[str, Any], str]] = {
    SlotType.LLM: ("/v1/chat/completions", _TALK, "choices"),
    SlotType.EMBEDDING: ("/v1/embeddings", {"input": "."}, "data"),
    SlotType.RERANKING: ("/v1/rerank", {"query": ".", "documents": ["."]}, "results"),
}


@dataclass(frozen=True, slots=True)
class Ask:
    """A request to an engine: where it goes, its JSON, and the member that a good answer has.

    ``deadline`` is in seconds, for the whole exchange.
    """

    path: str
    body: bytes
    member: str
    deadline: float = DEADLINE


@dataclass(frozen=True, slots=True)
class Reply:
    """What came of an ``Ask``: the status, 0 for none, and why it is no good answer, empty where it is one."""

    status: int
    error: str = ""


@dataclass(frozen=True, slots=True)
class Proof:
    """What a real request to an engine showed.

    ``invocation`` is the run of the service that was asked. ``at`` is when the answer came, or did not, on the loop's
    clock, after ``seconds``. ``suspected``: it was asked although the probe answered, since requests got no byte.
    """

    invocation: str
    ok: bool
    at: float
    seconds: float
    error: str = ""
    status: int = 0
    suspected: bool = False

    @property
    def is_refuted(self) -> bool:
        """Whether the engine does not work. One that finds fault with the question does."""
        return not self.ok and not 0 < self.status < _SERVER_FAULT


def ask_of(spec: SlotSpec, *, is_healthy: bool = False) -> Ask | None:
    """Return the request that proves a slot's engine; None for types that have no cheap one: their probe has to do.

    ``is_healthy``: its probe answers. It does so too while an engine that slept loads its model again.
    """
    if spec.type not in _QUESTIONS:
        return None
    path, question, member = _QUESTIONS[spec.type]
    body = {**spec.serving.set, **question, "model": spec.model}
    waking = spec.start_deadline if is_healthy and spec.sleep_after is not None else 0.0
    return Ask(spec.serving.paths.get(path, path), json.dumps(body).encode(), member, DEADLINE + waking)
