from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import ClientSession
from plane import served_on_tcp
from scenes import MODEL, Scene, slot, slots

from hal0.core.state import SlotState

OWN = {
    "p.yaml": "kind: Profile\nname: own\nextends: llama-server-cpu\n"
    "args: [--temp, 1, -c, 8]\nenv: {HF_TOKEN: s3cret, A: b}\n",
}
CHAT = slot("chat", profile="own", args="[--ctx-size, 16, --api-key, s3cret]")


@pytest.fixture
async def remote(scene: Scene) -> AsyncIterator[ClientSession]:
    """A client over TCP, of a host that was looked at once."""
    scene.declare(MODEL, OWN, CHAT)
    await scene.settle()
    async with served_on_tcp(scene) as address, ClientSession(address) as client:
        yield client


async def fetched(client: ClientSession, path: str, status: int = 200) -> Any:
    async with client.get(path) as answer:
        assert answer.status == status
        return await answer.json()


async def test_a_command_is_told_with_its_origins_and_without_its_secrets(remote: ClientSession, scene: Scene) -> None:
    found = await fetched(remote, "/api/slots/chat/resolved")
    assert "s3cret" not in json.dumps(found)
    launched = scene.slot("chat").spec_hash
    assert (found["slot"], found["spec_hash"]) == ("chat", launched)
    assert found["argv"] == [word for part in found["parts"] for word in part["words"]]
    assert found["profiles"] == [
        {"name": "own", "at": "/manifests/p.yaml:1"},
        {"name": "llama-server-cpu", "at": "seed:llama-server.yaml:3"},
    ]
    (context,) = [part for part in found["parts"] if part["words"][0] == "--ctx-size"]
    place = {"by": "slot", "name": "chat", "at": "/manifests/chat.yaml:5", "key": "args[0]"}
    assert context["origin"] == {**place, "text": "slot chat (/manifests/chat.yaml:5)"}
    assert [old["words"] for old in context["replaced"]] == [["-c", "8"]]
    assert {"--env=HF_TOKEN=…", "--env=A=b", "…"} <= set(found["argv"])


async def test_a_slot_that_was_kept_is_not_told_by_its_manifests(remote: ClientSession, scene: Scene) -> None:
    await scene.until(lambda: scene.states() == {"chat": SlotState.READY})
    before = await fetched(remote, "/api/slots/chat/resolved")
    scene.declare(MODEL, OWN, slot("chat", profile="gone"))
    after = await fetched(remote, "/api/slots/chat/resolved")
    assert after["argv"] == before["argv"]
    assert {part["origin"]["by"] for part in after["parts"]} == {"hal0", "kept"}


@pytest.mark.parametrize("path", ["/api/slots/caht/resolved", "/api/profiles/onw"])
async def test_what_is_not_there_is_not_found(remote: ClientSession, path: str) -> None:
    found = await fetched(remote, path, 404)
    assert "chat" in str(found) or "own" in str(found)


async def test_a_slot_whose_manifests_were_never_good_says_what_is_wrong(scene: Scene) -> None:
    scene.declare(MODEL, slot("chat", profile="gone"))
    async with served_on_tcp(scene) as address, ClientSession(address) as client:
        found = await fetched(client, "/api/slots/chat/resolved", 400)
    assert "/manifests/chat.yaml:4: profile: no Profile 'gone'" in found["error"]["message"]


async def test_profiles_are_listed_with_the_slots_that_have_them(scene: Scene) -> None:
    replaced = {"r.yaml": "kind: Profile\nname: llama-server-cpu\nimage: mine:1\n"}
    wrong = {"w.yaml": "kind: Profile\nname: wrong\nextends: nothing\n"}
    scene.declare(slots("a"), OWN, CHAT, replaced, wrong)
    async with served_on_tcp(scene) as address, ClientSession(address) as client:
        found = {one["name"]: one for one in (await fetched(client, "/api/profiles"))["profiles"]}
        shown = await fetched(client, "/api/profiles/wrong")
    assert (found["llama-server-vulkan"]["seed"], found["llama-server-vulkan"]["slots"]) == (True, [])
    own = found["llama-server-cpu"]
    assert (own["seed"], own["replaces_seed"], own["image"], own["slots"]) == (False, True, "mine:1", ["a"])
    assert (found["own"]["extends"], found["own"]["image"], found["own"]["slots"]) == (
        "llama-server-cpu",
        "mine:1",
        ["chat"],
    )
    assert found["wrong"]["error"].startswith("/manifests/w.yaml:3: extends: no Profile 'nothing'")
    assert shown["error"] == found["wrong"]["error"]


async def test_a_profile_is_told_key_by_key(remote: ClientSession) -> None:
    found = await fetched(remote, "/api/profiles/own")
    assert "s3cret" not in json.dumps(found)
    keys = {row["key"]: (row["value"], row["origin"]["by"]) for row in found["keys"]}
    assert keys["image"] == ("ggml-org/llama.cpp:server", "seed")
    assert keys["probe"] == ("/health", "hal0")
    assert keys["env.A"] == ("b", "profile")
    assert [row["words"] for row in found["args"]] == [["--temp", "1"], ["-c", "8"]]
