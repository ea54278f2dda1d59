"""Requests for a slot whose model is on its way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from aiohttp import ClientSession
from plane import Engine, awake, engine_on, said, served, until
from scenes import Scene

from hal0.core.state import SlotState

ASKED = {"model": "chat", "messages": []}
MODEL = {"model.yaml": "kind: Model\nname: m\nsource: {url: 'https://models.example/far.gguf'}\n"}


@pytest.fixture
async def engine() -> AsyncIterator[Engine]:
    async with engine_on() as made:
        yield made


@pytest.fixture
async def client(scene: Scene, engine: Engine) -> AsyncIterator[ClientSession]:
    """A client of an on-demand slot whose model comes in ten blocks, each when it is let."""
    scene.fetcher.go, scene.fetcher.block = asyncio.Semaphore(0), 10
    chat = {"chat.yaml": f"kind: Slot\nname: chat\nmodel: m\nrun: on-demand\nport: {engine.port}\n"}
    async with served(scene, MODEL, chat) as (made, _), awake(scene):
        yield made


async def test_a_request_that_waits_is_answered_when_the_model_has_come(client: ClientSession, scene: Scene) -> None:
    waiting = asyncio.create_task(said(client, body=ASKED))
    await until(lambda: scene.states() == {"chat": SlotState.PULLING})
    assert scene.fetcher.go
    for _ in range(10):
        scene.fetcher.go.release()
    assert (await waiting)[0] == 200
    assert len(scene.fetcher.begun) == 1


async def test_a_request_that_waits_no_longer_is_told_how_far_the_model_is(client: ClientSession, scene: Scene) -> None:
    await said(client, body=ASKED, Prefer="wait=0")
    await until(lambda: scene.states() == {"chat": SlotState.PULLING})
    assert scene.fetcher.go
    scene.fetcher.go.release()
    await until(lambda: "10 of 100" in scene.slot("chat").message)
    status, body = await said(client, body=ASKED, Prefer="wait=0")
    assert (status, body["error"]["code"], body["error"]["loading"]["state"]) == (503, "slot.loading", "pulling")
    assert body["error"]["message"] == "slot chat is pulling: fetching m: 10 of 100 B"
