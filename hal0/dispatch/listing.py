"""/v1/models: what can be asked for, from the Snapshot alone, in the words of the client's API.

It needs no key and wakes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from hal0.core.routes import Routes, Target
from hal0.core.schema import SlotType, UpstreamApi
from hal0.core.status import SlotStatus, Snapshot

_MODALITIES: Mapping[SlotType, tuple[list[str], list[str]]] = {
    SlotType.LLM: (["text"], ["text"]),
    SlotType.EMBEDDING: (["text"], ["embedding"]),
    SlotType.RERANKING: (["text"], ["score"]),
    SlotType.TRANSCRIPTION: (["audio"], ["text"]),
    SlotType.TTS: (["text"], ["audio"]),
    SlotType.IMAGE: (["text", "image"], ["image"]),
}
_UNKNOWN_DATE = "1970-01-01T00:00:00Z"
"""What Anthropic's API says where a model's date is not known."""


def all_models(snapshot: Snapshot, table: Routes, api: UpstreamApi) -> bytes:
    """Return the list, all of it on one page: slot names first, then model ids, then upstreams' models."""
    entries = [_worded(entry, api) for entry in _entries(snapshot, table)]
    if api is UpstreamApi.OPENAI:
        return json.dumps({"object": "list", "data": entries}).encode()
    ids = [entry["id"] for entry in entries] or [None]
    return json.dumps({"data": entries, "has_more": False, "first_id": ids[0], "last_id": ids[-1]}).encode()


def one_model(table: Routes, name: str, api: UpstreamApi) -> bytes | None:
    """Return one entry, under any name that a request may ask for; None where it leads nowhere."""
    slot, targets = table.bound.get(name), table.listed.get(name)
    if slot is not None:
        entry = _of_slot(name, table.loaded.get(name, slot))
    elif targets:
        entry = _of_upstream(name, targets[0])
    else:
        return None
    return json.dumps(_worded(entry, api)).encode()


def _entries(snapshot: Snapshot, table: Routes) -> Iterator[dict[str, Any]]:
    models = (spec.model for slot in snapshot.slots.values() for spec in (slot.serves, slot.spec))
    names = dict.fromkeys([*snapshot.slots, *models])
    for name in names:
        if slot := table.loaded.get(name) or table.bound.get(name):
            yield _of_slot(name, slot)
    for name, targets in table.listed.items():
        upstream = targets[0].upstream
        is_listed = upstream and name == upstream.prefix + targets[0].model
        if is_listed and name not in table.bound:
            yield _of_upstream(name, targets[0])


def _worded(entry: dict[str, Any], api: UpstreamApi) -> dict[str, Any]:
    """Return an entry as an API has it; Anthropic's has no word for whether a model is loaded."""
    if api is UpstreamApi.OPENAI:
        return entry
    return {
        "type": "model",
        "id": entry["id"],
        "display_name": entry["name"],
        "created_at": _UNKNOWN_DATE,
        "lifecycle": "active",
        "max_input_tokens": entry.get("context_length"),
    }


def _of_slot(name: str, slot: SlotStatus) -> dict[str, Any]:
    size = slot.serves.context_size
    takes, gives = _MODALITIES[slot.serves.type]
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
