from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from worlds import MODEL, desired

from hal0.core.facts import Fact, Known, Unknown
from hal0.core.observed import Activity, ProbeResult, Service, SlotObservation, unobserved
from hal0.core.proof import Proof, ask_of
from hal0.core.spec import SlotSpec

UP, LATE = ProbeResult.UP, ProbeResult.LATE
SILENCE = Proof("1", ok=False, at=50.0, seconds=45.0, error="no answer in 45 s")


def spec(**settings: str) -> SlotSpec:
    extra = "".join(f"{key}: {value}\n" for key, value in settings.items())
    return desired(f"{MODEL}---\nkind: Slot\nname: chat\nmodel: m\n{extra}").slots["chat"].spec


def asked(**settings: str) -> tuple[str, dict[str, Any], str]:
    ask = ask_of(spec(**settings))
    assert ask
    return ask.path, json.loads(ask.body), ask.member


def test_a_chat_engine_is_asked_for_one_token() -> None:
    path, body, member = asked()
    assert (path, body["model"], body["max_tokens"], body["stream"]) == ("/v1/chat/completions", "m", 1, False)
    assert body["messages"][0]["role"] == "user"
    assert member == "choices"


@pytest.mark.parametrize(
    ("type_", "path", "member"),
    [("embedding", "/v1/embeddings", "data"), ("reranking", "/v1/rerank", "results")],
)
def test_other_types_are_asked_for_what_they_do(type_: str, path: str, member: str) -> None:
    found = asked(type=type_)
    assert (found[0], found[2]) == (path, member)
    assert found[1]["model"] == "m"


def test_the_question_is_kept_cheap_whatever_the_slot_sets() -> None:
    _, body, _ = asked(set="{max_tokens: 4096, stream: true, reasoning: low}")
    assert (body["max_tokens"], body["stream"], body["reasoning"]) == (1, False, "low")


def test_the_engines_own_path_is_asked() -> None:
    moved = spec()
    ask = ask_of(replace(moved, serving=replace(moved.serving, paths={"/v1/chat/completions": "/chat"})))
    assert ask
    assert ask.path == "/chat"


@pytest.mark.parametrize("type_", ["tts", "transcription", "image"])
def test_types_without_a_cheap_request_are_not_asked(type_: str) -> None:
    profile = "---\nkind: Profile\nname: other\nengine: custom\nimage: x/y:z\n---\n"
    wanted = desired(f"{MODEL}{profile}kind: Slot\nname: chat\nmodel: m\ntype: {type_}\nprofile: other\n")
    assert ask_of(wanted.slots["chat"].spec) is None


@pytest.mark.parametrize(("status", "is_refuted"), [(0, True), (500, True), (503, True), (400, False), (404, False)])
def test_an_engine_that_finds_fault_with_the_question_is_not_refuted(status: int, *, is_refuted: bool) -> None:
    assert replace(SILENCE, status=status).is_refuted is is_refuted


def test_a_good_answer_refutes_nothing() -> None:
    assert not Proof("1", ok=True, at=0.0, seconds=0.1, status=200).is_refuted


# What a proof says of an observation.


def seen(probe: Fact[ProbeResult], proof: Proof, activity: Activity = Activity.ACTIVE) -> SlotObservation:
    service = Service(activity, invocation="1")
    return replace(unobserved("nobody looked"), service=Known(service), probe=probe, proof=Known(proof))


def test_a_probe_that_fails_and_a_request_without_an_answer_are_a_wedged_engine() -> None:
    assert seen(Known(LATE), SILENCE).wedged(serving=0) is SILENCE
    assert seen(Known(LATE), SILENCE).wedged(serving=3) is SILENCE


def test_a_proof_never_decides_while_requests_are_in_flight_and_the_probe_answers() -> None:
    suspected = replace(SILENCE, suspected=True)
    assert seen(Known(UP), suspected).wedged(serving=0) is suspected
    assert seen(Known(UP), suspected).wedged(serving=1) is None
    assert seen(Known(UP), SILENCE).wedged(serving=0) is None


@pytest.mark.parametrize(
    "observation",
    [
        seen(Known(LATE), replace(SILENCE, invocation="an earlier run")),
        seen(Known(LATE), replace(SILENCE, ok=True)),
        seen(Known(LATE), SILENCE, Activity.DEACTIVATING),
        seen(Unknown("not probed"), replace(SILENCE, suspected=True)),
        replace(seen(Known(LATE), SILENCE), service=Unknown("the bus is gone")),
        replace(seen(Known(LATE), SILENCE), proof=Unknown("not proved")),
    ],
)
def test_nothing_else_is_a_wedged_engine(observation: SlotObservation) -> None:
    assert observation.wedged(serving=0) is None
