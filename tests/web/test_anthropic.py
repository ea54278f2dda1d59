"""The official Anthropic client against hal0: what can be asked for, in its own words."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import anthropic
import pytest
from anthropic import AsyncAnthropic
from plane import Bench, Engine, models_listed, served_on_tcp, upstream
from scenes import Scene

VERSION = {"anthropic-version": "2023-06-01"}
ENTRY = {
    "type": "model",
    "id": "chat",
    "display_name": "chat",
    "created_at": "1970-01-01T00:00:00Z",
    "lifecycle": "active",
    "max_input_tokens": 4096,
}


@asynccontextmanager
async def client_of(scene: Scene) -> AsyncIterator[AsyncAnthropic]:
    """Serve a scene, and return a client that takes no answer but one of its API's shape."""
    async with (
        served_on_tcp(scene) as address,
        AsyncAnthropic(api_key="none", base_url=address, max_retries=0, _strict_response_validation=True) as client,
    ):
        yield client


@pytest.fixture
async def client(bench: Bench) -> AsyncIterator[AsyncAnthropic]:
    async with client_of(bench.scene) as made:
        yield made


async def test_the_list_of_models_is_one_page(client: AsyncAnthropic) -> None:
    page = await client.models.list(limit=1)
    assert ([model.id for model in page.data], page.first_id, page.last_id) == (["chat", "m"], "chat", "m")
    assert not page.has_next_page()
    assert [model.id async for model in client.models.list()] == ["chat", "m"]


@pytest.mark.parametrize("name", ["chat", "gpt-4o", "hal0/chat", "m"])
async def test_a_model_is_told_under_any_name_that_a_request_may_use(client: AsyncAnthropic, name: str) -> None:
    found = await client.models.retrieve(name)
    assert (found.type, found.id, found.display_name, found.max_input_tokens) == ("model", name, name, 4096)
    assert found.created_at == datetime.fromtimestamp(0, UTC)


async def test_an_unknown_model_is_its_not_found_error(client: AsyncAnthropic) -> None:
    with pytest.raises(anthropic.NotFoundError) as caught:
        await client.models.retrieve("caht")
    assert isinstance(caught.value.body, dict)
    told = caught.value.body["error"]
    assert (caught.value.body["type"], told["type"], told["code"]) == ("error", "not_found_error", "model.not_found")
    assert "did you mean 'chat'" in told["message"]


async def test_an_upstreams_model_is_listed_without_a_size_that_nobody_knows(scene: Scene, engine: Engine) -> None:
    engine.answer = models_listed("big")
    scene.declare(upstream("far", f"http://127.0.0.1:{engine.port}/v1"))
    await scene.settle()
    async with client_of(scene) as client:
        with pytest.raises(anthropic.APIStatusError):  # a request has hal0 ask the upstream for its list
            await client.messages.create(model="nobody", max_tokens=1, messages=[])
        page = await client.models.list()
    assert [(model.id, model.max_input_tokens) for model in page.data] == [("far/big", None)]


async def test_a_host_without_slots_has_an_empty_page(scene: Scene) -> None:
    async with client_of(scene) as client:
        page = await client.models.list()
    assert (page.data, page.has_more, page.first_id, page.last_id) == ([], False, None, None)


async def test_one_path_speaks_to_each_client_in_its_own_words(bench: Bench) -> None:
    for headers, key in ((VERSION, "display_name"), ({}, "owned_by")):
        async with bench.client.get("/v1/models", headers=headers) as answer:
            found = await answer.json()
        assert (answer.status, answer.headers["Vary"]) == (200, "anthropic-version")
        assert [key in entry for entry in found["data"]] == [True, True]
        assert ("object" in found, "has_more" in found) == (headers == {}, headers == VERSION)
    async with bench.client.get("/v1/models/chat", headers=VERSION) as answer:
        assert await answer.json() == ENTRY


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/v1/models/caht", 404), ("POST", "/v1/models", 405)])
async def test_an_error_there_is_in_the_clients_envelope(bench: Bench, method: str, path: str, status: int) -> None:
    told = []
    for headers in (VERSION, {}):
        async with bench.client.request(method, path, headers=headers) as answer:
            told.append(await answer.json())
        assert (answer.status, answer.headers["Vary"]) == (status, "anthropic-version")
        assert answer.headers["x-should-retry"] == "false"
    assert [body.get("type") for body in told] == ["error", None]
    assert told[0]["error"] == {key: told[1]["error"][key] for key in ("type", "message", "code")}
