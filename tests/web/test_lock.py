from __future__ import annotations

import json
from typing import Any

import pytest
from aiohttp import ClientSession
from plane import served, served_on_tcp
from scenes import MODEL, Scene, slot

from hal0.host.manifests import ManifestRoot


async def put(scene: Scene) -> None:
    """Have the scene's manifests on disk."""
    root = scene.folder / "root"
    root.mkdir()
    for name, text in (MODEL | slot("chat")).items():
        (root / name).write_text(text)
    scene.reconciler.source.root = ManifestRoot(root)


async def locked(client: ClientSession, **body: Any) -> list[dict[str, Any]]:
    async with client.post("/api/lock", json=body) as answer:
        assert answer.status == 200
        return [json.loads(line) for line in (await answer.text()).splitlines()]


async def test_the_lock_is_written_and_shown(scene: Scene) -> None:
    async with served(scene, MODEL, slot("chat")) as (client, _):
        await put(scene)
        checked = await locked(client, check=True)
        events = await locked(client, who="ann")
        async with client.get("/api/lock") as answer:
            found = await answer.json()
    assert (checked[-1]["written"], len(checked[-1]["changes"])) == (False, 2)
    assert [event["event"] for event in events if event["event"] != "verify"] == ["begin", "look", "end"]
    assert events[-1]["written"] is True
    assert found["exists"] is True
    assert [pin["name"] for pin in found["pins"]["models"]] == ["m"]
    assert (found["stale"], found["unpinned"]) == ([], [])


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"upgrade": True, "names": ["nobody"]}, 404),
        ({"names": ["chat"]}, 400),
        ({"upgraed": True}, 400),
        ({"root": "/elsewhere"}, 409),
    ],
)
async def test_what_cannot_be_locked_has_a_status(scene: Scene, body: dict[str, Any], status: int) -> None:
    async with served(scene, MODEL, slot("chat")) as (client, _), client.post("/api/lock", json=body) as answer:
        assert answer.status == status


async def test_over_tcp_the_lock_is_shown_and_not_written(scene: Scene) -> None:
    async with served_on_tcp(scene) as address, ClientSession(address) as client:
        async with client.get("/api/lock") as answer:
            assert answer.status == 200
        async with client.post("/api/lock", json={}) as answer:
            assert answer.status == 403
