"""The official client against hal0: what it needs, it gets."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import openai
import pytest
from aiohttp import web
from openai import AsyncOpenAI
from openai.types.chat import ChatCompletionUserMessageParam
from plane import Bench, awake, served_on_tcp
from scenes import Scene, slots

from hal0.errors import StepFailed

MESSAGES: list[ChatCompletionUserMessageParam] = [{"role": "user", "content": "Say hello."}]
CHAT = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": "chat",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Hello."}}],
    "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
}
TEXT = {
    "id": "cmpl-1",
    "object": "text_completion",
    "created": 1,
    "model": "chat",
    "choices": [{"index": 0, "finish_reason": "stop", "text": " world"}],
}


def delta(text: str) -> bytes:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
    chunk = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "chat", "choices": [choice]}
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


async def engine(request: web.Request) -> web.StreamResponse:
    asked = await request.json()
    if not asked.get("stream"):
        return web.json_response(CHAT if request.path == "/v1/chat/completions" else TEXT)
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    for chunk in (delta("Hel"), b": ping\n\n", delta("lo."), b"data: [DONE]\n\n"):
        await response.write(chunk)
    return response


@asynccontextmanager
async def client_of(scene: Scene) -> AsyncIterator[AsyncOpenAI]:
    async with (
        served_on_tcp(scene) as address,
        AsyncOpenAI(api_key="none", base_url=f"{address}/v1", max_retries=0) as client,
    ):
        yield client


@pytest.fixture
async def client(bench: Bench) -> AsyncIterator[AsyncOpenAI]:
    bench.engine.answer = engine
    async with client_of(bench.scene) as made:
        yield made


async def test_a_chat(client: AsyncOpenAI) -> None:
    found = await client.chat.completions.create(model="chat", messages=MESSAGES)
    assert found.choices[0].message.content == "Hello."
    assert found.usage
    assert found.usage.total_tokens == 5


async def test_a_streamed_chat(client: AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(model="gpt-4o", messages=MESSAGES, stream=True)
    assert [chunk.choices[0].delta.content async for chunk in stream] == ["Hel", "lo."]


async def test_a_completion(client: AsyncOpenAI) -> None:
    found = await client.completions.create(model="chat", prompt="Hello")
    assert found.choices[0].text == " world"


async def test_the_list_of_models(client: AsyncOpenAI) -> None:
    assert [model.id async for model in await client.models.list()] == ["chat", "m"]
    assert (await client.models.retrieve("chat")).owned_by == "hal0"


async def test_an_unknown_model_is_its_not_found_error(client: AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="no slot and no upstream has it: 'caht'") as caught:
        await client.completions.create(model="caht", prompt="x")
    assert (caught.value.code, caught.value.param, caught.value.type) == (
        "model.not_found",
        "model",
        "not_found_error",
    )


async def test_a_slot_that_failed_is_its_internal_server_error_and_is_not_tried_again(scene: Scene) -> None:
    scene.runtime.faults["start chat"] = StepFailed("no such device")
    scene.declare(slots("chat"))
    await scene.pass_(3600)
    async with client_of(scene) as client, awake(scene):
        with pytest.raises(openai.InternalServerError, match="no such device") as caught:
            await client.with_options(max_retries=5).completions.create(model="chat", prompt="x")
    assert caught.value.code == "slot.load_failed"
    assert scene.reconciler.demands.all["chat"].in_flight == 0


async def test_a_stream_that_broke_off_is_an_error_of_the_stream(bench: Bench, client: AsyncOpenAI) -> None:
    async def dies(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(delta("Hel"))
        assert request.transport
        request.transport.close()
        return response

    bench.engine.answer = dies
    stream = await client.chat.completions.create(model="chat", messages=MESSAGES, stream=True)
    with pytest.raises(openai.APIError, match="broke off"):
        [chunk async for chunk in stream]
