from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession
from plane import served, served_on_tcp
from scenes import MODEL, Scene

from hal0.host.manifests import ManifestRoot


@pytest.fixture
async def root(scene: Scene) -> Path:
    """A manifest root on the disk that declares a model, and turns nothing on."""
    folder = scene.folder / "manifests"
    folder.mkdir()
    for name, text in MODEL.items():
        (folder / name).write_text(text)
    scene.reconciler.source.root = ManifestRoot(folder)
    await scene.pass_(5)
    return folder


@pytest.fixture
async def local(scene: Scene, root: Path) -> AsyncIterator[ClientSession]:
    assert root.exists()
    async with served(scene) as (client, _), scene.driven():
        yield client


async def told(client: ClientSession, path: str, body: object = None, status: int = 200) -> Any:
    method = "GET" if body is None else "POST"
    async with asyncio.timeout(20), client.request(method, f"/api/capabilities{path}", json=body) as answer:
        found = await answer.json()
        assert answer.status == status, found
        return found


async def children(client: ClientSession) -> dict[str, Any]:
    found = await told(client, "")
    assert found["version"] == 1
    return {child["name"]: child for own in found["capabilities"] for child in own["children"]}


async def test_a_child_is_turned_on_seen_and_turned_off(local: ClientSession, scene: Scene, root: Path) -> None:
    found = await told(local, "/embed/enable", {"children": ["embed"], "model": "m", "device": "cpu", "who": "eve"})
    assert (found["version"], found["act"], found["capability"], found["settled"]) == (1, "enable", "embed", True)
    text = (root / "embed.toml").read_text()
    assert text == 'kind = "Capability"\nname = "embed"\nembed = {model = "m", device = "cpu"}\n'
    seen = (await children(local))["embed"]
    assert (seen["on"], seen["state"], seen["served_by"]["name"]) == (True, "offline", "embed")
    assert set(scene.host.files) == {"embed"}
    await told(local, "/embed/disable", {})
    assert (await children(local))["embed"]["on"] is False
    assert scene.host.files == {}


async def test_without_a_body_it_is_all_of_a_capability(local: ClientSession, scene: Scene) -> None:
    async with asyncio.timeout(20), local.post("/api/capabilities/voice/enable") as answer:
        assert answer.status == 200, await answer.text()
    assert set(scene.host.files) == {"stt", "tts"}


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/embedd/enable", {}, 404),
        ("/embed/enable", {"children": ["stt"]}, 400),
        ("/embed/enable", {"children": "embed"}, 400),
        ("/embed/enable", {"model": "m"}, 400),
        ("/embed/enable", {"children": ["embed"], "model": "lost"}, 400),
        ("/embed/enable", {"colour": "red"}, 400),
        ("/embed/disable", {"model": "m"}, 400),
        ("/embedd/disable", {}, 404),
    ],
)
async def test_what_does_not_fit_is_refused_and_nothing_is_written(
    local: ClientSession, root: Path, path: str, body: object, status: int
) -> None:
    found = await told(local, path, body, status)
    assert found["error"]["message"]
    assert [file.name for file in root.iterdir()] == ["model.yaml"]


async def test_over_tcp_it_is_only_looked_at(scene: Scene, root: Path) -> None:
    async with served_on_tcp(scene) as address, ClientSession(address) as client:
        assert (await children(client))["embed"]["on"] is False
        for path in ("/embed/enable", "/embed/disable"):
            found = await told(client, path, {}, 403)
            assert found["error"]["code"] == "auth.local_only"
    assert [file.name for file in root.iterdir()] == ["model.yaml"]
