"""/v1/models: what can be asked for, from the Snapshot alone. It needs no key and wakes nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from hal0.core.routes import Routes, Target
from hal0.core.schema import SlotType
from hal0.core.status import SlotStatus, Snapshot

_MODALITIES: Mapping[SlotType, tuple[list[str], list[str]]] = {
    SlotType.LLM: (["text"], ["text"]),
    SlotType.EMBEDDING: (["text"], ["embedding"]),
    SlotType.RERANKING: (["text"], ["score"]),
    SlotType.TRANSCRIPTION: (["audio"], ["text"]),
    SlotType.TTS: (["text"], ["audio"]),
    SlotType.IMAGE: (["text", "image"], ["image"]),
}


def all_models(snapshot: Snapshot, table: Routes) -> bytes:
    """Return the list: slot names first, then model ids, then upstreams' models."""
    return json.dumps({"object": "list", "data": list(_entries(snapshot, table))}).encode()


def one_model(table: Routes, name: str) -> bytes | None:
    """Return one entry, under any name that a request may ask for; None where it leads nowhere."""
    slot = table.bound.get(name)
    if slot is not None:
        return json.dumps(_of_slot(name, table.loaded.get(name, slot))).encode()
    targets = table.listed.get(name)
    return json.dumps(_of_upstream(name, targets[0])).encode() if targets else None


def _entries(snapshot: Snapshot, table: Routes) -> Iterator[dict[str, Any]]:
    names = dict.fromkeys([*snapshot.slots, *(slot.spec.model for slot in snapshot.slots.values())])
    for name in names:
        if slot := table.loaded.get(name) or table.bound.get(name):
            yield _of_slot(name, slot)
    for name, targets in table.listed.items():
        upstream = targets[0].upstream
        is_listed = upstream and name == upstream.prefix + targets[0].model
        if is_listed and name not in table.bound:
            yield _of_upstream(name, targets[0])


def _of_slot(name: str, slot: SlotStatus) -> dict[str, Any]:
    size = slot.spec.context_size
    takes, gives = _MODALITIES[slot.spec.type]
    state = "loaded" if slot.state.is_dispatchable else "loading" if slot.state.is_loading else "unloaded"
    return {
        "id": name,
        "object": "model",
        "created": 0,
        "owned_by": "hal0",
        "name": name,
        "status": {"value": state},
        "meta": {"n_ctx": size},
        "context_length": size,
        "max_model_len": size,
        "architecture": {"input_modalities": takes, "output_modalities": gives},
    }


def _of_upstream(name: str, target: Target) -> dict[str, Any]:
    return {
        "id": name,
        "object": "model",
        "created": 0,
        "owned_by": target.name,
        "name": name,
        "status": {"value": "loaded"},
    }
