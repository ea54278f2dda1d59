from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from io import BytesIO

import pytest
from aiohttp import ClientPayloadError, ClientResponse, web
from plane import (
    STREAM,
    Bench,
    Engine,
    awake,
    bench_of,
    engine_on,
    error_of,
    failing,
    free_port,
    gated,
    host,
    raw,
    raw_server,
    served,
    sse,
    until,
)
from scenes import MODEL, Scene, slot, slots

from hal0.core.observed import ProbeResult
from hal0.core.state import SlotState
from hal0.errors import StepFailed

MIB = 2**20


async def endless(megabytes: int) -> AsyncIterator[bytes]:
    """Yield a body of which nobody can tell how long it will be."""
    for _ in range(megabytes):
        yield b"x" * MIB


@asynccontextmanager
async def raw_engine(scene: Scene, *parts: bytes) -> AsyncIterator[None]:
    """Put an engine behind the slot that writes some bytes and dies."""
    async with raw_server(*parts) as port:
        scene.declare(MODEL, slot("chat", port=port))
        await scene.until(lambda: scene.states() == {"chat": SlotState.READY})
        yield


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
            "architecture": {"input_modalities": ["text"], "output_modalities": ["text"]},
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
    assert bench.engine.said[0]["model"] == "m"


async def test_an_answer_says_which_request_and_which_manifests_it_is_of(either: Bench) -> None:
    async with await either.ask(headers={"X-Request-Id": "mine-1"}) as answer:
        assert (answer.headers["X-Request-Id"], answer.headers["X-Hal0-Revision"]) == ("mine-1", "abc")
    assert either.engine.asked[0].headers["X-Request-Id"] == "mine-1"
    async with await either.ask({"model": "nobody"}, headers={"X-Request-Id": "mine-2"}) as answer:
        assert answer.headers["X-Request-Id"] == "mine-2"


@pytest.mark.parametrize("said", ["", "two words", "a" * 129, "é", '"quoted"'])
async def test_an_id_that_is_none_is_replaced(bench: Bench, said: str) -> None:
    ids = set()
    for _ in range(2):
        async with await bench.ask(headers={"X-Request-Id": said}) as answer:
            ids.add(answer.headers["X-Request-Id"])
    assert len(ids) == 2
    assert said not in ids


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


NAMELESS = [b"{}", b"[]", b'"chat"', b'{"model": 7}', b'{"model": null}', b'{"model": ""}', b"null"]


@pytest.mark.parametrize("body", NAMELESS)
async def test_a_request_that_names_no_model_goes_to_the_llm_slot(bench: Bench, body: bytes) -> None:
    async with bench.client.post("/v1/chat/completions", data=body) as answer:
        assert (answer.status, answer.headers["X-Hal0-Slot"]) == (200, "chat")
    (said,) = bench.engine.said
    assert said == json.loads(body) | {"model": "m"} if body.startswith(b"{") else bench.engine.bodies == [body]


@pytest.mark.parametrize("body", NAMELESS)
async def test_a_request_that_names_no_model_is_refused_where_there_is_no_llm_slot(scene: Scene, body: bytes) -> None:
    scene.declare(MODEL, slot("embed", type="embedding"), slot("old", run="never"))
    await scene.settle()
    async with served(scene) as (client, _), client.post("/v1/chat/completions", data=body) as answer:
        assert (answer.status, answer.headers["x-should-retry"]) == (400, "false")
        said = await answer.json()
    assert error_of(said) == ("invalid_request_error", "request.no_model")
    assert said["error"]["param"] == "model"


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


async def test_a_request_for_a_slot_that_loads_waits_until_it_is_ready(scene: Scene, engine: Engine) -> None:
    scene.prober.answers["chat"] = ProbeResult.LOADING
    async with bench_of(scene, engine) as bench, awake(scene):
        asking = asyncio.create_task(bench.said())
        await until(lambda: scene.reconciler.demands.waiting("chat"))
        assert scene.states() == {"chat": SlotState.WARMING}
        del scene.prober.answers["chat"]
        scene.look("chat")
        assert await asking == (200, {"said": "hello"})


@pytest.mark.parametrize("waits", ["slot", "host", "client"])
async def test_a_slot_that_loads_for_too_long_asks_the_client_to_come_again(
    scene: Scene, engine: Engine, waits: str
) -> None:
    scene.prober.answers["chat"] = ProbeResult.LOADING
    settings = {"load_wait": "0"} if waits == "slot" else {}
    scene.declare(MODEL, host(load_wait=0 if waits == "host" else 300), slot("chat", port=engine.port, **settings))
    await scene.pass_(3)
    headers = {"Prefer": "wait=0"} if waits == "client" else {}
    asked = {"model": "chat"}
    async with served(scene) as (client, _), client.post("/v1/completions", json=asked, headers=headers) as answer:
        assert answer.status == 503
        assert 1 <= int(answer.headers["Retry-After"]) <= 60
        assert "x-should-retry" not in answer.headers
        said = await answer.json()
    assert error_of(said) == ("overloaded_error", "slot.loading")
    assert said["error"]["loading"]["state"] == "warming"
    assert said["error"]["loading"]["elapsed"] == pytest.approx(3, abs=1)
    assert said["error"]["loading"]["eta"] >= 1


async def test_a_request_wakes_a_slot_on_demand_and_is_answered_by_it(scene: Scene, engine: Engine) -> None:
    async with bench_of(scene, engine, run="on-demand") as bench, awake(scene):
        assert scene.states() == {"chat": SlotState.OFFLINE}
        assert await bench.said() == (200, {"said": "hello"})
    assert scene.host.starts == {"chat": 1}


async def test_a_slot_that_failed_for_good_tells_the_client_not_to_come_again(scene: Scene) -> None:
    scene.runtime.faults["start chat"] = StepFailed("no such device")
    scene.declare(slots("chat"))
    await scene.pass_(3600)
    asked = {"model": "chat"}
    async with served(scene) as (client, _), awake(scene), client.post("/v1/completions", json=asked) as answer:
        assert answer.status == 502
        assert answer.headers["x-should-retry"] == "false"
        assert "Retry-After" not in answer.headers
        body = await answer.json()
    assert error_of(body) == ("api_error", "slot.load_failed")
    assert "no such device" in body["error"]["message"]


async def test_a_load_that_fails_ends_the_wait_with_the_engines_last_words(scene: Scene, engine: Engine) -> None:
    scene.host.doomed.add("chat")
    scene.runtime.last_lines = ["loading tensors", "out of memory"]
    async with bench_of(scene, engine, run="on-demand") as bench, awake(scene):
        async with await bench.ask() as answer:
            assert (answer.status, answer.headers["x-should-retry"]) == (502, "false")
            said = await answer.json()
        await until(lambda: not scene.reconciler.demands.waiting("chat"))
    assert error_of(said) == ("api_error", "slot.load_failed")
    assert said["error"]["last_lines"] == ["loading tensors", "out of memory"]


@pytest.mark.parametrize("settings", [{"run": "never"}, {"suspend": "true"}])
async def test_a_slot_that_is_not_meant_to_run_says_so(scene: Scene, settings: dict[str, str]) -> None:
    scene.declare(MODEL, slot("chat", **settings))
    await scene.settle()
    async with served(scene) as (client, _), client.post("/v1/completions", json={"model": "chat"}) as answer:
        assert answer.status == 503
        assert answer.headers["x-should-retry"] == "false"
        assert error_of(await answer.json())[1] == "model.not_loaded"


async def test_a_request_whose_engine_refuses_the_connection_waits_for_the_next_look(scene: Scene) -> None:
    port = free_port()
    async with bench_of(scene, Engine(port=port)) as bench, awake(scene):
        asking = asyncio.create_task(bench.said())
        await until(lambda: not scene.reconciler.demands.is_open("chat"))
        async with engine_on(port):
            assert await asking == (200, {"said": "hello"})


async def test_an_engine_that_is_gone_is_said_to_be_so_to_a_client_that_does_not_wait(scene: Scene) -> None:
    async with (
        bench_of(scene, Engine(port=free_port())) as bench,
        await bench.ask(headers={"Prefer": "wait=0"}) as answer,
    ):
        assert answer.status == 502
        assert answer.headers["Retry-After"] == "1"
        assert error_of(await answer.json()) == ("api_error", "slot.unreachable")


# What is passed on.


async def test_request_and_answer_pass_through_as_they_are_but_for_the_model(either: Bench) -> None:
    async def answer(_: web.Request) -> web.StreamResponse:
        headers = {"X-Engine": "yes", "Content-Type": "application/x-odd", "Connection": "close"}
        return web.Response(status=418, reason="Teapot", body=b"\0\xff odd", headers=headers)

    either.engine.answer = answer
    body = b'{ "model" : "chat",\n "odd": 1.0e2, "\\u00e9": "\xc3\xa9" }'
    headers = {"X-Mine": "kept", "Authorization": "Bearer secret", "Cookie": "a=b", "Content-Type": "application/json"}
    async with either.client.post("/v1/completions?a=1&b=x", data=body, headers=headers) as found:
        assert (found.status, found.reason, await found.read()) == (418, "Teapot", b"\0\xff odd")
        assert (found.headers["X-Engine"], found.headers["Content-Type"]) == ("yes", "application/x-odd")
        assert found.headers["Content-Length"] == "6"
        assert "Connection" not in found.headers
    (asked,) = either.engine.asked
    sent = body.replace(b'"chat"', b'"m"')
    assert either.engine.bodies == [sent]
    assert asked.path_qs == "/v1/completions?a=1&b=x"
    assert asked.headers["X-Mine"] == "kept"
    assert asked.headers["Content-Length"] == str(len(sent))
    assert [name for name in ("Authorization", "Cookie") if name in asked.headers] == []


async def test_an_engine_is_not_asked_to_compress_since_its_token_counts_are_read(bench: Bench) -> None:
    async with await bench.ask(headers={"Accept-Encoding": "gzip"}) as answer:
        assert answer.status == 200
    assert "Accept-Encoding" not in bench.engine.asked[0].headers


async def test_a_compressed_answer_is_passed_on_as_it_is(either: Bench) -> None:
    async def answer(_: web.Request) -> web.StreamResponse:
        response = web.json_response({"said": "hello" * 100})
        response.enable_compression(web.ContentCoding.gzip)
        response._compression_force = web.ContentCoding.gzip
        return response

    either.engine.answer = answer
    async with await either.ask() as found:
        assert found.headers["Content-Encoding"] == "gzip"
        assert await found.json() == {"said": "hello" * 100}


@pytest.mark.parametrize("status", [400, 401, 404, 429, 500, 503])
async def test_an_engines_own_error_is_passed_on(either: Bench, status: int) -> None:
    either.engine.answer = failing(status, **{"Retry-After": "7"})
    async with await either.ask() as found:
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
    assert bench.engine.bodies == [body.replace(b'"chat"', b'"m"', 1)]


@pytest.mark.parametrize("announced", [True, False])
async def test_a_request_of_too_many_megabytes_is_refused(scene: Scene, engine: Engine, announced: bool) -> None:
    async with bench_of(scene, engine) as bench:
        scene.declare(MODEL, host(max_body="1Mi"), slot("chat", port=engine.port))
        await scene.settle()
        data = BytesIO(b"x" * (2 * MIB)) if announced else endless(2)
        async with bench.client.post("/v1/chat/completions", data=data) as answer:
            assert answer.status == 413
            assert error_of(await answer.json()) == ("request_too_large", "request.too_large")
        assert engine.asked == []
        assert (await bench.said())[0] == 200


# Streams.


def pieces(seed: int) -> list[bytes]:
    """Return random chunks: many small ones, some large, any bytes."""
    chance = random.Random(seed)  # noqa: S311  (nothing secret)
    sizes = [chance.choice([1, 2, 7, 100, 5000, 70_000]) for _ in range(60)]
    return [b"data: ", *(chance.randbytes(size) for size in sizes), b"\n\n", b"data: [DONE]\n\n"]


@pytest.mark.parametrize("seed", range(4))
async def test_a_stream_passes_byte_for_byte(either: Bench, seed: int) -> None:
    chunks = pieces(seed)
    either.engine.answer = sse(*chunks)
    async with await either.ask({"stream": True}) as answer:
        assert await answer.read() == b"".join(chunks)
        assert answer.headers["X-Accel-Buffering"] == "no"
        assert answer.headers["Content-Type"] == "text/event-stream"


async def test_a_chunk_is_passed_on_before_the_next_one_is_there(either: Bench) -> None:
    more = asyncio.Event()

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b"data: 1\n\n")
        await more.wait()
        await response.write(b"data: 2\n\n")
        return response

    either.engine.answer = answer
    async with asyncio.timeout(10), await either.ask({"stream": True}) as found:
        assert await found.content.readany() == b"data: 1\n\n"
        more.set()
        assert await found.content.read() == b"data: 2\n\n"


async def streamed(scene: Scene) -> bytes:
    """Return all that a client gets for a streamed request."""
    asked = {"model": "chat", "stream": True}
    async with served(scene) as (client, _), client.post("/v1/completions", json=asked) as answer:
        return await answer.read()


async def test_a_stream_that_breaks_off_ends_with_an_error_event(scene: Scene) -> None:
    async with raw_engine(scene, STREAM, b"9\r\ndata: 1\n\n\r\n"):
        said = await streamed(scene)
    first, *_, last, rest = said.split(b"\n\n")
    assert (first, rest) == (b"data: 1", b"")
    body = json.loads(last.removeprefix(b"data: "))
    assert error_of(body) == ("api_error", "stream.broken")


async def test_a_stream_of_a_connection_used_before_that_breaks_off_ends_with_an_error_event(bench: Bench) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        response = await sse(b"data: 1\n\n")(request)
        assert request.transport
        request.transport.abort()
        return response

    await bench.warm()
    bench.engine.answer = answer
    async with await bench.ask({"stream": True}) as found:
        first, *_, last, rest = (await found.read()).split(b"\n\n")
    assert (first, rest) == (b"data: 1", b"")
    assert error_of(json.loads(last.removeprefix(b"data: "))) == ("api_error", "stream.broken")


async def test_a_stream_that_breaks_off_inside_an_event_ends_with_an_event_of_its_own(scene: Scene) -> None:
    async with raw_engine(scene, STREAM, b'a\r\ndata: {"x"\r\n'):
        said = await streamed(scene)
    *_, last, rest = said.split(b"\n\n")
    assert rest == b""
    assert error_of(json.loads(last.removeprefix(b"data: ")))[1] == "stream.broken"


async def test_a_stream_that_breaks_off_inside_a_chunk_is_cut_off(scene: Scene) -> None:
    async with raw_engine(scene, STREAM, b"ff\r\ndata: 1\n\n"):
        with pytest.raises(ClientPayloadError):
            await streamed(scene)


async def test_a_stream_of_anthropics_that_breaks_off_ends_with_an_error_event_of_its_kind(scene: Scene) -> None:
    asked = {"model": "chat", "stream": True}
    async with (
        raw_engine(scene, STREAM, b"9\r\ndata: 1\n\n\r\n"),
        served(scene) as (client, _),
        client.post("/v1/messages", json=asked) as answer,
    ):
        *_, last, rest = (await answer.read()).split(b"\n\n")
    assert rest == b""
    name, data = last.split(b"\n")
    assert name == b"event: error"
    said = json.loads(data.removeprefix(b"data: "))
    assert (said["type"], said["error"]["type"], said["error"]["code"]) == ("error", "api_error", "stream.broken")


async def test_an_answer_that_breaks_off_is_cut_short_and_never_filled_up(scene: Scene) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 5000\r\n\r\n"
    async with raw_engine(scene, head, b'{"choices": ['), served(scene) as (client, socket):
        async with client.post("/v1/completions", json={"model": "chat"}) as answer:
            with pytest.raises(ClientPayloadError):
                await asyncio.wait_for(answer.read(), 10)
        request = b'POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 17\r\n\r\n{"model": "chat"}'
        _, _, body = (await raw(socket, request)).partition(b"\r\n\r\n")
        assert body == b'{"choices": ['


async def test_an_engine_that_answers_nothing_is_said_to_be_gone(scene: Scene) -> None:
    async with raw_engine(scene):
        said = json.loads(await streamed(scene))
    assert error_of(said) == ("api_error", "slot.unreachable")


@pytest.mark.parametrize("begun", [False, True])
async def test_a_client_that_goes_away_cancels_the_engines_work(either: Bench, begun: bool) -> None:
    either.engine.answer = gated(asyncio.Event(), first=b"data: 1\n\n" if begun else b"")
    asking = asyncio.create_task(_first_bytes(either))
    async with asyncio.timeout(10):
        await either.engine.begun.wait()
        if begun:
            (await asking).close()
        else:
            asking.cancel()
        await either.engine.cancelled.wait()
    await until(lambda: not either.scene.reconciler.demands.all["chat"].in_flight)


async def _first_bytes(bench: Bench) -> ClientResponse:
    answer = await bench.ask({"stream": True})
    await answer.content.readany()
    return answer


async def test_a_slot_is_serving_while_it_answers_and_ready_after(either: Bench) -> None:
    go_on = asyncio.Event()
    either.engine.answer = gated(go_on)
    asking = asyncio.create_task(either.ask())
    async with asyncio.timeout(10):
        await either.engine.begun.wait()
    await either.scene.pass_(1)
    assert either.scene.states() == {"chat": SlotState.SERVING}
    go_on.set()
    async with await asking as answer:
        await answer.read()
    await either.scene.pass_(1)
    assert either.scene.states() == {"chat": SlotState.READY}


async def test_a_slots_parameters_are_put_in_replaced_and_taken_out(bench: Bench) -> None:
    settings = {"defaults": "{temperature: 0.7, top_p: 0.9}", "set": "{seed: 1}", "strip": "[user]"}
    bench.scene.declare(MODEL, slot("chat", port=bench.engine.port, **settings))
    await bench.scene.settle()
    async with await bench.ask({"top_p": 0.1, "seed": 7, "user": "me"}):
        assert bench.engine.said == [{"model": "m", "messages": [], "top_p": 0.1, "seed": 1, "temperature": 0.7}]


async def test_an_engine_is_asked_at_the_paths_that_it_has(bench: Bench) -> None:
    for path, own in {"/v1/tokenize": "/tokenize", "/v1/infill": "/infill", "/v1/responses": "/v1/responses"}.items():
        async with bench.client.post(f"{path}?x=1", json={"model": "chat"}) as answer:
            assert answer.status == 200
        assert bench.engine.asked.pop().path_qs == f"{own}?x=1"


# What comes over the wire.


async def test_requests_sent_at_once_on_one_connection_are_answered_in_their_order(either: Bench) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        return web.json_response((await request.json())["n"])

    either.engine.answer = answer
    request = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b"
    bodies = [json.dumps({"model": "chat", "n": n}).encode() for n in range(5)]
    wire = b"".join(request % (len(body), body) for body in bodies)
    last = b"GET /v1/models HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    said = await raw(either.socket, wire + last)
    assert [part.partition(b"\r\n\r\n")[2][:1] for part in said.split(b"HTTP/1.1 200 OK")[1:-1]] == [
        *(b"0", b"1", b"2", b"3", b"4"),
    ]
    assert said.count(b"HTTP/1.1") == 6


async def test_a_client_that_asks_before_it_sends_its_body_is_told_to_go_on(either: Bench) -> None:
    reader, writer = await asyncio.open_unix_connection(str(either.socket))
    head = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 17\r\nExpect: 100-continue\r\n\r\n"
    async with asyncio.timeout(10):
        writer.write(head)
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b'{"model": "chat"}')
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 OK")
    writer.close()
    await writer.wait_closed()
    assert "Expect" not in either.engine.asked[0].headers


@pytest.mark.parametrize("request_line", [b"GET /v1/models", b"POST /v1/completions"])
async def test_an_offer_of_another_protocol_is_declined_by_an_answer(bench: Bench, request_line: bytes) -> None:
    headers = (
        b"Host: x\r\nConnection: Upgrade, HTTP2-Settings, close\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQ\r\n"
    )
    body = b'{"model": "chat"}' if request_line.startswith(b"POST") else b""
    head = request_line + b" HTTP/1.1\r\n" + headers + b"Content-Length: %d\r\n\r\n" % len(body)
    assert (await raw(bench.socket, head + body)).startswith(b"HTTP/1.1 200 OK")


async def test_a_client_of_http_1_0_gets_a_stream_without_chunks(either: Bench) -> None:
    either.engine.answer = sse(b"data: 1\n\n", b"data: 2\n\n")
    said = await raw(either.socket, b'POST /v1/completions HTTP/1.0\r\nContent-Length: 17\r\n\r\n{"model": "chat"}')
    head, _, body = said.partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in head.lower()
    assert body == b"data: 1\n\ndata: 2\n\n"
