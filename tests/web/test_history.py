"""/api: history, why and rollback."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import ClientSession
from plane import engine_on, said, served, served_on_tcp, until
from scenes import MODEL, Scene, slot, slots

from hal0.core.state import SlotState
from hal0.errors import StepFailed
from hal0.host.manifests import ManifestRoot
from hal0.host.ports import MANIFESTS

READY = SlotState.READY


@pytest.fixture
async def local(scene: Scene) -> AsyncIterator[ClientSession]:
    """A client on the unix socket, of a host with one slot that is ready."""
    scene.declare(slots("chat"))
    await scene.until(lambda: scene.states() == {"chat": READY})
    async with served(scene) as (client, _):
        yield client


async def fetched(client: ClientSession, path: str, status: int = 200) -> Any:
    async with client.get(path) as answer:
        assert answer.status == status
        return await answer.json()


async def posted(client: ClientSession, path: str, **body: object) -> list[dict[str, Any]]:
    async with client.post(path, json=body) as answer:
        assert answer.status == 200
        return [json.loads(line) async for line in answer.content]


async def test_the_history_is_told_with_who_applied_what(local: ClientSession) -> None:
    await posted(local, "/api/apply", who="eve")
    await posted(local, "/api/apply")
    found = await fetched(local, "/api/history")
    assert [row["who"] for row in found["applies"]] == ["api", "eve", "manifests"]
    first = found["applies"][-1]
    assert (first["generation"], first["revision"], first["result"], first["changes"]) == (1, "abc", "converged", 1)
    assert [row["who"] for row in (await fetched(local, "/api/history?limit=1"))["applies"]] == ["api"]
    await fetched(local, "/api/history?limit=all", 400)


@pytest.mark.parametrize("who", ["", "x" * 65, 7])
async def test_a_name_that_is_none_is_the_clients_mistake(local: ClientSession, who: object) -> None:
    for path in ("/api/apply", "/api/rollback"):
        async with local.post(path, json={"who": who}) as answer:
            assert answer.status == 400


async def test_why_tells_of_the_requests_behind_it(scene: Scene) -> None:
    async with engine_on() as engine:
        scene.host.images["ggml-org/llama.cpp:server"] = "id"
        scene.declare(MODEL, slot("chat", run="on-demand", port=engine.port, load_wait="5s"))
        await scene.settle()
        async with served(scene) as (client, _), scene.driven():
            scene.runtime.faults["start chat"] = StepFailed("no such device")
            status, _ = await said(client, body={"model": "chat"}, **{"X-Request-Id": "the-first"})
            assert status == 502
            await until(lambda: scene.reconciler.requests.refusals("chat"))
            found = await fetched(client, "/api/slots/chat/why")
    assert found["verdict"]["why"].startswith("on demand: ")
    assert found["backoff"]["error"] == "no such device"
    (refusal,) = found["refusals"]
    assert (refusal["request"], refusal["code"], refusal["status"]) == ("the-first", "slot.load_failed", 502)
    assert found["acts"][0]["request"] in {"the-first", ""}
    assert found["acts"][0]["rule"] in {"demand", "manifests"}


async def test_a_wake_names_the_request(scene: Scene) -> None:
    async with engine_on() as engine:
        scene.host.images["ggml-org/llama.cpp:server"] = "id"
        scene.declare(MODEL, slot("chat", run="on-demand", port=engine.port))
        await scene.settle()
        async with served(scene) as (client, _), scene.driven():
            status, _ = await said(client, body={"model": "chat"}, **{"X-Request-Id": "the-first"})
            assert status == 200
            found = await fetched(client, "/api/slots/chat/why")
    assert (found["acts"][0]["rule"], found["acts"][0]["request"]) == ("demand", "the-first")
    assert found["refusals"] == []


async def test_why_of_a_slot_that_is_not_there_is_not_found(local: ClientSession) -> None:
    await fetched(local, "/api/slots/caht/why", 404)


async def test_a_rollback_streams_what_it_writes_and_what_follows(local: ClientSession, scene: Scene) -> None:
    root = scene.folder / "root"
    root.mkdir()
    scene.reconciler.source.root = ManifestRoot(root)
    for context_size in (7, 9):
        for file, text in {**MODEL, **slot("chat", context_size=context_size)}.items():
            (root / file).write_text(text)
        scene.reconciler.queue.add(MANIFESTS)
        await scene.pass_(5)
    async with asyncio.timeout(10), scene.driven():
        events = await posted(local, "/api/rollback", who="eve", rev="g2")
    assert [event["event"] for event in events[:2]] == ["rollback", "plan"]
    assert events[0]["written"] == ["chat.yaml"]
    assert events[-1]["converged"] is True
    assert "context_size: 7" in (root / "chat.yaml").read_text()
    row = (await fetched(local, "/api/history"))["applies"][0]
    assert (row["who"], row["summary"]) == ("eve", "rollback to g2")


async def test_a_rollback_to_nowhere_is_an_error_with_what_to_do(local: ClientSession) -> None:
    (event,) = await posted(local, "/api/rollback", rev="g99")
    assert (event["event"], event["exit_code"]) == ("error", 1)
    assert "hal0 history" in event["hint"]


async def test_a_rollback_is_not_taken_over_tcp_and_looks_are(scene: Scene) -> None:
    scene.declare(slots("chat"))
    async with served_on_tcp(scene) as address, ClientSession(address) as client:
        await scene.settle()
        async with client.post("/api/rollback", json={}) as answer:
            assert answer.status == 403
        await fetched(client, "/api/history")
        await fetched(client, "/api/slots/chat/why")
