from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from io import BytesIO

import pytest
from aiohttp import ClientPayloadError, ClientResponse, web
from scenes import MODEL, Scene, slot, slots

from hal0.core.observed import ProbeResult
from hal0.core.state import SlotState
from hal0.errors import StepFailed

from .conftest import Bench, Engine, served

MIB = 2**20


def sse(*chunks: bytes) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """Return an answer that streams chunks as they are."""

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for chunk in chunks:
            await response.write(chunk)
        return response

    return answer


@asynccontextmanager
async def raw_engine(scene: Scene, head: bytes, *parts: bytes) -> AsyncIterator[None]:
    """Put an engine behind the slot that writes some bytes and dies."""

    async def die(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(head)
        for part in parts:
            writer.write(part)
            await writer.drain()
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(die, "127.0.0.1", 0)
    async with server:
        scene.declare(MODEL, slot("chat", port=server.sockets[0].getsockname()[1]))
        await scene.until(lambda: scene.states() == {"chat": SlotState.READY})
        yield


def error_of(body: dict[str, dict[str, str]]) -> tuple[str, str]:
    """Return an envelope's type and code; it has all of OpenAI's fields."""
    assert set(body["error"]) == {"message", "type", "param", "code"}
    return body["error"]["type"], body["error"]["code"]


# What can be asked for.


async def test_models_are_listed_with_every_slot_down_and_wake_nothing(scene: Scene) -> None:
    scene.declare(MODEL, slot("chat", run="on-demand", context_size=4096), slot("embed", run="never"))
    await scene.settle()
    async with served(scene) as (client, _), client.get("/v1/models") as answer:
        found = await answer.json()
    await scene.settle()
    assert found["object"] == "list"
    assert [entry["id"] for entry in found["data"]] == ["chat", "embed", "m"]
    assert scene.reconciler.demands.all == {}
    assert scene.host.starts == {}


async def test_an_entry_says_what_clients_read(bench: Bench) -> None:
    async with bench.client.get("/v1/models/chat") as answer:
        assert await answer.json() == {
            "id": "chat",
            "object": "model",
            "created": 0,
            "owned_by": "hal0",
            "name": "chat",
            "status": {"value": "loaded"},
            "meta": {"n_ctx": 4096},
            "context_length": 4096,
            "max_model_len": 4096,
        }


@pytest.mark.parametrize(
    ("probe", "run", "value"),
    [
        (ProbeResult.UP, "always", "loaded"),
        (ProbeResult.LOADING, "always", "loading"),
        (ProbeResult.UP, "never", "unloaded"),
    ],
)
async def test_an_entry_says_whether_the_model_is_loaded(
    scene: Scene, probe: ProbeResult, run: str, value: str
) -> None:
    scene.prober.answers["chat"] = probe
    scene.declare(MODEL, slot("chat", run=run))
    await scene.pass_(3)
    async with served(scene) as (client, _), client.get("/v1/models/chat") as answer:
        assert (await answer.json())["status"] == {"value": value}


async def test_models_are_listed_before_the_first_look(scene: Scene) -> None:
    async with served(scene) as (client, _), client.get("/v1/models") as answer:
        assert await answer.json() == {"object": "list", "data": []}


@pytest.mark.parametrize("name", ["chat", "hal0/chat", "gpt-4o", "m"])
async def test_a_slot_answers_to_its_name_its_alias_and_its_model(bench: Bench, name: str) -> None:
    async with await bench.ask({"model": name}) as answer:
        assert answer.status == 200
        assert answer.headers["X-Hal0-Slot"] == "chat"
    assert json.loads(bench.engine.bodies[0])["model"] == name


async def test_a_model_id_with_slashes_can_be_looked_up(scene: Scene) -> None:
    scene.declare({"m.yaml": "kind: Model\nname: org/m:q4\npath: m.gguf\n"}, {"s.yaml": _of("org/m:q4")})
    await scene.settle()
    async with served(scene) as (client, _), client.get("/v1/models/org/m:q4") as answer:
        assert (answer.status, (await answer.json())["id"]) == (200, "org/m:q4")


def _of(model: str) -> str:
    return f"kind: Slot\nname: chat\nmodel: {model}\n"


# What can't be answered.


async def test_an_unknown_model_is_answered_with_the_closest_one(bench: Bench) -> None:
    async with await bench.ask({"model": "caht"}) as answer:
        assert answer.status == 404
        body = await answer.json()
    assert error_of(body) == ("not_found_error", "model.not_found")
    assert body["error"]["param"] == "model"
    assert "'caht'" in body["error"]["message"]
    assert "chat" in body["error"]["message"]
    assert bench.engine.asked == []
    async with bench.client.get("/v1/models/caht") as answer:
        assert (answer.status, await answer.json()) == (404, body)


@pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe", b'{"model": "chat"'])
async def test_a_body_that_is_no_json_is_refused(bench: Bench, body: bytes) -> None:
    async with bench.client.post("/v1/chat/completions", data=body) as answer:
        assert answer.status == 400
        assert error_of(await answer.json()) == ("invalid_request_error", "request.invalid_json")


@pytest.mark.parametrize("body", [b"{}", b"[]", b'"chat"', b'{"model": 7}', b'{"model": null}', b"null"])
async def test_a_request_that_names_no_model_is_refused(bench: Bench, body: bytes) -> None:
    async with bench.client.post("/v1/chat/completions", data=body) as answer:
        assert answer.status == 400
        assert error_of(await answer.json()) == ("invalid_request_error", "request.no_model")


async def test_a_body_nested_without_end_is_refused(bench: Bench) -> None:
    async with bench.client.post("/v1/chat/completions", data=b"[" * 200_000) as answer:
        assert answer.status == 400
        assert error_of(await answer.json()) == ("invalid_request_error", "request.invalid_json")


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v1/chat/completions", 405, "route.method_not_allowed"),
        ("GET", "/nowhere", 404, "route.not_found"),
        ("POST", "/v1/nothing", 404, "route.not_found"),
    ],
)
async def test_wrong_addresses_are_answered_in_the_same_envelope(
    bench: Bench, method: str, path: str, status: int, code: str
) -> None:
    async with bench.client.request(method, path) as answer:
        assert answer.status == status
        assert error_of(await answer.json())[1] == code


async def test_a_slot_that_loads_asks_the_client_to_come_again(scene: Scene, engine: Engine) -> None:
    scene.prober.answers["chat"] = ProbeResult.LOADING
    scene.declare(MODEL, slot("chat", port=engine.port))
    await scene.pass_(3)
    async with served(scene) as (client, _), client.post("/v1/completions", json={"model": "chat"}) as answer:
        assert answer.status == 503
        assert answer.headers["Retry-After"] == "2"
        assert "x-should-retry" not in answer.headers
        assert error_of(await answer.json()) == ("api_error", "slot.loading")


async def test_a_request_wakes_a_slot_on_demand(scene: Scene, engine: Engine) -> None:
    scene.declare(MODEL, slot("chat", port=engine.port, run="on-demand"))
    await scene.settle()
    async with served(scene) as (client, _):
        async with client.post("/v1/completions", json={"model": "chat"}) as answer:
            assert (answer.status, (await answer.json())["error"]["code"]) == (503, "slot.loading")
        await scene.until(lambda: scene.states() == {"chat": SlotState.READY}, within=10)
        async with client.post("/v1/completions", json={"model": "chat"}) as answer:
            assert answer.status == 200


async def test_a_slot_that_failed_for_good_tells_the_client_not_to_come_again(scene: Scene) -> None:
    scene.runtime.faults["start chat"] = StepFailed("no such device")
    scene.declare(slots("chat"))
    await scene.pass_(3600)
    async with served(scene) as (client, _), client.post("/v1/completions", json={"model": "chat"}) as answer:
        assert answer.status == 502
        assert answer.headers["x-should-retry"] == "false"
        assert "Retry-After" not in answer.headers
        body = await answer.json()
    assert error_of(body) == ("api_error", "slot.load_failed")
    assert "no such device" in body["error"]["message"]


@pytest.mark.parametrize("settings", [{"run": "never"}, {"suspend": "true"}])
async def test_a_slot_that_is_not_meant_to_run_says_so(scene: Scene, settings: dict[str, str]) -> None:
    scene.declare(MODEL, slot("chat", **settings))
    await scene.settle()
    async with served(scene) as (client, _), client.post("/v1/completions", json={"model": "chat"}) as answer:
        assert answer.status == 503
        assert answer.headers["x-should-retry"] == "false"
        assert error_of(await answer.json())[1] == "model.not_loaded"


async def test_an_engine_that_is_gone_is_said_to_be_so(bench: Bench, unused_tcp_port: int) -> None:
    bench.scene.declare(MODEL, slot("chat", port=unused_tcp_port))
    await bench.scene.until(lambda: bench.scene.slot("chat").spec.port == unused_tcp_port)
    await bench.scene.settle()
    async with await bench.ask() as answer:
        assert answer.status == 502
        assert answer.headers["Retry-After"] == "1"
        assert error_of(await answer.json()) == ("api_error", "slot.unreachable")


# What is passed on.


async def test_request_and_answer_pass_through_as_they_are(bench: Bench) -> None:
    async def answer(_: web.Request) -> web.StreamResponse:
        headers = {"X-Engine": "yes", "Content-Type": "application/x-odd", "Connection": "close"}
        return web.Response(status=418, reason="Teapot", body=b"\0\xff odd", headers=headers)

    bench.engine.answer = answer
    body = b'{ "model" : "chat",\n "odd": 1.0e2, "\\u00e9": "\xc3\xa9" }'
    headers = {"X-Mine": "kept", "Authorization": "Bearer secret", "Cookie": "a=b", "Content-Type": "application/json"}
    async with bench.client.post("/v1/completions?a=1&b=x", data=body, headers=headers) as found:
        assert (found.status, found.reason, await found.read()) == (418, "Teapot", b"\0\xff odd")
        assert (found.headers["X-Engine"], found.headers["Content-Type"]) == ("yes", "application/x-odd")
        assert found.headers["Content-Length"] == "6"
    (asked,) = bench.engine.asked
    assert bench.engine.bodies == [body]
    assert asked.path_qs == "/v1/completions?a=1&b=x"
    assert asked.headers["X-Mine"] == "kept"
    assert asked.headers["Content-Length"] == str(len(body))
    assert not {"Authorization", "Cookie"} & set(asked.headers)


async def test_an_engine_is_not_asked_to_compress_for_a_client_that_did_not_ask(bench: Bench) -> None:
    reader, writer = await asyncio.open_unix_connection(str(bench.socket))
    body = b'{"model": "chat"}'
    writer.write(
        b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body)
    )
    writer.write(body)
    assert (await reader.read()).startswith(b"HTTP/1.1 200")
    writer.close()
    await writer.wait_closed()
    assert "Accept-Encoding" not in bench.engine.asked[0].headers


async def test_a_compressed_answer_is_passed_on_as_it_is(bench: Bench) -> None:
    async def answer(_: web.Request) -> web.StreamResponse:
        response = web.json_response({"said": "hello" * 100})
        response.enable_compression(web.ContentCoding.gzip)
        return response

    bench.engine.answer = answer
    async with await bench.ask(headers={"Accept-Encoding": "gzip"}) as found:
        assert found.headers["Content-Encoding"] == "gzip"
        assert await found.json() == {"said": "hello" * 100}


@pytest.mark.parametrize("status", [400, 401, 404, 429, 500, 503])
async def test_an_engines_own_error_is_passed_on(bench: Bench, status: int) -> None:
    async def answer(_: web.Request) -> web.StreamResponse:
        return web.json_response({"error": {"message": "mine"}}, status=status, headers={"Retry-After": "7"})

    bench.engine.answer = answer
    async with await bench.ask() as found:
        assert (found.status, await found.json()) == (status, {"error": {"message": "mine"}})
        assert found.headers["Retry-After"] == "7"


async def test_a_redirect_of_an_engine_is_not_followed(bench: Bench) -> None:
    async def answer(_: web.Request) -> web.StreamResponse:
        return web.Response(status=307, headers={"Location": "http://127.0.0.1:1/"})

    bench.engine.answer = answer
    async with await bench.ask(allow_redirects=False) as found:
        assert found.status == 307


async def test_a_request_of_many_megabytes_passes(bench: Bench) -> None:
    body = b'{"model": "chat", "image": "' + b"x" * (5 * MIB) + b'"}'
    async with bench.client.post("/v1/chat/completions", data=BytesIO(body)) as answer:
        assert answer.status == 200
    assert bench.engine.bodies == [body]


async def test_a_request_of_too_many_megabytes_is_refused(bench: Bench) -> None:
    async with bench.client.post("/v1/chat/completions", data=BytesIO(b"x" * (65 * MIB))) as answer:
        assert answer.status == 413
        assert error_of(await answer.json())[1] == "request.too_large"
    assert bench.engine.asked == []


# Streams.


def pieces(seed: int) -> list[bytes]:
    """Return random chunks: many small ones, some large, any bytes."""
    chance = random.Random(seed)  # noqa: S311  (nothing secret)
    sizes = [chance.choice([1, 2, 7, 100, 5000, 70_000]) for _ in range(60)]
    return [b"data: ", *(chance.randbytes(size) for size in sizes), b"\n\n", b"data: [DONE]\n\n"]


@pytest.mark.parametrize("seed", range(4))
async def test_a_stream_passes_byte_for_byte(bench: Bench, seed: int) -> None:
    chunks = pieces(seed)
    bench.engine.answer = sse(*chunks)
    async with await bench.ask({"stream": True}) as answer:
        assert await answer.read() == b"".join(chunks)
        assert answer.headers["X-Accel-Buffering"] == "no"
        assert answer.headers["Content-Type"] == "text/event-stream"


async def test_a_chunk_is_passed_on_before_the_next_one_is_there(bench: Bench) -> None:
    more = asyncio.Event()

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b"data: 1\n\n")
        await more.wait()
        await response.write(b"data: 2\n\n")
        return response

    bench.engine.answer = answer
    async with asyncio.timeout(10), await bench.ask({"stream": True}) as found:
        assert await found.content.readany() == b"data: 1\n\n"
        more.set()
        assert await found.content.read() == b"data: 2\n\n"


async def streamed(scene: Scene) -> bytes:
    """Return all that a client gets for a streamed request."""
    asked = {"model": "chat", "stream": True}
    async with served(scene) as (client, _), client.post("/v1/completions", json=asked) as answer:
        return await answer.read()


async def test_a_stream_that_breaks_off_ends_with_an_error_event(scene: Scene) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with raw_engine(scene, head, b"9\r\ndata: 1\n\n\r\n"):
        said = await streamed(scene)
    first, *_, last, rest = said.split(b"\n\n")
    assert (first, rest) == (b"data: 1", b"")
    body = json.loads(last.removeprefix(b"data: "))
    assert error_of(body) == ("api_error", "slot.stream_broken")
    assert "chat" in body["error"]["message"]


async def test_a_stream_that_breaks_off_inside_an_event_ends_with_an_event_of_its_own(scene: Scene) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with raw_engine(scene, head, b'a\r\ndata: {"x"\r\n'):
        said = await streamed(scene)
    *_, last, rest = said.split(b"\n\n")
    assert rest == b""
    assert error_of(json.loads(last.removeprefix(b"data: ")))[1] == "slot.stream_broken"


async def test_an_answer_that_breaks_off_is_cut_short_and_never_filled_up(scene: Scene) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 5000\r\n\r\n"
    async with raw_engine(scene, head, b'{"choices": ['), served(scene) as (client, socket):
        async with client.post("/v1/completions", json={"model": "chat"}) as answer:
            with pytest.raises(ClientPayloadError):
                await asyncio.wait_for(answer.read(), 10)
        reader, writer = await asyncio.open_unix_connection(str(socket))
        writer.write(b'POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 17\r\n\r\n{"model": "chat"}')
        async with asyncio.timeout(10):
            _, _, body = (await reader.read()).partition(b"\r\n\r\n")
        assert body == b'{"choices": ['
        writer.close()
        await writer.wait_closed()


async def test_an_engine_that_answers_nothing_is_said_to_be_gone(scene: Scene) -> None:
    async with raw_engine(scene, b""):
        said = json.loads(await streamed(scene))
    assert error_of(said) == ("api_error", "slot.unreachable")


@pytest.mark.parametrize("begun", [False, True])
async def test_a_client_that_goes_away_cancels_the_engines_work(bench: Bench, begun: bool) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        if begun:
            await response.prepare(request)
            await response.write(b"data: 1\n\n")
        await asyncio.Event().wait()
        return response

    bench.engine.answer = answer
    asking = asyncio.create_task(_first_bytes(bench))
    async with asyncio.timeout(10):
        await bench.engine.begun.wait()
        if begun:
            (await asking).close()
        else:
            asking.cancel()
        await bench.engine.cancelled.wait()
        while bench.scene.reconciler.demands.all["chat"].in_flight:  # noqa: ASYNC110  (nothing tells)
            await asyncio.sleep(0.01)


async def _first_bytes(bench: Bench) -> ClientResponse:
    answer = await bench.ask({"stream": True})
    await answer.content.readany()
    return answer


async def test_a_slot_is_serving_while_it_answers_and_ready_after(bench: Bench) -> None:
    go_on = asyncio.Event()

    async def answer(_: web.Request) -> web.StreamResponse:
        await go_on.wait()
        return web.json_response({})

    bench.engine.answer = answer
    asking = asyncio.create_task(bench.ask())
    async with asyncio.timeout(10):
        await bench.engine.begun.wait()
    await bench.scene.pass_(1)
    assert bench.scene.states() == {"chat": SlotState.SERVING}
    go_on.set()
    (await asking).close()
    await bench.scene.pass_(1)
    assert bench.scene.states() == {"chat": SlotState.READY}


async def test_a_slots_defaults_are_put_in_where_the_client_sends_none(bench: Bench) -> None:
    settings = {"port": bench.engine.port, "defaults": "{temperature: 0.7, top_p: 0.9}"}
    bench.scene.declare(MODEL, slot("chat", **settings))
    await bench.scene.settle()
    async with await bench.ask({"model": "chat", "top_p": 0.1}):
        sent = json.loads(bench.engine.bodies[-1])
        assert (sent["temperature"], sent["top_p"]) == (0.7, 0.1)
