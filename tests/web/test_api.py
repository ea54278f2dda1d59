from __future__ import annotations

import asyncio
import json
import stat
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import ClientPayloadError, ClientSession
from plane import Bench, engine_on, models_listed, scraped, served, served_on_tcp, until, upstream
from scenes import MODEL, Scene, slot, slots

from hal0.core.state import SlotState
from hal0.errors import HostUnreachable, UsageError
from hal0.web.app import serving


@pytest.fixture
async def local(scene: Scene) -> AsyncIterator[ClientSession]:
    """A client on the unix socket, of a host with one slot that is ready."""
    scene.declare(slots("chat"))
    await scene.until(lambda: scene.states() == {"chat": SlotState.READY})
    async with served(scene) as (client, _):
        yield client


@pytest.fixture
async def remote(scene: Scene) -> AsyncIterator[ClientSession]:
    """A client over TCP."""
    scene.declare(slots("chat"))
    async with served_on_tcp(scene) as address, ClientSession(address) as client:
        yield client


async def fetched(client: ClientSession, path: str, status: int = 200) -> Any:
    async with client.get(path) as answer:
        assert answer.status == status
        return await answer.json()


async def test_health_is_ok_after_the_first_look(scene: Scene) -> None:
    async with served(scene) as (client, _):
        assert await fetched(client, "/api/health", 503) == {"status": "starting"}
        await scene.settle()
        assert await fetched(client, "/api/health") == {"status": "ok"}


async def test_the_status_is_the_whole_picture(local: ClientSession) -> None:
    found = await fetched(local, "/api/status")
    assert set(found) == {
        *("version", "generation", "revision", "runtime", "root", "observed_at", "observe_age_seconds"),
        *("problems", "stale_pins", "plan", "pools", "slots"),
    }
    assert (found["version"], found["generation"], found["revision"], found["root"]) == (1, 1, "abc", "/manifests")
    assert found["plan"]["changes"] == found["problems"] == []


async def test_problems_are_told_with_file_and_line(local: ClientSession, scene: Scene) -> None:
    scene.declare(slots("chat"), {"bad.yaml": "kind: Slot\nname: bad\nmodel: nothing\n"})
    await scene.settle()
    (problem,) = (await fetched(local, "/api/status"))["problems"]
    assert (problem["file"], problem["line"], problem["key"]) == ("/manifests/bad.yaml", 3, "model")
    assert problem["text"].startswith("/manifests/bad.yaml:3: model: no Model 'nothing'")


async def test_slots_are_listed(local: ClientSession) -> None:
    found = await fetched(local, "/api/slots")
    (chat,) = found["slots"]
    assert found["version"] == 1
    assert (chat["name"], chat["state"], chat["ready"], chat["model"]) == ("chat", "ready", True, "m")
    assert [item["type"] for item in chat["conditions"]] == [
        *("Accepted", "Synced", "Running", "Ready", "Reconciling", "Stalled"),
    ]


async def test_a_slot_is_shown_with_all_that_is_known_of_it(local: ClientSession) -> None:
    listed = (await fetched(local, "/api/slots"))["slots"][0]
    found = await fetched(local, "/api/slots/chat")
    assert listed | found == found
    assert found["unit"] == "hal0-slot@chat.service"
    assert found["instance"]["running"] is True
    assert found["transitions"][0]["after"] == "ready"


async def test_a_slot_that_is_not_there_is_answered_with_the_closest_one(local: ClientSession) -> None:
    found = await fetched(local, "/api/slots/caht", 404)
    assert "'caht'" in found["error"]["message"]
    assert "chat" in found["error"]["message"]


async def test_the_plan_is_what_is_pending(local: ClientSession, scene: Scene) -> None:
    assert (await fetched(local, "/api/plan"))["changes"] == []
    scene.declare(MODEL, slot("chat", context_size=7))
    await scene.plan()
    (change,) = (await fetched(local, "/api/plan"))["changes"]
    assert (change["slot"], change["action"], change["symbol"], change["drift"]) == ("chat", "update", "~", False)
    assert change["steps"] == ["stop", "write", "reload", "reset_failed", "start"]
    assert "--ctx-size" in change["diff"]


async def test_the_first_page_says_what_there_is(local: ClientSession) -> None:
    async with local.get("/") as answer:
        assert "/api/status" in await answer.text()


# Logs.


async def test_the_last_lines_of_a_slots_log_are_text(local: ClientSession, scene: Scene) -> None:
    scene.runtime.last_lines = ["one", "two é", "three"]
    async with local.get("/api/slots/chat/logs?lines=2") as answer:
        assert answer.content_type == "text/plain"
        assert await answer.text() == "two é\nthree\n"


async def test_a_followed_log_goes_on_with_what_is_written(local: ClientSession, scene: Scene) -> None:
    scene.runtime.last_lines = ["one"]
    async with local.get("/api/slots/chat/logs?follow=1") as answer:
        assert await answer.text() == "one\nchat: one\n"


async def test_the_log_of_a_slot_that_is_not_there_is_not_found(local: ClientSession) -> None:
    await fetched(local, "/api/slots/nobody/logs", 404)


async def test_a_log_that_cant_be_read_now_is_an_error_to_come_again_for(local: ClientSession, scene: Scene) -> None:
    scene.runtime.faults["logs"] = HostUnreachable("journald does not answer")
    found = await fetched(local, "/api/slots/chat/logs", 503)
    assert found["error"]["message"] == "journald does not answer"


async def test_a_log_that_breaks_off_is_cut_off(local: ClientSession, scene: Scene) -> None:
    scene.runtime.last_lines = ["one"]
    scene.runtime.faults["follow"] = HostUnreachable("journald does not answer")
    async with local.get("/api/slots/chat/logs?follow=1") as answer:
        with pytest.raises(ClientPayloadError):
            await asyncio.wait_for(answer.read(), 10)


@pytest.mark.parametrize("lines", ["many", "", "-1"])
async def test_a_wrong_number_of_lines_is_the_clients_mistake(local: ClientSession, lines: str) -> None:
    found = await fetched(local, f"/api/slots/chat/logs?lines={lines}", 400)
    assert found["error"]["type"] == "invalid_request_error"


# Apply.


async def applied(client: ClientSession, scene: Scene, body: dict[str, object]) -> list[dict[str, Any]]:
    async with asyncio.timeout(10), client.post("/api/apply", json=body) as answer:
        assert (answer.status, answer.content_type) == (200, "application/x-ndjson")
        first = json.loads(await answer.content.readline())
        async with scene.driven():
            return [first] + [json.loads(line) async for line in answer.content]


async def test_an_apply_streams_what_happens_line_by_line(local: ClientSession, scene: Scene) -> None:
    scene.declare(slots("chat", "embed"))
    events = await applied(local, scene, {"root": None})
    assert events[0]["event"] == "plan"
    assert events[-1]["event"] == "recap"
    assert events[-1]["converged"] is True
    assert scene.host.starts == {"chat": 1, "embed": 1}


async def test_an_apply_of_the_root_that_is_served_is_taken_with_its_options(
    local: ClientSession, scene: Scene
) -> None:
    scene.declare(slots("chat", "embed"))
    asked = {"root": "/manifests", "limit": ["embed"], "prune_all": False, "timeout": 30}
    events = await applied(local, scene, asked)
    assert list(events[-1]["slots"]) == ["embed"]


async def test_an_apply_of_another_root_is_refused(local: ClientSession) -> None:
    async with local.post("/api/apply", json={"root": "/elsewhere"}) as answer:
        assert answer.status == 409
        message = (await answer.json())["error"]["message"]
    assert "the daemon serves /manifests, not /elsewhere" in message


async def test_an_apply_of_invalid_manifests_is_one_event_and_changes_nothing(
    local: ClientSession, scene: Scene
) -> None:
    scene.runtime.calls.clear()
    scene.declare({"bad.yaml": "kind: Slot\nname: bad\nmodel: {\n"})
    async with local.post("/api/apply", json={}) as answer:
        (event,) = [json.loads(line) async for line in answer.content]
    assert (event["event"], event["exit_code"]) == ("error", 1)
    assert "/manifests/bad.yaml:" in event["message"]
    assert scene.runtime.calls == []


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"7", b'{"limit": "chat"}', b'{"limit": [7]}', b'{"timeout": "soon"}', b'{"root": 7}']
)
async def test_an_apply_that_cant_be_read_is_the_clients_mistake(
    local: ClientSession, scene: Scene, body: bytes
) -> None:
    scene.runtime.calls.clear()
    async with local.post("/api/apply", data=body) as answer:
        assert answer.status in {400, 409}
        assert (await answer.json())["error"]["message"]
    assert scene.runtime.calls == []


async def test_what_changes_the_host_is_not_taken_over_tcp(remote: ClientSession, scene: Scene) -> None:
    async with remote.post("/api/apply", json={}) as answer:
        assert answer.status == 403
        assert (await answer.json())["error"]["code"] == "auth.local_only"
    assert scene.runtime.calls == []


async def test_logs_are_not_shown_over_tcp(remote: ClientSession, scene: Scene) -> None:
    await scene.settle()
    async with remote.get("/api/slots/chat/logs") as answer:
        assert answer.status == 403


async def test_the_picture_is_shown_over_tcp(remote: ClientSession, scene: Scene) -> None:
    await scene.settle()
    async with remote.get("/api/status") as answer:
        assert (await answer.json())["slots"][0]["name"] == "chat"


# Where it listens.


async def test_the_socket_is_its_owners_alone(bench: Bench) -> None:
    assert stat.S_IMODE(bench.socket.stat().st_mode) == 0o600


async def test_a_socket_left_by_a_killed_daemon_is_replaced(scene: Scene) -> None:
    left = scene.folder / "run" / "hal0.sock"
    left.parent.mkdir()
    left.touch()
    async with served(scene) as (client, socket):
        assert socket == left
        await fetched(client, "/api/health", 503)
    assert not left.exists()


async def test_an_address_that_is_taken_is_said_with_what_to_do(scene: Scene) -> None:
    taken = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    async with taken:
        address = f"127.0.0.1:{taken.sockets[0].getsockname()[1]}"
        with pytest.raises(UsageError, match=f"can't listen on {address}") as caught:
            async with serving(scene.reconciler, listen=address, socket=scene.folder / "hal0.sock"):
                pytest.fail("two listen on one address")
    assert "Host manifest" in caught.value.hint
    assert not (scene.folder / "hal0.sock").exists()


# Routes and upstreams.


async def test_a_route_is_explained_and_nothing_is_asked(bench: Bench) -> None:
    before = bench.scene.reconciler.demands.all
    bench.scene.clock.forward(1)
    found = await fetched(bench.client, "/api/route?model=gpt-4o")
    assert (found["model"], found["path"], found["rule"]) == ("gpt-4o", "/v1/chat/completions", "loaded")
    assert found["target"] == {
        "kind": "slot",
        "name": "chat",
        "model": "m",
        "url": f"http://127.0.0.1:{bench.engine.port}/v1/chat/completions",
        "state": "ready",
        "ready": True,
    }
    assert bench.engine.asked == []
    assert bench.scene.reconciler.demands.all == before


async def test_a_route_says_the_code_where_it_leads_nowhere(local: ClientSession) -> None:
    found = await fetched(local, "/api/route?model=nobody&path=completions")
    assert (found["rule"], found["code"], found["target"]) == ("none", "model.not_found", None)
    found = await fetched(local, "/api/route?path=/v1/embeddings")
    assert (found["rule"], found["code"], found["target"]) == ("default", "request.no_model", None)


async def test_a_route_of_a_path_that_is_none_is_the_clients_mistake(local: ClientSession) -> None:
    found = await fetched(local, "/api/route?model=chat&path=/v1/chat/completion", 400)
    assert "/v1/chat/completions" in found["error"]["message"]


async def test_a_route_tells_of_fallbacks_and_asks_upstreams_what_they_have(scene: Scene) -> None:
    async with engine_on(answer=models_listed("big")) as engine:
        url = f"http://127.0.0.1:{engine.port}/v1"
        scene.declare(MODEL, slot("chat", fallback="[far/big]"), upstream("far", url))
        await scene.settle()
        async with served(scene) as (client, _):
            found = await fetched(client, "/api/route?model=big")
            assert (found["rule"], found["target"]["url"]) == ("upstream", f"{url}/chat/completions")
            (fallback,) = (await fetched(client, "/api/route?model=chat"))["fallback"]
    assert (fallback["model"], fallback["target"]["name"], fallback["target"]["model"]) == ("far/big", "far", "big")
    assert [request.path for request in engine.asked] == ["/v1/models"]


async def test_upstreams_are_shown_with_their_breakers_and_what_they_list(scene: Scene) -> None:
    async with engine_on(answer=models_listed("a", "b")) as engine:
        url = f"http://127.0.0.1:{engine.port}/v1"
        scene.declare(upstream("far", url, prefix="f/"))
        await scene.settle()
        async with served(scene) as (client, _):
            await until(lambda: engine.asked)
            await fetched(client, "/api/route?model=a")
            found = await fetched(client, "/api/upstreams")
            metrics = await scraped(client)
    assert found["version"] == 1
    assert found["upstreams"] == [
        {
            "name": "far",
            "base_url": url,
            "api": "openai",
            "prefix": "f/",
            "breaker": "closed",
            "error": "",
            "list_error": "",
            "models": ["a", "b"],
        }
    ]
    assert metrics["hal0_upstream_up"] == {("far",): 1}
