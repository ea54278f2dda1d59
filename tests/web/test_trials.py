"""/api: an apply that has to keep its word, and what is told of a spec that was rejected."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from aiohttp import ClientSession
from plane import engine_on, said, served, until
from scenes import MODEL, Scene, slot, slots

from hal0.core.state import SlotState

READY = SlotState.READY
BAD = {**MODEL, **slot("chat", args="[--bad]")}


async def fetched(client: ClientSession, path: str) -> Any:
    async with client.get(path) as answer:
        assert answer.status == 200
        return await answer.json()


async def posted(scene: Scene, client: ClientSession, path: str, **body: object) -> list[dict[str, Any]]:
    async with asyncio.timeout(20), scene.driven(flowing=True), client.post(path, json=body) as answer:
        assert answer.status == 200
        return [json.loads(line) async for line in answer.content]


async def test_a_rejected_spec_is_told_in_the_recap_the_plan_the_slot_and_the_history(scene: Scene) -> None:
    scene.declare(slots("chat"))
    await scene.until(lambda: scene.states() == {"chat": READY})
    scene.host.doomed.add("--bad")
    scene.declare(BAD)
    async with served(scene) as (client, _):
        recap = (await posted(scene, client, "/api/apply", who="eve", atomic=True))[-1]
        found = await fetched(client, "/api/slots/chat")
        plan = await fetched(client, "/api/plan")
        (row,) = (await fetched(client, "/api/history?limit=1"))["applies"]
        why = await fetched(client, "/api/slots/chat/why")
        scene.host.doomed.clear()
        again = (await posted(scene, client, "/api/slots/chat/retry"))[-1]
        after = await fetched(client, "/api/slots/chat")
    assert recap["converged"] is False
    assert recap["slots"]["chat"]["message"] == f"rolled back: {found['rejected']['text']}"
    assert found["state"] == "ready"
    assert found["rejected"]["spec_hash"] != found["spec_hash"]
    assert plan["changes"] == []
    assert plan["rejections"] == [found["rejected"]]
    assert (row["atomic"], row["result"], row["who"]) == (True, "rolled-back", "eve")
    assert [(act["action"], act["rule"], act["by"]) for act in why["acts"][:2]] == [
        ("update", "trial", "eve"),
        ("reject", "trial", "eve"),
    ]
    assert again["converged"] is True
    assert (after["rejected"], after["trial"], after["spec_hash"]) == (None, None, found["rejected"]["spec_hash"])


async def test_a_request_waits_for_the_proof_of_the_new_engine(scene: Scene) -> None:
    async with engine_on() as engine:
        scene.host.images["ggml-org/llama.cpp:server"] = "id"
        scene.declare(MODEL, slot("chat", port=engine.port))
        scene.completer.hold = asyncio.Event()
        async with served(scene) as (client, _), scene.driven():
            apply = asyncio.create_task(client.post("/api/apply", json={"atomic": True}))
            await until(lambda: scene.completer.asked)
            found = await fetched(client, "/api/slots/chat")
            request = asyncio.create_task(said(client, body={"model": "chat"}))
            await until(lambda: scene.reconciler.demands.waiting("chat"))
            assert (found["state"], found["trial"]["who"], engine.asked) == ("ready", "api", [])
            scene.completer.hold.set()
            status, _ = await request
            await (await apply).release()
    assert status == 200


@pytest.mark.parametrize("path", ["/api/apply", "/api/rollback"])
async def test_atomic_is_true_or_false(scene: Scene, path: str) -> None:
    async with served(scene) as (client, _), client.post(path, json={"atomic": "yes"}) as answer:
        assert answer.status == 400
        assert "atomic" in await answer.text()
