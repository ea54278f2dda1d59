from __future__ import annotations

import json
from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import asked_models, catalogues, snapshots
from worlds import desired

from hal0.core.endpoints import ENDPOINTS, Endpoint
from hal0.core.explain import endpoint_of, explain
from hal0.core.routes import Decision, Listing, Routes, routes
from hal0.core.state import SlotState
from hal0.core.status import SlotStatus, Snapshot
from hal0.core.wire import VERSION, Json
from hal0.errors import UsageError

FOUND = desired(
    """
kind: Model
name: qwen
path: qwen.gguf
---
kind: Slot
name: chat
model: qwen
port: 8085
fallback: [backup, cloud/gpt, theirs/claude]
---
kind: Slot
name: backup
model: qwen
port: 8086
---
kind: Upstream
name: cloud
base_url: https://api.example/openai/v1/
models: [gpt]
fallback: [chat]
---
kind: Upstream
name: theirs
base_url: https://api.example/v1
api: anthropic
models: [claude]
---
kind: Upstream
name: cold
base_url: http://10.0.0.1/v1
"""
)
CHAT = ENDPOINTS["/v1/chat/completions"]
BACKUP = {
    "rule": "loaded",
    "reason": "slot backup has it and is up",
    "code": "",
    "ask_first": [],
    "target": {
        "kind": "slot",
        "name": "backup",
        "model": "qwen",
        "url": "http://127.0.0.1:8086/v1/chat/completions",
        "state": "serving",
        "ready": True,
    },
}


def table(catalogue: Mapping[str, Listing] | None = None) -> Routes:
    states = {"chat": SlotState.OFFLINE, "backup": SlotState.SERVING}
    specs = {name: FOUND.slots[name].spec for name in states}
    slots = {name: SlotStatus(name, state, 0.0, (), specs[name], specs[name], name) for name, state in states.items()}
    return routes(Snapshot(slots, models=FOUND.models, upstreams=FOUND.upstreams), catalogue)


def told(model: str | None, path: str = "/v1/chat/completions", catalogue: Mapping[str, Listing] | None = None) -> Json:
    return explain(table(catalogue), model, ENDPOINTS[path])


# Paths.


@pytest.mark.parametrize("path", ENDPOINTS)
def test_a_path_is_known_with_its_prefix_and_without(path: str) -> None:
    assert endpoint_of(path) is ENDPOINTS[path]
    assert endpoint_of(path.removeprefix("/v1")) is ENDPOINTS[path]
    assert endpoint_of(path.removeprefix("/v1/")) is ENDPOINTS[path]


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("/v1/embedings", "did you mean '/v1/embeddings'?"),
        ("", "one of /v1/chat/completions, /v1/completions, "),
        ("/v1", "one of /v1/chat/completions, "),
        ("/metrics", "one of /v1/chat/completions, "),
    ],
)
def test_a_path_that_is_not_routed_is_refused_with_what_was_probably_meant(path: str, hint: str) -> None:
    with pytest.raises(UsageError, match="is no path that hal0 routes") as caught:
        endpoint_of(path)
    assert caught.value.hint.startswith(hint)


# What is told.


def test_a_decision_on_a_slot_names_its_address_its_state_and_each_fallback() -> None:
    assert told("chat") == {
        "version": VERSION,
        "model": "chat",
        "path": "/v1/chat/completions",
        "rule": "bound",
        "reason": "the manifests give it to slot chat",
        "code": "",
        "ask_first": [],
        "target": {
            "kind": "slot",
            "name": "chat",
            "model": "qwen",
            "url": "http://127.0.0.1:8085/v1/chat/completions",
            "state": "offline",
            "ready": False,
        },
        "fallback": [
            {"model": "backup"} | BACKUP,
            {
                "model": "cloud/gpt",
                "rule": "upstream",
                "reason": "upstream cloud lists it",
                "code": "",
                "ask_first": [],
                "target": {
                    "kind": "upstream",
                    "name": "cloud",
                    "model": "gpt",
                    "url": "https://api.example/openai/v1/chat/completions",
                },
            },
            {
                "model": "theirs/claude",
                "rule": "prefetch",
                "reason": "upstreams have not told yet what they have",
                "code": "",
                "ask_first": ["cold"],
                "target": None,
            },
        ],
    }


def test_an_upstreams_fallback_is_told_as_well() -> None:
    found = told("gpt")
    assert (found["rule"], found["target"]["name"]) == ("upstream", "cloud")
    assert [(each["model"], each["target"]["name"]) for each in found["fallback"]] == [("chat", "chat")]


def test_a_request_that_goes_nowhere_is_told_with_its_error_and_without_fallback() -> None:
    found = told("nobody", catalogue={"cold": Listing()})
    assert (found["rule"], found["code"], found["target"], found["fallback"]) == ("none", "model.not_found", None, [])
    missing = told(None, "/v1/embeddings")
    assert (missing["model"], missing["rule"], missing["code"]) == (None, "default", "request.no_model")


@pytest.mark.parametrize(
    ("path", "url"),
    [
        ("/v1/chat/completions", "http://127.0.0.1:8086/v1/chat/completions"),
        ("/v1/tokenize", "http://127.0.0.1:8086/tokenize"),
        ("/v1/rerankings", "http://127.0.0.1:8086/v1/rerank"),
    ],
)
def test_a_slots_address_is_where_its_engine_has_the_path(path: str, url: str) -> None:
    assert told("backup", path)["target"]["url"] == url


def test_an_upstreams_base_address_stands_for_v1() -> None:
    assert told("claude", "/v1/messages")["target"]["url"] == "https://api.example/v1/messages"


def decided(decision: Decision) -> Json:
    """Return the part of a decision that is told of it in any world."""
    return {
        "rule": decision.rule.value,
        "code": decision.code,
        "name": decision.target and decision.target.name,
        "ask_first": [spec.name for spec in decision.cold],
    }


def shown(found: Json) -> Json:
    return {
        **{key: found[key] for key in ("rule", "code", "ask_first")},
        "name": found["target"] and found["target"]["name"],
    }


@settings(max_examples=100, deadline=None)
@given(snapshots(), catalogues(), st.sampled_from(list(ENDPOINTS.values())), st.data())
def test_what_is_told_is_json_and_what_the_table_decides(
    snapshot: Snapshot, catalogue: dict[str, Listing], endpoint: Endpoint, data: st.DataObject
) -> None:
    model = data.draw(asked_models(snapshot, catalogue) | st.none())
    found = routes(snapshot, catalogue)
    text = explain(found, model, endpoint)
    assert json.loads(json.dumps(text)) == text
    decision = found.decide(model, endpoint)
    assert shown(text) == decided(decision)
    names = decision.target.fallback if decision.target else ()
    assert [each["model"] for each in text["fallback"]] == list(names)
    assert [shown(each) for each in text["fallback"]] == [decided(found.decide(name, endpoint)) for name in names]
