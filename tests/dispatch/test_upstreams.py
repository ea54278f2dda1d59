"""Upstreams: what they list, how they are asked, what becomes of requests when they fail, and who learns their keys."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import plane
import pytest
from aiohttp import ClientSession, web
from plane import (
    CHAT,
    STREAM,
    Engine,
    awake,
    engine_on,
    error_of,
    failing,
    free_port,
    gated,
    hello,
    holds,
    models_listed,
    raw_server,
    ready,
    recording,
    scene_in,
    scraped,
    served,
    served_on_tcp,
    sse,
    taken_port,
    until,
    upstream,
    url_of,
)
from scenes import MODEL, Scene, slot

from hal0.dispatch import upstreams

KEY = "sk-very-secret-0123456789"
ASK = {"model": "big", "messages": []}


@pytest.fixture(autouse=True)
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have hal0 see at once when a list is to be asked for again, and not wait long for one that does not come."""
    monkeypatch.setattr(upstreams, "_LOOK", 0.01)
    monkeypatch.setattr(upstreams, "_PREFETCH_PATIENCE", 0.5)


@asynccontextmanager
async def far(scene: Scene, engine: Engine, **settings: object) -> AsyncIterator[ClientSession]:
    """Serve one upstream, called ``far``, that is an engine; return a client of hal0."""
    async with served(scene, upstream("far", url_of(engine.port), **settings)) as (client, _):
        yield client


async def said(client: ClientSession, path: str = CHAT, body: object = None, **headers: str) -> tuple[int, Any]:
    """Ask for the upstream's model, and return the answer's status and what it says."""
    return await plane.said(client, path, body or ASK, **headers)


async def shown(client: ClientSession, name: str = "far") -> dict[str, Any]:
    """Return what hal0 shows of an upstream."""
    async with client.get("/api/upstreams") as answer:
        rows = (await answer.json())["upstreams"]
    return next(row for row in rows if row["name"] == name)


async def known(client: ClientSession, name: str = "far") -> dict[str, Any]:
    """Return what hal0 shows of an upstream once that was asked for its list."""

    async def was_asked() -> bool:
        row = await shown(client, name)
        return bool(row["models"] or row["list_error"])

    await holds(was_asked)
    return await shown(client, name)


def posts(engine: Engine) -> list[web.Request]:
    return [request for request in engine.asked if request.method == "POST"]


def lists(engine: Engine) -> int:
    """Return how often an engine was asked for its list."""
    return len(engine.asked) - len(posts(engine))


# What they have.


@pytest.mark.parametrize("name", ["big", "far/big"])
async def test_a_model_that_an_upstream_lists_is_answered_by_it(scene: Scene, engine: Engine, name: str) -> None:
    engine.answer = models_listed("big", "small")
    async with (
        far(scene, engine) as client,
        client.post(f"{CHAT}?a=b", json=ASK | {"model": name, "keep_alive": 5}) as answer,
    ):
        assert (answer.status, await answer.json()) == (200, {"said": "hello"})
        assert (answer.headers["X-Hal0-Upstream"], "X-Hal0-Slot" in answer.headers) == ("far", False)
    (asked,) = posts(engine)
    assert asked.path_qs == f"{CHAT}?a=b"
    assert asked.headers["Host"] == f"127.0.0.1:{engine.port}"
    assert json.loads(engine.bodies[-1]) == ASK


async def test_its_models_are_listed_with_its_prefix_and_its_name(scene: Scene, engine: Engine) -> None:
    engine.answer = models_listed("big", "org/small:q4")
    async with far(scene, engine) as client:
        await known(client)
        async with client.get("/v1/models") as answer:
            found = (await answer.json())["data"]
        assert [(entry["id"], entry["owned_by"]) for entry in found] == [
            ("far/big", "far"),
            ("far/org/small:q4", "far"),
        ]
        async with client.get("/v1/models/org/small:q4") as answer:
            assert (await answer.json())["status"] == {"value": "loaded"}
    assert posts(engine) == []


async def test_a_list_is_asked_for_once_however_many_requests_there_are(scene: Scene, engine: Engine) -> None:
    engine.answer = models_listed("big")
    async with far(scene, engine) as client:
        assert [status for status, _ in await asyncio.gather(*(said(client) for _ in range(30)))] == [200] * 30
        assert (await said(client, body={"model": "nobody"}))[0] == 404
    assert lists(engine) == 1


async def test_a_list_is_asked_for_again_when_it_is_old_and_stays_in_force_while_that_fails(
    scene: Scene, engine: Engine
) -> None:
    engine.answer = models_listed("big")
    async with far(scene, engine, refresh="60s") as client:
        await known(client)
        scene.clock.forward(59)
        await said(client)
        assert lists(engine) == 1
        engine.answer = failing(500)
        scene.clock.forward(2)
        await until(lambda: lists(engine) == 2)
        engine.answer = models_listed("other")
        assert (await said(client))[0] == 200
        assert (await shown(client))["models"] == ["big"]
        scene.clock.forward(31)
        await until(lambda: lists(engine) == 3)
        assert (await said(client, body={"model": "other"}))[0] == 200
        assert (await said(client))[0] == 404


async def test_cold_upstreams_are_all_asked_at_once_and_each_of_them_once(scene: Scene) -> None:
    gate = asyncio.Event()

    async def slow(request: web.Request) -> web.StreamResponse:
        if request.method == "GET":
            await gate.wait()
        return await models_listed(f"m{request.url.port}")(request)

    async with AsyncExitStack() as stack:
        engines = [await stack.enter_async_context(engine_on(answer=slow)) for _ in range(4)]
        manifests = [upstream(f"u{number}", url_of(each.port)) for number, each in enumerate(engines)]
        client, _ = await stack.enter_async_context(served(scene, *manifests))
        asking = [
            asyncio.create_task(said(client, body={"model": f"m{each.port}"})) for each in engines for _ in range(10)
        ]
        await until(lambda: all(each.now == 1 for each in engines))
        gate.set()
        assert [status for status, _ in await asyncio.gather(*asking)] == [200] * 40
    assert [(lists(each), len(posts(each))) for each in engines] == [(1, 10)] * 4


async def test_an_allow_list_is_all_that_is_used_and_no_list_is_asked_for(scene: Scene, engine: Engine) -> None:
    engine.answer = models_listed("big", "dear")
    async with far(scene, engine, models="[big]") as client:
        assert (await said(client))[0] == 200
        for name in ("dear", "far/dear"):
            status, told = await said(client, body={"model": name})
            assert (status, told["error"]["code"]) == (404, "model.not_found")
    assert lists(engine) == 0
    assert len(posts(engine)) == 1


@pytest.mark.parametrize(
    ("prefix", "names"), [("x/", ["big", "x/big"]), ("a:b/", ["a:b/big"]), ('""', ["big"]), ("far/", ["far/big"])]
)
async def test_a_prefix_is_taken_off(scene: Scene, engine: Engine, prefix: str, names: list[str]) -> None:
    engine.answer = models_listed("big")
    async with far(scene, engine, prefix=prefix) as client:
        for name in names:
            assert (await said(client, body={"model": name}))[0] == 200
    assert {body["model"] for body in engine.said} == {"big"}


async def test_of_two_that_list_a_model_the_prefix_says_which(scene: Scene) -> None:
    async with engine_on(answer=models_listed("big")) as one, engine_on(answer=models_listed("big")) as other:
        manifests = [upstream("one", url_of(one.port)), upstream("other", url_of(other.port))]
        async with served(scene, *manifests) as (client, _):
            for name in ("other/big", "one/big", "big"):
                assert (await said(client, body={"model": name}))[0] == 200
    assert (len(posts(one)), len(posts(other))) == (2, 1)


async def test_a_slot_comes_before_an_upstream_that_lists_its_name(scene: Scene, engine: Engine) -> None:
    async with engine_on(answer=models_listed("chat", "m")) as other:
        chat = slot("chat", port=engine.port)
        async with served(scene, MODEL, chat, upstream("far", url_of(other.port))) as (client, _):
            await known(client)
            for name in ("chat", "m"):
                assert (await said(client, body={"model": name}))[0] == 200
            assert (await said(client, body={"model": "far/chat"}))[0] == 200
    assert (len(posts(engine)), len(posts(other))) == (2, 1)


async def test_only_ids_that_can_be_names_are_taken_from_a_list(scene: Scene, engine: Engine) -> None:
    odd = [7, None, "", "a\nb", "\x1b[31m", "x" * 257, {"id": "no"}, "big", "big", "sp ace", "日本"]

    async def answer(request: web.Request) -> web.StreamResponse:
        if request.method == "GET":
            return web.json_response({"data": [{"id": each} for each in odd]})
        return await hello(request)

    engine.answer = answer
    async with far(scene, engine) as client:
        assert (await known(client))["models"] == ["big", "sp ace", "日本"]
        assert (await said(client, body={"model": "日本"}))[0] == 200


async def test_a_list_without_end_is_taken_up_to_a_limit(scene: Scene, engine: Engine) -> None:
    engine.answer = models_listed(*(f"m{number}" for number in range(20_000)))
    async with far(scene, engine) as client:
        assert len((await known(client))["models"]) == 10_000


# Those that can't tell what they have.

OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


def answered(body: bytes, head: bytes = OK) -> bytes:
    return head + b"Content-Length: %d\r\n\r\n" % len(body) + body


HUGE = b'{"data": [' + b'{"id": "x"},' * 800_000
BROKEN_LISTS = {
    "nothing": b"",
    "garbage": b"\x00\xff\x16\x03garbage\r\n\r\n",
    "another protocol": b"220 mail.example.com ESMTP\r\n",
    "an older one": b"HTTP/9.9 200 OK\r\n\r\n",
    "no json": answered(b"{"),
    "html": answered(b"<html>welcome</html>", b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n"),
    "no utf-8": answered(b'{"data": [{"id": "\xff"}]}'),
    "a list": answered(b"[]"),
    "a number": answered(b"7"),
    "null": answered(b"null"),
    "no data": answered(b"{}"),
    "data null": answered(b'{"data": null}'),
    "data a number": answered(b'{"data": 7}'),
    "data a text": answered(b'{"data": "abc"}'),
    "data an object": answered(b'{"data": {"id": "x"}}'),
    "entries that are none": answered(b'{"data": [1, "big"]}'),
    "entries without ids": answered(b'{"data": [{"name": "big"}]}'),
    "nested without end": answered(b'{"data": ' + b"[" * 100_000),
    "a number of many digits": answered(b'{"data": ' + b"1" * 5000 + b"}"),
    "cut short": answered(b'{"data": []}')[:-4],
    "cut short in chunks": OK + b'Transfer-Encoding: chunked\r\n\r\nff\r\n{"data": []}',
    "a chunk that is none": OK + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n",
    "too much": answered(HUGE),
    "too much in chunks": OK + b"Transfer-Encoding: chunked\r\n\r\n" + b"%x\r\n%b\r\n0\r\n\r\n" % (len(HUGE), HUGE),
    "two lengths": OK + b"Content-Length: 12\r\nContent-Length: 13\r\n\r\n" + b'{"data": []}',
    "no length that is one": OK + b'Content-Length: many\r\n\r\n{"data": []}',
    "a head without end": OK + b"X-Long: " + b"x" * 100_000,
    "a redirect": b"HTTP/1.1 301 Moved\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n",
    "another protocol instead": b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nhello",
    "no content": b"HTTP/1.1 204 No Content\r\n\r\n",
    "its own failure": answered(b'{"error": {}}', b"HTTP/1.1 500 Internal Server Error\r\n"),
    "not found": answered(b"{}", b"HTTP/1.1 404 Not Found\r\n"),
    "unauthorized": answered(b"{}", b"HTTP/1.1 401 Unauthorized\r\n"),
}


@pytest.mark.parametrize("wire", BROKEN_LISTS.values(), ids=BROKEN_LISTS)
async def test_a_list_that_is_none_is_an_error_that_is_shown_and_keeps_nobody_else_from_anything(
    scene: Scene, engine: Engine, caplog: pytest.LogCaptureFixture, wire: bytes
) -> None:
    async with raw_server(wire) as port:
        chat = slot("chat", port=engine.port)
        async with served(scene, MODEL, chat, upstream("far", url_of(port))) as (client, _):
            assert (await said(client, body={"model": "chat"}))[0] == 200
            row = await known(client)
            assert row["models"] == []
            assert row["list_error"]
            status, told = await said(client, body={"model": "nobody"})
            assert (status, told["error"]["code"]) == (404, "model.not_found")
            assert (await said(client, body={"model": "chat"}))[0] == 200
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


async def test_an_upstream_whose_list_is_not_known_is_asked_for_what_its_prefix_names(
    scene: Scene, engine: Engine
) -> None:
    engine.answer = _listless
    async with far(scene, engine) as client:
        assert (await said(client, body={"model": "far/org/big"}))[0] == 200
        assert (await said(client, body={"model": "org/big"}))[0] == 404
    assert json.loads(engine.bodies[-1])["model"] == "org/big"


async def _listless(request: web.Request) -> web.StreamResponse:
    return await (failing(404) if request.method == "GET" else hello)(request)


async def test_an_upstream_that_is_gone_does_not_keep_a_request_for_another_one(scene: Scene, engine: Engine) -> None:
    engine.answer = models_listed("big")
    gone = upstream("gone", url_of(free_port()))
    async with served(scene, gone, upstream("far", url_of(engine.port))) as (client, _):
        assert (await said(client))[0] == 200
        assert (await known(client, "gone"))["list_error"]
        status, told = await said(client, body={"model": "gone/big"})
    assert (status, error_of(told)) == (502, ("api_error", "upstream.unreachable"))


async def test_an_upstream_that_does_not_tell_in_time_is_not_waited_for_by_others(scene: Scene, engine: Engine) -> None:
    with taken_port() as port:
        chat = slot("chat", port=engine.port)
        async with served(scene, MODEL, chat, upstream("slow", url_of(port))) as (client, _):
            unknown = asyncio.create_task(said(client))
            assert (await said(client, body={"model": "chat"}))[0] == 200
            assert not unknown.done()
            assert (await unknown)[0] == 404
            assert "in time" in (await shown(client, "slow"))["list_error"]


async def test_a_fallback_that_is_not_known_yet_does_not_hold_up_the_slot_before_it(
    scene: Scene, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upstreams, "_PREFETCH_PATIENCE", 60.0)
    monkeypatch.setattr(upstreams, "_LIST_PATIENCE", 60.0)
    with taken_port() as port:
        chat = slot("chat", port=engine.port, fallback="[slow/big]")
        async with served(scene, MODEL, chat, upstream("slow", url_of(port))) as (client, _):
            assert (await said(client, body={"model": "chat"}))[0] == 200


async def test_an_upstream_that_changes_while_it_is_asked_is_no_fault_of_hal0s(scene: Scene, engine: Engine) -> None:
    gate = asyncio.Event()

    async def slow(request: web.Request) -> web.StreamResponse:
        await gate.wait()
        return await models_listed("big")(request)

    engine.answer = slow
    async with far(scene, engine) as client:
        asking = asyncio.create_task(said(client))
        await until(lambda: engine.now)
        scene.declare(upstream("far", url_of(engine.port), headers="{x-new: yes}"))
        await scene.settle()
        gate.set()
        status, _ = await asking
    assert status in {200, 404, 503}


async def test_an_upstream_at_another_address_is_asked_anew_for_its_list(scene: Scene, engine: Engine) -> None:
    engine.answer = models_listed("big")
    async with engine_on(answer=models_listed("other")) as moved, far(scene, engine) as client:
        await known(client)
        scene.declare(upstream("far", url_of(moved.port)))
        await scene.settle()
        assert (await said(client, body={"model": "other"}))[0] == 200
        assert (await said(client))[0] == 404


async def test_an_upstream_that_no_manifest_declares_any_more_is_forgotten(scene: Scene, engine: Engine) -> None:
    gate = asyncio.Event()
    engine.answer = models_listed("big", then=gated(gate, first=b"data: 1\n\n"))
    async with far(scene, engine) as client:
        answer = await client.post(CHAT, json=ASK)
        scene.declare(MODEL)
        await scene.settle()
        assert (await said(client))[0] == 404
        gate.set()
        assert await answer.read() == b"data: 1\n\ndata: [DONE]\n\n"
        async with client.get("/api/upstreams") as answer:
            assert (await answer.json())["upstreams"] == []


# How they answer.


@pytest.mark.parametrize("status", [400, 401, 404, 429, 500, 503, 529])
async def test_its_own_error_is_passed_on(scene: Scene, engine: Engine, status: int) -> None:
    engine.answer = models_listed("big", then=failing(status, **{"Retry-After": "7"}))
    async with far(scene, engine) as client, client.post(CHAT, json=ASK) as answer:
        assert (answer.status, await answer.json()) == (status, {"error": {"message": "mine"}})
        assert (answer.headers["Retry-After"], answer.headers["X-Hal0-Upstream"]) == ("7", "far")
    assert len(posts(engine)) == 1


async def test_a_stream_passes_byte_for_byte(scene: Scene, engine: Engine) -> None:
    chunks = [b"data: 1\n\n", b"x" * 100_000, b"\n\n", b"data: [DONE]\n\n"]
    engine.answer = models_listed("big", then=sse(*chunks))
    async with far(scene, engine) as client:
        for _ in range(3):
            async with client.post(CHAT, json=ASK | {"stream": True}) as answer:
                assert await answer.read() == b"".join(chunks)


async def test_a_form_is_passed_on(scene: Scene, engine: Engine) -> None:
    engine.answer = models_listed("whisper-large")
    form = recording(200_000, model="far/whisper-large")
    async with far(scene, engine) as client, client.post("/v1/audio/transcriptions", data=form) as answer:
        assert answer.status == 200
    assert b'name="model"\r\n\r\nwhisper-large\r\n' in engine.bodies[-1]
    assert b"RIFF" * 50_000 in engine.bodies[-1]


BROKEN_ANSWERS = {
    "nothing": b"",
    "garbage": b"\x00\xff\x16\x03garbage\r\n\r\n",
    "a head without end": OK + b"X-Long: " + b"x" * 100_000,
    "two lengths": OK + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    "another protocol instead": b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nhello",
}


@pytest.mark.parametrize("wire", BROKEN_ANSWERS.values(), ids=BROKEN_ANSWERS)
async def test_an_answer_that_is_none_is_said_to_be_so(
    scene: Scene, caplog: pytest.LogCaptureFixture, wire: bytes
) -> None:
    async with (
        raw_server(wire) as port,
        far(scene, Engine(port=port), models="[big]") as client,
        client.post(CHAT, json=ASK) as answer,
    ):
        assert (answer.status, answer.headers["Retry-After"]) == (502, "1")
        told = await answer.json()
    assert error_of(told) == ("api_error", "upstream.unreachable")
    assert "far" in told["error"]["message"]
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


GOOD_ANSWERS = {
    "an interim answer first": b"HTTP/1.1 100 Continue\r\n\r\n" + answered(b"{}"),
    "hints first": b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + answered(b"{}"),
    "up to the connection's end": OK + b"\r\n{}",
    "an older protocol": b"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n{}",
    "in chunks with trailers": OK + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n1;x=y\r\n}\r\n0\r\nX-Sum: 1\r\n\r\n",
}


@pytest.mark.parametrize("wire", GOOD_ANSWERS.values(), ids=GOOD_ANSWERS)
@pytest.mark.parametrize("piece", [1, 7, 10_000])
async def test_an_answer_of_any_framing_is_passed_on_in_whatever_pieces_it_comes(
    scene: Scene, wire: bytes, piece: int
) -> None:
    pieces = [wire[at : at + piece] for at in range(0, len(wire), piece)]
    async with raw_server(*pieces) as port, far(scene, Engine(port=port), models="[big]") as client:
        assert await said(client) == (200, {})


async def test_what_comes_behind_an_answer_does_not_reach_the_next_client(scene: Scene) -> None:
    wire = answered(b"{}"), answered(b'{"stolen": true}')
    async with raw_server(*wire, stays=True) as port, far(scene, Engine(port=port), models="[big]") as client:
        for _ in range(5):
            status, told = await said(client)
            assert (status, told) == (200, {}) or told["error"]["code"] == "upstream.unreachable"


async def test_a_stream_that_breaks_off_ends_with_an_error_event(scene: Scene) -> None:
    async with (
        raw_server(STREAM, b"9\r\ndata: 1\n\n\r\n") as port,
        far(scene, Engine(port=port), models="[big]") as client,
        client.post(CHAT, json=ASK) as answer,
    ):
        first, *_, last, rest = (await answer.read()).split(b"\n\n")
    assert (first, rest) == (b"data: 1", b"")
    assert error_of(json.loads(last.removeprefix(b"data: ")))[1] == "stream.broken"


async def test_one_that_says_nothing_for_too_long_is_given_up(scene: Scene) -> None:
    with taken_port() as port:
        async with far(scene, Engine(port=port), models="[big]", idle_timeout="200ms") as client:
            status, told = await said(client)
    assert (status, error_of(told)[1]) == (502, "upstream.unreachable")


async def test_a_client_that_goes_away_cancels_its_work(scene: Scene, engine: Engine) -> None:
    engine.answer = models_listed("big", then=gated(asyncio.Event()))
    async with far(scene, engine) as client:
        await known(client)
        asking = asyncio.create_task(said(client))
        await until(lambda: posts(engine) and engine.now)
        asking.cancel()
        await asyncio.wait_for(engine.cancelled.wait(), 10)


@pytest.mark.parametrize("framing", [b"", b"Connection: close\r\n"])
async def test_an_answer_that_comes_before_all_of_a_form_was_sent_is_passed_on(scene: Scene, framing: bytes) -> None:
    refusal = answered(b'{"error": "too much"}', b"HTTP/1.1 413 Too Large\r\n" + framing)
    form = recording(8 * 2**20, model="big")
    async with (
        raw_server(refusal) as port,
        far(scene, Engine(port=port), models="[big]") as client,
        client.post("/v1/audio/transcriptions", data=form) as answer,
    ):
        assert (answer.status, await answer.read()) == (413, b'{"error": "too much"}')


# Circuit breakers.


async def up(client: ClientSession) -> float:
    """Return the metric that tells whether an upstream's breaker is closed."""
    (value,) = (await scraped(client))["hal0_upstream_up"].values()
    return value


async def test_an_upstream_that_keeps_failing_is_left_alone_until_a_trial_succeeds(
    scene: Scene, engine: Engine
) -> None:
    engine.answer = failing(500)
    async with far(scene, engine, models="[big]", failures=2, cooldown="30s") as client:
        for _ in range(2):
            assert await up(client) == 1
            assert (await said(client))[0] == 500
        assert ((await shown(client))["breaker"], await up(client)) == ("open", 0)
        scene.clock.forward(10)
        async with client.post(CHAT, json=ASK) as answer:
            assert (answer.status, answer.headers["Retry-After"]) == (503, "20")
            told = await answer.json()
        assert error_of(told) == ("overloaded_error", "upstream.unavailable")
        assert "500" in told["error"]["message"]
        assert len(engine.asked) == 2
        scene.clock.forward(21)
        assert (await shown(client))["breaker"] == "half-open"
        engine.answer = hello
        assert (await said(client))[0] == 200
        row = await shown(client)
        assert (row["breaker"], row["error"], await up(client)) == ("closed", "", 1)


async def test_one_trial_at_a_time_tells_whether_an_upstream_is_back(scene: Scene, engine: Engine) -> None:
    gate = asyncio.Event()
    async with far(scene, engine, models="[big]", failures=1, cooldown="10s") as client:
        engine.answer = failing(503)
        assert (await said(client))[0] == 503
        scene.clock.forward(11)
        engine.answer = gated(gate)
        trial = asyncio.create_task(client.post(CHAT, json=ASK))
        await until(lambda: engine.now)
        assert [status for status, _ in await asyncio.gather(*(said(client) for _ in range(5)))] == [503] * 5
        gate.set()
        async with await trial as answer:
            assert answer.status == 200
        engine.answer = hello
        assert (await said(client))[0] == 200
    assert len(engine.asked) == 3


async def test_a_trial_that_fails_opens_the_breaker_for_another_cooldown(scene: Scene, engine: Engine) -> None:
    async with far(scene, engine, models="[big]", failures=3, cooldown="10s") as client:
        engine.answer = failing(500)
        for _ in range(3):
            await said(client)
        for count in (4, 5):
            scene.clock.forward(11)
            assert (await said(client))[0] == 500
            assert (await said(client))[1]["error"]["code"] == "upstream.unavailable"
            assert len(engine.asked) == count


async def test_connections_that_fail_open_the_breaker_and_errors_of_clients_do_not(
    scene: Scene, engine: Engine
) -> None:
    engine.answer = failing(400)
    async with far(scene, engine, models="[big]", failures=1) as client:
        for status in (400, 401, 404, 422, 429):
            engine.answer = failing(status)
            assert (await said(client))[0] == status
        assert (await shown(client))["breaker"] == "closed"
        scene.declare(upstream("far", url_of(free_port()), models="[big]", failures=1))
        await scene.settle()
        assert (await said(client))[1]["error"]["code"] == "upstream.unreachable"
        row = await shown(client)
        assert row["breaker"] == "open"
        assert row["error"]


async def test_a_key_that_is_missing_at_a_trial_does_not_keep_the_breaker_open(
    scene: Scene, engine: Engine, tmp_path: Path
) -> None:
    key = tmp_path / "key"
    key.write_text(KEY)
    settings = {"models": "[big]", "failures": 1, "cooldown": "1000s", "api_key": f"{{file: {key}}}"}
    async with far(scene, engine, **settings) as client:
        engine.answer = failing(500)
        await said(client)
        key.unlink()
        scene.clock.forward(1001)
        assert (await said(client))[1]["error"]["code"] == "upstream.failed"
        key.write_text(KEY)
        engine.answer = hello
        assert (await said(client))[0] == 200


async def test_a_stream_that_a_client_left_is_no_failure_of_the_upstream(scene: Scene, engine: Engine) -> None:
    engine.answer = gated(asyncio.Event(), first=b"data: 1\n\n")
    async with far(scene, engine, models="[big]", failures=1) as client:
        (await client.post(CHAT, json=ASK)).close()
        await until(engine.cancelled.is_set)
        assert (await shown(client))["breaker"] == "closed"


# Keys and headers.


@pytest.fixture(params=["env", "file", "credential"])
def key(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where a key is, as a manifest says it."""
    monkeypatch.setenv("FAR_KEY", KEY)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    (tmp_path / "far-key").write_text(f"{KEY}\n")
    names = {"env": "FAR_KEY", "file": tmp_path / "far-key", "credential": "far-key"}
    return f"{{{request.param}: {names[request.param]}}}"


async def test_a_key_is_sent_as_the_api_wants_it_and_told_to_nobody(
    scene: Scene, engine: Engine, caplog: pytest.LogCaptureFixture, key: str
) -> None:
    caplog.set_level(logging.DEBUG)
    engine.answer = models_listed("big", then=failing(401))
    async with far(scene, engine, api_key=key) as client:
        told = [await said(client), await said(client, body={"model": "far/nobody"})]
        engine.answer = models_listed("big", then=failing(500))
        told += [await said(client) for _ in range(6)]
        shown_to = [await _text(client, path) for path in (*_SHOWN, "/metrics", "/v1/models")]
    assert {request.headers["Authorization"] for request in engine.asked} == {f"Bearer {KEY}"}
    assert KEY not in json.dumps(told) + "".join(shown_to)
    assert KEY not in caplog.text
    assert KEY not in repr([record.args for record in caplog.records])


_SHOWN = ("/api/upstreams", "/api/status", "/api/plan?fresh=1", "/api/route?model=big", "/api/slots")


async def _text(client: ClientSession, path: str) -> str:
    async with client.get(path) as answer:
        return await answer.text()


async def test_a_key_of_anthropics_is_sent_in_its_own_header(scene: Scene, engine: Engine, key: str) -> None:
    engine.answer = models_listed("claude")
    async with far(scene, engine, api_key=key, api="anthropic") as client:
        assert (await said(client, "/v1/messages", {"model": "claude"}))[0] == 200
    listed, asked = engine.asked
    assert (listed.path_qs, asked.path_qs) == ("/v1/models?limit=1000", "/v1/messages")
    for request in (listed, asked):
        assert request.headers.getall("x-api-key") == [KEY]
        assert request.headers.getall("anthropic-version") == ["2023-06-01"]
        assert "Authorization" not in request.headers


async def test_a_key_that_was_changed_is_the_one_that_is_sent(scene: Scene, engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("old")
    async with far(scene, engine, models="[big]", api_key=f"{{file: {tmp_path / 'key'}}}") as client:
        await said(client)
        (tmp_path / "key").write_text("newer\n")
        await said(client)
    assert [request.headers["Authorization"] for request in engine.asked] == ["Bearer old", "Bearer newer"]


@pytest.mark.parametrize("where", ["{env: NO_SUCH_KEY}", "{file: /no/such/key}", "{credential: nothing}"])
async def test_a_key_that_is_missing_is_an_error_that_says_what_to_do(
    scene: Scene, engine: Engine, where: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with far(scene, engine, models="[big]", api_key=where) as client, client.post(CHAT, json=ASK) as answer:
        assert (answer.status, answer.headers["x-should-retry"]) == (502, "false")
        told = await answer.json()
    assert error_of(told) == ("api_error", "upstream.failed")
    name = where.strip("{}").partition(": ")[2]
    assert name in told["error"]["message"]
    assert any(word in told["error"]["message"] for word in ("Set ", "Put ", "Add "))
    assert engine.asked == []
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


async def test_a_list_that_needs_a_key_that_is_missing_says_so(scene: Scene, engine: Engine) -> None:
    async with far(scene, engine, api_key="{env: NO_SUCH_KEY}") as client:
        assert "NO_SUCH_KEY" in (await known(client))["list_error"]
    assert engine.asked == []


@pytest.mark.parametrize("text", ["two\nlines", "", "\n", "tab\tbed", "\x00", "nul\x00l"])
async def test_a_key_that_is_none_is_an_error_without_it(
    scene: Scene, engine: Engine, tmp_path: Path, text: str
) -> None:
    (tmp_path / "key").write_text(text)
    async with far(scene, engine, models="[big]", api_key=f"{{file: {tmp_path / 'key'}}}") as client:
        status, told = await said(client)
    assert (status, told["error"]["code"]) == (502, "upstream.failed")
    assert not text.strip() or text not in told["error"]["message"]
    assert engine.asked == []


async def test_a_client_s_own_credentials_are_not_sent_on(scene: Scene, engine: Engine, key: str) -> None:
    mine = {"Authorization": "Bearer mine", "X-Api-Key": "mine", "Api-Key": "mine", "Cookie": "mine=1"}
    async with far(scene, engine, models="[big]", api_key=key) as client:
        await said(client, **mine, **{"X-Kept": "yes", "Prefer": "wait=5", "Proxy-Authorization": "mine"})
    (asked,) = engine.asked
    assert asked.headers.getall("Authorization") == [f"Bearer {KEY}"]
    unwanted = ("X-Api-Key", "Api-Key", "Cookie", "Prefer", "Proxy-Authorization")
    assert [name for name in unwanted if name in asked.headers] == []
    assert asked.headers["X-Kept"] == "yes"
    assert "mine" not in repr(asked.headers)


async def test_without_a_key_none_is_sent(scene: Scene, engine: Engine) -> None:
    async with far(scene, engine, models="[big]") as client:
        await said(client, Authorization="Bearer mine")
    assert "Authorization" not in engine.asked[0].headers


async def test_further_headers_are_sent_once_whatever_the_client_sends(scene: Scene, engine: Engine) -> None:
    settings = {"api": "anthropic", "models": "[big]", "headers": "{X-Team: ours, Anthropic-Beta: tools}"}
    async with far(scene, engine, **settings) as client:
        theirs = {"X-Team": "theirs", "anthropic-version": "2023-01-01", "Anthropic-Beta": "no"}
        assert (await said(client, "/v1/messages", **theirs))[0] == 200
    (asked,) = engine.asked
    assert asked.headers.getall("X-Team") == ["ours"]
    assert asked.headers.getall("Anthropic-Beta") == ["tools"]
    assert len(asked.headers.getall("Anthropic-Version")) == 1


async def test_a_manifest_may_name_another_version_of_anthropics(scene: Scene, engine: Engine) -> None:
    settings = {"api": "anthropic", "models": "[big]", "headers": '{anthropic-version: "2099-01-01"}'}
    async with far(scene, engine, **settings) as client:
        await said(client, "/v1/messages")
    assert engine.asked[0].headers.getall("anthropic-version") == ["2099-01-01"]


async def test_an_upstream_of_anthropics_has_only_anthropics_paths(scene: Scene, engine: Engine) -> None:
    async with far(scene, engine, api="anthropic", models="[big]") as client:
        assert (await said(client, "/v1/messages/count_tokens"))[0] == 200
        status, told = await said(client)
    assert (status, error_of(told)) == (404, ("not_found_error", "model.not_found"))
    assert [request.path for request in engine.asked] == ["/v1/messages/count_tokens"]


async def test_an_error_on_anthropics_paths_is_in_its_envelope(scene: Scene) -> None:
    async with far(scene, Engine(port=free_port()), api="anthropic", models="[big]") as client:
        status, told = await said(client, "/v1/messages")
    assert (status, set(told), told["type"]) == (502, {"type", "error"}, "error")
    assert (told["error"]["type"], told["error"]["code"]) == ("api_error", "upstream.unreachable")


@pytest.mark.parametrize(
    ("base", "path"),
    [
        ("", "/chat/completions"),
        ("/v1", "/v1/chat/completions"),
        ("/v1/", "/v1/chat/completions"),
        ("/api/openai/v3", "/api/openai/v3/chat/completions"),
        ("/a%20b", "/a b/chat/completions"),
    ],
)
async def test_its_base_address_stands_for_v1(scene: Scene, engine: Engine, base: str, path: str) -> None:
    there = upstream("far", f"http://127.0.0.1:{engine.port}{base}", models="[big]")
    async with served(scene, there) as (client, _):
        assert (await said(client))[0] == 200
    assert engine.asked[0].path == path


@pytest.mark.parametrize(
    "where", ["http://a..b/v1", "http://" + "a" * 64 + ".com/v1", "http://no.such.host.invalid/v1"]
)
async def test_an_address_that_leads_nowhere_is_no_fault_of_hal0s(
    scene: Scene, where: str, caplog: pytest.LogCaptureFixture
) -> None:
    near = upstream("near", where, models="[big]")
    async with served(scene, MODEL, upstream("far", where), near) as (client, _):
        if scene.reconciler.snapshot.upstreams:  # else the manifest was refused, which is as good
            assert (await said(client))[1]["error"]["code"] == "upstream.unreachable"
            assert (await known(client))["list_error"]
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


async def test_one_that_speaks_no_tls_where_tls_is_declared_is_said_to_be_out_of_reach(
    scene: Scene, engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    url = url_of(engine.port).replace("http:", "https:")
    async with served(scene, upstream("far", url, models="[big]", api_key="{env: FAR_KEY}")) as (client, _):
        status, told = await said(client)
    assert (status, error_of(told)[1]) in {(502, "upstream.unreachable"), (502, "upstream.failed")}
    assert engine.asked == []
    assert [record for record in caplog.records if record.name.startswith("hal0") and record.exc_info] == []


# Another hal0.


@asynccontextmanager
async def two(tmp_path: Path, **settings: object) -> AsyncIterator[tuple[Scene, Scene, ClientSession, Engine]]:
    """Serve a hal0 with a slot on demand, and one that has it as its upstream; return a client of the latter."""
    async with scene_in(tmp_path / "there") as there, scene_in(tmp_path / "here") as here, engine_on() as engine:
        there.declare(MODEL, slot("chat", port=engine.port, run="on-demand"), settings.pop("host", {}))  # type: ignore[arg-type]
        await there.settle()
        async with (
            served_on_tcp(there) as address,
            awake(there),
            served(here, upstream("there", f"{address}/v1", **settings)) as (client, _),
        ):
            yield here, there, client, engine


async def test_a_slot_of_another_hal0_is_woken_and_answers(tmp_path: Path) -> None:
    async with two(tmp_path) as (_, there, client, engine):
        headers = {"X-Request-Id": "mine"}
        async with client.post(CHAT, json={"model": "there/chat"}, headers=headers) as answer:
            assert (answer.status, await answer.json()) == (200, {"said": "hello"})
            told = answer.headers.getall("X-Request-Id"), answer.headers["X-Hal0-Upstream"]
            assert told == (["mine"], "there")
            assert len(answer.headers.getall("X-Hal0-Revision")) == 1
        assert ready(there)()
    assert engine.asked[0].headers["X-Request-Id"] == "mine"


async def test_the_models_of_another_hal0_are_listed(tmp_path: Path) -> None:
    async with two(tmp_path) as (_, there, client, _):
        assert (await known(client, "there"))["models"] == ["chat", "m"]
        async with client.get("/v1/models") as answer:
            assert [entry["id"] for entry in (await answer.json())["data"]] == ["there/chat", "there/m"]
        assert there.host.starts == {}


async def test_an_error_of_another_hal0_passes_as_it_is(tmp_path: Path) -> None:
    async with (
        two(tmp_path, models="[nobody]") as (_, _, client, _),
        client.post(CHAT, json={"model": "nobody"}) as answer,
    ):
        assert (answer.status, answer.headers["x-should-retry"]) == (404, "false")
        assert error_of(await answer.json())[1] == "model.not_found"


async def test_a_hal0_that_is_its_own_upstream_does_not_ask_itself_for_ever(scene: Scene) -> None:
    port = free_port()
    scene.declare(upstream("self", url_of(port)))
    await scene.settle()
    async with served_on_tcp(scene, port) as address, ClientSession(address) as client:
        status, told = await said(client)
        assert (status, told["error"]["code"]) == (404, "model.not_found")


async def test_keys_of_one_hal0_are_asked_of_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAL0_KEYS", f"other\n{KEY}\n")
    monkeypatch.setenv("FAR_KEY", KEY)
    host = {"host.yaml": "kind: Host\napi_keys: {env: HAL0_KEYS}\n"}
    async with two(tmp_path, host=host, api_key="{env: FAR_KEY}") as (here, _, client, _):
        ask = partial(said, client, body={"model": "there/chat"})
        assert (await ask())[0] == 200
        monkeypatch.setenv("FAR_KEY", "wrong")
        assert (await ask())[0] == 401
        assert here.reconciler.demands.all == {}
