"""What is tried in turn where a slot or an upstream can't answer; once an answer has begun, nothing is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

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
    models_listed,
    raw_server,
    recording,
    said,
    served,
    sse,
    until,
    upstream,
    url_of,
)
from scenes import MODEL, Scene, slot

from hal0.core.observed import ProbeResult
from hal0.core.state import SlotState

ASK = {"model": "one", "messages": []}


@asynccontextmanager
async def chain(scene: Scene, *, waits: bool = False, **settings: object) -> AsyncIterator[tuple[ClientSession, Chain]]:
    """Serve two slots and an upstream that stand in for each other: one, then two, then far/big."""
    async with AsyncExitStack() as stack:
        one, two, far = [await stack.enter_async_context(engine_on(answer=named(name))) for name in NAMES]
        order = {"fallback": "[two, far/big]"} | ({} if waits else {"load_wait": 0})
        manifests = [
            slot("one", **({"port": one.port} | order | settings)),
            slot("two", port=two.port, load_wait=0, fallback="[one]"),
            upstream("far", url_of(far.port), models="[big]"),
        ]
        client, _ = await stack.enter_async_context(served(scene, MODEL, *manifests))
        yield client, (one, two, far)


Chain = tuple[Engine, Engine, Engine]
NAMES = ("one", "two", "far")


def named(name: str) -> Any:
    async def answer(_: web.Request) -> web.StreamResponse:
        return web.json_response({"by": name})

    return answer


def counts(engines: Chain) -> list[int]:
    """Return how often each was asked."""
    return [len(engine.asked) for engine in engines]


def down(scene: Scene, *names: str) -> None:
    """Have slots not be ready."""
    scene.prober.answers |= dict.fromkeys(names, ProbeResult.LOADING)


async def test_the_first_answers_while_it_can(scene: Scene) -> None:
    async with chain(scene) as (client, engines):
        for _ in range(3):
            assert await said(client, body=ASK) == (200, {"by": "one"})
    assert counts(engines) == [3, 0, 0]


@pytest.mark.parametrize(("gone", "by"), [(["one"], "two"), (["one", "two"], "far")])
async def test_what_is_not_ready_in_time_is_passed_over_in_the_order_of_the_manifest(
    scene: Scene, gone: list[str], by: str
) -> None:
    down(scene, *gone)
    async with chain(scene) as (client, engines):
        async with client.post(CHAT, json=ASK) as answer:
            assert (answer.status, await answer.json()) == (200, {"by": by})
            assert ("X-Hal0-Slot" in answer.headers) is not ("X-Hal0-Upstream" in answer.headers)
        assert all(scene.reconciler.demands.all[name].in_flight == 0 for name in gone)
    asked = engines[NAMES.index(by)]
    assert [engine for engine in engines if engine.asked] == [asked]
    assert asked.said == [{"model": "big" if by == "far" else "m", "messages": []}]


async def test_a_slot_that_gets_ready_while_the_request_waits_is_the_one_that_answers(scene: Scene) -> None:
    down(scene, "one")
    async with chain(scene, waits=True) as (client, engines), awake(scene):
        asking = asyncio.create_task(said(client, body=ASK))
        await until(lambda: scene.reconciler.demands.waiting("one"))
        scene.prober.answers.clear()
        scene.look("one")
        assert await asking == (200, {"by": "one"})
    assert counts(engines) == [1, 0, 0]


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504, 529])
async def test_a_failure_is_left_to_the_next_one(scene: Scene, status: int) -> None:
    async with chain(scene) as (client, engines):
        engines[0].answer = failing(status)
        for _ in range(2):
            assert await said(client, body=ASK) == (200, {"by": "two"})
    assert counts(engines) == [2, 2, 0]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 422])
async def test_an_error_that_is_the_requests_own_is_not_tried_elsewhere(scene: Scene, status: int) -> None:
    async with chain(scene) as (client, engines):
        engines[0].answer = failing(status)
        assert await said(client, body=ASK) == (status, {"error": {"message": "mine"}})
    assert counts(engines) == [1, 0, 0]


async def test_the_last_ones_own_error_is_passed_on_as_it_is(scene: Scene) -> None:
    async with chain(scene) as (client, engines):
        for engine in engines:
            engine.answer = failing(500)
        engines[-1].answer = failing(503, **{"Retry-After": "7", "X-Mine": "yes"})
        async with client.post(CHAT, json=ASK) as answer:
            assert (answer.status, await answer.json()) == (503, {"error": {"message": "mine"}})
            assert (answer.headers["Retry-After"], answer.headers["X-Mine"]) == ("7", "yes")
            assert answer.headers["X-Hal0-Upstream"] == "far"
    assert counts(engines) == [1, 1, 1]


async def test_where_the_last_one_is_not_ready_that_is_what_the_client_is_told(scene: Scene) -> None:
    down(scene, "two")
    async with chain(scene, fallback="[two]") as (client, engines):
        engines[0].answer = failing(500)
        status, told = await said(client, body=ASK)
    assert (status, error_of(told)[1]) == (503, "slot.loading")
    assert "two" in told["error"]["message"]


async def test_an_engine_that_does_not_answer_is_left_for_the_next_one(scene: Scene) -> None:
    async with raw_server(b"") as port, chain(scene, port=port) as (client, engines):
        assert await said(client, body=ASK) == (200, {"by": "two"})
    assert counts(engines) == [0, 1, 0]


async def test_an_engine_that_refuses_the_connection_is_left_for_the_next_one_when_its_time_is_up(
    scene: Scene,
) -> None:
    async with chain(scene, port=free_port()) as (client, engines):
        assert await said(client, body=ASK) == (200, {"by": "two"})
    assert counts(engines) == [0, 1, 0]


async def test_a_slot_that_is_not_to_run_is_left_for_the_next_one(scene: Scene) -> None:
    async with chain(scene, run="never") as (client, _):
        assert await said(client, body=ASK) == (200, {"by": "two"})


async def test_a_slot_whose_load_fails_is_left_for_the_next_one(scene: Scene) -> None:
    scene.host.doomed.add("one")
    async with chain(scene, waits=True, run="on-demand") as (client, engines), awake(scene):
        assert await said(client, body=ASK) == (200, {"by": "two"})
    assert counts(engines) == [0, 1, 0]


async def test_a_slot_that_is_busy_is_left_for_the_next_one(scene: Scene) -> None:
    gate = asyncio.Event()
    async with chain(scene, concurrency=1, queue=0) as (client, engines):
        engines[0].answer = gated(gate)
        first = asyncio.create_task(client.post(CHAT, json=ASK))
        await until(lambda: engines[0].now)
        assert await said(client, body=ASK) == (200, {"by": "two"})
        gate.set()
        (await first).close()


async def test_only_the_list_of_the_first_one_counts(scene: Scene) -> None:
    async with chain(scene, fallback="[two]") as (client, engines):
        for engine in engines[:2]:
            engine.answer = failing(500)
        assert (await said(client, body=ASK))[0] == 500
    assert counts(engines) == [1, 1, 0]


async def test_two_that_stand_in_for_each_other_are_each_asked_once(scene: Scene) -> None:
    async with chain(scene, fallback="[two]") as (client, engines):
        for engine in engines:
            engine.answer = failing(503)
        assert (await said(client, body=ASK | {"model": "two"}))[0] == 503
    assert counts(engines) == [1, 1, 0]


@pytest.mark.parametrize("more", [[], [b"9\r\ndata: 1\n\n\r\n"]])
async def test_a_stream_that_has_begun_is_not_begun_again_elsewhere(scene: Scene, more: list[bytes]) -> None:
    async with (
        raw_server(STREAM, *more) as port,
        chain(scene, port=port) as (client, engines),
        client.post(CHAT, json=ASK | {"stream": True}) as answer,
    ):
        assert b"stream.broken" in await answer.read()
    assert counts(engines) == [0, 0, 0]


async def test_a_failure_that_takes_its_time_is_not_waited_for(scene: Scene) -> None:
    head = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 5000\r\n\r\n{"
    async with raw_server(head, stays=True) as port, chain(scene, port=port) as (client, _):
        assert await said(client, body=ASK) == (200, {"by": "two"})


async def test_an_upstream_falls_back_to_a_slot(scene: Scene) -> None:
    async with engine_on(answer=failing(500)) as far, engine_on() as near:
        manifests = [
            slot("near", port=near.port, set="{seed: 1}"),
            upstream("far", url_of(far.port), models="[big]", fallback="[near]", failures=2),
        ]
        async with served(scene, MODEL, *manifests) as (client, _):
            for _ in range(4):
                assert await said(client, body={"model": "big"}) == (200, {"said": "hello"})
    assert (len(far.asked), len(near.asked)) == (2, 4)  # its breaker is open by then
    assert near.said[0] == {"model": "m", "seed": 1}
    assert far.said[0] == {"model": "big"}


async def test_an_upstream_without_its_key_falls_back(scene: Scene) -> None:
    async with engine_on() as near:
        key = "{env: NO_SUCH_KEY}"
        far = upstream("far", url_of(1), models="[big]", fallback="[near]", api_key=key)
        async with served(scene, MODEL, slot("near", port=near.port), far) as (client, _):
            assert (await said(client, body={"model": "big"}))[0] == 200


async def test_each_is_asked_with_what_its_own_manifest_says(scene: Scene) -> None:
    async with chain(scene, defaults="{temperature: 1}", strip="[user]") as (client, engines):
        engines[0].answer = engines[1].answer = failing(503)
        assert (await said(client, body=ASK | {"user": "me", "keep_alive": 5}))[0] == 200
    assert [engine.said for engine in engines] == [
        [{"model": "m", "messages": [], "temperature": 1}],
        [{"model": "m", "messages": [], "user": "me"}],
        [{"model": "big", "messages": [], "user": "me"}],
    ]


async def test_a_request_that_is_wrong_is_refused_and_not_tried_elsewhere(scene: Scene) -> None:
    async with chain(scene) as (client, engines):
        status, told = await said(client, body=ASK | {"keep_alive": "soon"})
    assert (status, error_of(told)[1]) == (400, "request.invalid_keep_alive")
    assert counts(engines) == [0, 0, 0]


async def test_a_form_falls_back_as_long_as_none_of_it_was_sent(scene: Scene) -> None:
    scene.prober.answers["ears"] = ProbeResult.LOADING
    async with engine_on() as ears, engine_on() as far:
        manifests = [
            slot("ears", type="transcription", port=ears.port, load_wait=0, fallback="[far/whisper]"),
            upstream("far", url_of(far.port), models="[whisper]"),
        ]
        async with served(scene, MODEL, *manifests) as (client, _):
            path = "/v1/audio/transcriptions"
            async with client.post(path, data=recording(300_000)) as answer:
                assert answer.status == 200
            assert b'name="model"\r\n\r\nwhisper\r\n' in far.bodies[0]
            assert b"RIFF" * 75_000 in far.bodies[0]
            scene.prober.answers.clear()
            scene.look("ears")
            await scene.settle()
            ears.answer = failing(500)
            async with client.post(path, data=recording()) as answer:
                assert (answer.status, len(far.asked)) == (500, 1)


async def test_a_client_that_goes_is_not_tried_for_elsewhere(scene: Scene) -> None:
    async with chain(scene) as (client, engines):
        engines[0].answer = gated(asyncio.Event())
        asking = asyncio.create_task(said(client, body=ASK))
        await until(lambda: engines[0].now)
        asking.cancel()
        await until(engines[0].cancelled.is_set)
        await until(lambda: scene.reconciler.demands.all["one"].in_flight == 0)
    assert counts(engines) == [1, 0, 0]


async def test_a_fallback_that_an_upstream_does_not_have_is_passed_over(scene: Scene) -> None:
    async with engine_on(answer=models_listed("big")) as far, engine_on(answer=failing(500)) as one, engine_on() as two:
        manifests = [
            slot("one", port=one.port, fallback="[far/gone, two]"),
            slot("two", port=two.port),
            upstream("far", url_of(far.port)),
        ]
        async with served(scene, MODEL, *manifests) as (client, _):
            assert await said(client, body=ASK) == (200, {"said": "hello"})
    assert ([request.path for request in far.asked], len(two.asked)) == (["/v1/models"], 1)


async def test_an_error_is_passed_on_as_it_is_where_the_fallback_turns_out_to_lead_nowhere(scene: Scene) -> None:
    async with engine_on(answer=failing(500)) as one, engine_on(answer=models_listed("other")) as far:
        scene.declare(
            MODEL,
            slot("one", port=one.port, fallback="[far/gone]"),
            upstream("far", f"http://127.0.0.1:{far.port}/v1"),
        )
        await scene.settle()
        async with served(scene) as (client, _):
            assert await said(client, body=ASK) == (500, {"error": {"message": "mine"}})


async def test_a_stream_of_a_fallback_passes_as_it_is(scene: Scene) -> None:
    async with chain(scene) as (client, engines):
        engines[0].answer, engines[1].answer = failing(503), sse(b"data: 1\n\n", b"data: [DONE]\n\n")
        async with client.post(CHAT, json=ASK | {"stream": True}) as answer:
            assert await answer.read() == b"data: 1\n\ndata: [DONE]\n\n"


async def test_an_engine_that_is_to_be_spared_falls_back_as_well(scene: Scene) -> None:
    async with chain(scene, abort="drain") as (client, engines):
        engines[0].answer = failing(500)
        assert await said(client, body=ASK) == (200, {"by": "two"})
        engines[0].answer = hello
        assert (await said(client, body=ASK))[0] == 200
    assert scene.reconciler.demands.all["one"].in_flight == 0


async def test_errors_of_anthropics_paths_fall_back_too(scene: Scene) -> None:
    down(scene, "one", "two")
    async with chain(scene, fallback="[two]") as (client, _):
        status, told = await said(client, "/v1/messages", ASK)
    assert (status, told["type"], told["error"]["code"]) == (503, "error", "slot.loading")
    assert scene.states() == dict.fromkeys(("one", "two"), SlotState.WARMING)
