from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession
from plane import served, served_on_tcp
from scenes import MODEL, Scene, slot

from hal0.host.manifests import ManifestRoot


@pytest.fixture
async def root(scene: Scene) -> Path:
    """A manifest root on the disk with two slots that are as declared."""
    folder = scene.folder / "manifests"
    folder.mkdir()
    for name, text in {**MODEL, **slot("chat", port=8090), **slot("embed", run="on-demand")}.items():
        (folder / name).write_text(text)
    scene.reconciler.source.root = ManifestRoot(folder)
    await scene.pass_(5)
    return folder


@pytest.fixture
async def local(scene: Scene, root: Path) -> AsyncIterator[ClientSession]:
    assert root.exists()
    async with served(scene) as (client, _), scene.driven():
        yield client


async def told(client: ClientSession, method: str, path: str, body: object, status: int = 200) -> Any:
    async with asyncio.timeout(20), client.request(method, path, json=body) as answer:
        found = await answer.json()
        assert answer.status == status, found
        return found


async def test_a_slot_is_created_edited_and_deleted(local: ClientSession, scene: Scene, root: Path) -> None:
    asked = {"name": "rank", "model": "m", "type": "reranking", "port": None, "who": "eve"}
    found = await told(local, "POST", "/api/slots", asked)
    assert (found["version"], found["act"], found["slot"]) == (1, "create", "rank")
    assert (root / "rank.toml").read_text() == (
        'kind = "Slot"\nname = "rank"\nrun = "on-demand"\nmodel = "m"\ntype = "reranking"\n'
    )
    found = await told(local, "PATCH", "/api/slots/rank", {"context_size": 512})
    assert found["changes"] == [{"key": "context_size", "before": None, "after": 512}]
    found = await told(local, "DELETE", "/api/slots/rank", {})
    assert found["settled"] is True
    assert set(scene.host.files) == {"chat", "embed"}


async def test_null_takes_a_key_out_and_what_is_not_named_stays(local: ClientSession, root: Path) -> None:
    await told(local, "PATCH", "/api/slots/chat", {"port": None})
    assert (root / "chat.yaml").read_text() == "kind: Slot\nname: chat\nmodel: m\n"


@pytest.mark.parametrize(
    ("asked", "body", "status"),
    [
        ("POST /api/slots", {"name": "x"}, 400),
        ("POST /api/slots", {"name": "../x", "model": "m"}, 400),
        ("POST /api/slots", {"name": "chat", "model": "m"}, 409),
        ("PATCH /api/slots/chat", {"port": "8090"}, 400),
        ("PATCH /api/slots/chat", {"colour": "red"}, 400),
        ("PATCH /api/slots/chat", {"port": 1, "who": "two\nlines"}, 400),
        ("PATCH /api/slots/chat", {"who": "eve"}, 400),
        ("PATCH /api/slots/chat", {"model": "n"}, 400),
        ("PATCH /api/slots/caht", {"port": 1}, 404),
        ("DELETE /api/slots/caht", {}, 404),
        ("DELETE /api/slots/chat", {"force": True}, 400),
    ],
)
async def test_what_does_not_fit_is_refused_and_nothing_is_written(
    local: ClientSession, root: Path, asked: str, body: object, status: int
) -> None:
    before = {file: file.read_text() for file in root.iterdir()}
    method, path = asked.split()
    found = await told(local, method, path, body, status)
    assert found["error"]["message"]
    assert {file: file.read_text() for file in root.iterdir()} == before


async def test_nothing_is_written_over_tcp(scene: Scene, root: Path) -> None:
    before = sorted(root.iterdir())
    async with served_on_tcp(scene) as address, ClientSession(address) as client:
        for method, path in (("POST", "/api/slots"), ("PATCH", "/api/slots/chat"), ("DELETE", "/api/slots/chat")):
            found = await told(client, method, path, {"name": "x", "model": "m"}, 403)
            assert found["error"]["code"] == "auth.local_only"
    assert sorted(root.iterdir()) == before
