"""Requests that wait: for a slot that loads, for a place at its engine, for the end of a swap."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
from aiohttp import ClientPayloadError, ClientResponse, web
from plane import (
    CHAT,
    Bench,
    Engine,
    LiveRuntime,
    awake,
    bench_of,
    engine_on,
    error_of,
    failing,
    free_port,
    gated,
    hello,
    live,
    many_clients,
    model,
    ready,
    recording,
    served,
    sse,
    until,
)
from scenes import MODEL, Scene, slot

from hal0.core.observed import ProbeResult
from hal0.core.state import SlotState
from hal0.host.ledger import Transition

MANY = 1000
NOBODY = {"model": "chat", "messages": []}


@asynccontextmanager
async def loading(scene: Scene, engine: Engine, **settings: object) -> AsyncIterator[Bench]:
    """Serve a slot that loads until ``loaded``."""
    scene.prober.answers["chat"] = ProbeResult.LOADING
    async with bench_of(scene, engine, **settings) as bench, awake(scene):
        await until(lambda: scene.states()["chat"] in {SlotState.WARMING, SlotState.OFFLINE})
        yield bench


def loaded(scene: Scene) -> None:
    """Have the slot's model be there."""
    del scene.prober.answers["chat"]
    scene.look("chat")


def asked(bench: Bench, **body: object) -> asyncio.Task[tuple[int, Any]]:
    """Begin a request."""
    return asyncio.create_task(bench.said(body))


async def asked_in_turn(bench: Bench, count: int) -> list[asyncio.Task[tuple[int, Any]]]:
    """Begin requests one after the other: each waits before the next comes."""
    asking = []
    for number in range(count):
        asking.append(asked(bench, n=number))
        await until(partial(_wait, bench.scene, number + 1))
    return asking


def _wait(scene: Scene, count: int) -> bool:
    return waiting(scene) == count


def waiting(scene: Scene) -> int:
    return scene.reconciler.demands.waiting("chat")


def serving(scene: Scene) -> int:
    return scene.reconciler.demands.serving("chat")


# A slot that is down.


async def test_a_thousand_requests_for_a_cold_slot_cause_one_start_and_are_all_answered(
    scene: Scene, engine: Engine
) -> None:
    scene.declare(MODEL, slot("chat", port=engine.port, run="on-demand"))
    await scene.settle()
    async with many_clients(scene) as client, awake(scene):

        async def ask() -> int:
            async with client.post(CHAT, json=NOBODY) as answer:
                await answer.read()
                return answer.status

        assert await asyncio.gather(*(ask() for _ in range(MANY))) == [200] * MANY
    assert scene.host.starts == {"chat": 1}
    assert len(engine.asked) == MANY
    assert scene.reconciler.demands.all["chat"].in_flight == 0


async def test_requests_that_wait_are_answered_in_the_order_in_which_they_came(scene: Scene, engine: Engine) -> None:
    async with loading(scene, engine, concurrency=1) as bench:
        asking = await asked_in_turn(bench, 8)
        loaded(scene)
        assert [status for status, _ in await asyncio.gather(*asking)] == [200] * 8
    assert [body["n"] for body in engine.said] == list(range(8))


async def test_one_request_more_than_may_wait_is_told_that_the_slot_is_busy(scene: Scene, engine: Engine) -> None:
    async with loading(scene, engine, queue=3) as bench:
        asking = await asked_in_turn(bench, 3)
        async with await bench.ask() as answer:
            assert answer.status == 429
            assert 1 <= int(answer.headers["Retry-After"]) <= 60
            assert error_of(await answer.json()) == ("rate_limit_error", "slot.busy")
        assert waiting(scene) == 3
        loaded(scene)
        assert [status for status, _ in await asyncio.gather(*asking)] == [200] * 3


async def test_a_slot_without_a_queue_answers_while_it_is_up_and_is_started_all_the_same(
    scene: Scene, engine: Engine
) -> None:
    async with bench_of(scene, engine, run="on-demand", queue=0) as bench, awake(scene):
        assert (await bench.said())[0] == 429
        await until(ready(scene))
        assert (await bench.said())[0] == 200


@pytest.mark.parametrize("prefer", ["wait=0", "respond-async, wait=0", "wait=0; x=1", "handling=strict,wait=0"])
async def test_a_client_that_does_not_wait_is_told_at_once_and_the_slot_is_started(
    scene: Scene, engine: Engine, prefer: str
) -> None:
    async with bench_of(scene, engine, run="on-demand") as bench, awake(scene):
        status, said = await bench.said(headers={"Prefer": prefer})
        assert (status, said["error"]["code"], said["error"]["loading"]["state"]) == (503, "slot.loading", "offline")
        await until(ready(scene))
        assert (await bench.said(headers={"Prefer": prefer}))[0] == 200
    assert "Prefer" not in engine.asked[0].headers


@pytest.mark.parametrize("seconds", [60, 86_400, 10_000_000])
async def test_a_client_waits_as_long_as_it_says_whatever_the_manifests_say(
    scene: Scene, engine: Engine, seconds: int
) -> None:
    async with loading(scene, engine, load_wait=0) as bench:
        asking = asyncio.create_task(bench.said(headers={"Prefer": f"wait={seconds}"}))
        await until(lambda: waiting(scene))
        loaded(scene)
        assert (await asking)[0] == 200


async def test_a_form_waits_for_its_slot_as_well(scene: Scene, engine: Engine) -> None:
    scene.prober.answers["ears"] = ProbeResult.LOADING
    form = recording()
    ears = slot("ears", type="transcription", port=engine.port)
    async with served(scene, MODEL, ears) as (client, _), awake(scene):
        asking = asyncio.create_task(client.post("/v1/audio/transcriptions", data=form))
        await until(lambda: scene.reconciler.demands.waiting("ears"))
        del scene.prober.answers["ears"]
        scene.look("ears")
        async with await asking as answer:
            assert answer.status == 200
    assert b'name="model"\r\n\r\nm\r\n' in engine.bodies[0]


async def test_a_form_whose_engine_refuses_the_connection_waits_too(scene: Scene) -> None:
    async with engine_on() as gone:
        port = gone.port
    form = recording()
    async with served(scene, MODEL, slot("ears", type="transcription", port=port)) as (client, _), awake(scene):
        asking = asyncio.create_task(client.post("/v1/audio/transcriptions", data=form))
        await until(lambda: not scene.reconciler.demands.is_open("ears"))
        async with engine_on(port), await asking as answer:
            assert answer.status == 200


def loads(name: str, *seconds: float) -> list[Transition]:
    """Return the history of a slot that took so long to load, again and again."""
    states = [SlotState.OFFLINE, SlotState.STARTING, SlotState.WARMING, SlotState.READY, SlotState.UNLOADING]
    moves = []
    for number, took in enumerate(seconds):
        times = [0.0, 0.5, took, took + 100, took + 101]
        steps = zip(states, [*states[1:], SlotState.OFFLINE], times, strict=True)
        moves += [Transition(name, before, after, 10_000.0 * number + at) for before, after, at in steps]
    return moves


@pytest.mark.parametrize(
    ("history", "since", "seconds"),
    [((30, 20, 40), 0, 30), ((30,), 12, 18), ((500,), 0, 60), ((0.5,), 0, 1), ((5,), 60, 6), ((), 0, 10)],
)
async def test_a_client_is_told_to_come_again_when_the_slot_is_likely_to_be_ready(
    scene: Scene, engine: Engine, history: tuple[float, ...], since: float, seconds: int
) -> None:
    scene.store.ledger.add_transitions(loads("chat", *history))
    scene.prober.answers["chat"] = ProbeResult.LOADING
    async with bench_of(scene, engine, run="on-demand") as bench:
        if since:
            scene.demand("chat")
            await scene.pass_(since)
        async with await bench.ask(headers={"Prefer": "wait=0"}) as answer:
            assert answer.headers["Retry-After"] == str(seconds)
            told = (await answer.json())["error"]["loading"]
    assert (told["elapsed"], told["eta"]) == pytest.approx((since, max(seconds, told["eta"])), abs=0.6)


# What ends a wait.


async def test_a_slot_that_is_removed_while_requests_wait_is_not_found(scene: Scene, engine: Engine) -> None:
    scene.prober.answers["chat"] = ProbeResult.LOADING
    others = {**slot("a"), **slot("b")}
    async with served(scene, MODEL, slot("chat", port=engine.port), others) as (client, path), awake(scene):
        asking = [asked(Bench(scene, engine, client, path)) for _ in range(3)]
        await until(lambda: waiting(scene) == 3)
        scene.declare(MODEL, others)
        for status, said in await asyncio.gather(*asking):
            assert (status, said["error"]["code"]) == (404, "model.not_found")
    assert "chat" not in scene.states()


@pytest.mark.parametrize("settings", [{"run": "never"}, {"suspend": "true"}])
async def test_a_slot_that_is_not_to_run_any_more_while_requests_wait_is_said_not_to_be_loaded(
    scene: Scene, engine: Engine, settings: dict[str, str]
) -> None:
    async with loading(scene, engine) as bench:
        asking = asked(bench)
        await until(lambda: waiting(scene))
        scene.declare(MODEL, slot("chat", port=engine.port, **settings))
        status, said = await asking
    assert (status, said["error"]["code"]) == (503, "model.not_loaded")


async def test_clients_that_leave_while_they_wait_leave_no_demand_behind(scene: Scene, engine: Engine) -> None:
    async with loading(scene, engine, run="on-demand", idle_timeout=0) as bench:
        asking = await asked_in_turn(bench, 3)
        for each in asking:
            each.cancel()
        await until(lambda: scene.reconciler.demands.all["chat"].in_flight == 0)
        scene.clock.forward(60)  # a start that is fresh is not undone at once
        scene.look("chat")
        await until(lambda: scene.states() == {"chat": SlotState.OFFLINE})
    assert engine.asked == []


async def test_a_load_that_fails_is_told_to_all_who_wait_for_it_and_the_next_one_may_do_better(
    scene: Scene, engine: Engine
) -> None:
    async with loading(scene, engine) as bench:
        asking = await asked_in_turn(bench, 3)
        scene.host.die("chat")
        scene.runtime.last_lines = ["out of memory"]
        scene.look("chat")
        for status, said in await asyncio.gather(*asking):
            assert (status, said["error"]["code"]) == (502, "slot.load_failed")
            assert said["error"]["last_lines"] == ["out of memory"]
        del scene.prober.answers["chat"]
        again = asked(bench)
        await until(lambda: waiting(scene))
        scene.clock.forward(60)  # the loop tries again after a while
        scene.look("chat")
        assert (await again)[0] == 200


# Places at the engine.


@pytest.mark.parametrize("loads_first", [False, True])
@pytest.mark.parametrize("abort", ["cancel", "drain"])
async def test_no_more_requests_are_at_the_engine_than_its_slot_allows(
    scene: Scene, engine: Engine, abort: str, *, loads_first: bool
) -> None:
    gate = asyncio.Event()
    engine.answer = gated(gate)
    async with (loading if loads_first else bench_of)(scene, engine, concurrency=3, abort=abort) as bench:
        asking = [asyncio.create_task(bench.ask()) for _ in range(20)]
        await until(lambda: serving(scene) + waiting(scene) == 20)
        if loads_first:
            loaded(scene)
        await until(lambda: engine.now >= 3)
        gate.set()
        for answer in await asyncio.gather(*asking):
            await answer.read()
    assert engine.most == 3
    assert len(engine.asked) == 20


@pytest.mark.parametrize("abort", ["cancel", "drain"])
async def test_places_are_given_in_the_order_in_which_requests_came(scene: Scene, engine: Engine, abort: str) -> None:
    gate = asyncio.Event()
    engine.answer = gated(gate)
    async with bench_of(scene, engine, concurrency=1, abort=abort) as bench:
        first = asyncio.create_task(bench.ask({"n": -1}))
        await until(lambda: serving(scene))
        asking = [asyncio.create_task(bench.ask({"n": 0}))]
        for number in range(1, 8):
            await until(partial(_wait, scene, number))
            asking.append(asyncio.create_task(bench.ask({"n": number})))
        await until(lambda: waiting(scene) == 8)
        gate.set()
        for answer in await asyncio.gather(first, *asking):
            await answer.read()
    assert [body["n"] for body in engine.said] == list(range(-1, 8))
    assert engine.most == 1


async def test_a_place_goes_to_the_next_when_the_one_whose_turn_it_was_has_gone(scene: Scene, engine: Engine) -> None:
    gate = asyncio.Event()
    engine.answer = gated(gate)
    async with bench_of(scene, engine, concurrency=1) as bench:
        first = asyncio.create_task(bench.ask())
        await until(lambda: serving(scene))
        gone = [asyncio.create_task(bench.ask()) for _ in range(2)]
        await until(lambda: waiting(scene) == 2)
        last = asyncio.create_task(bench.ask({"n": "last"}))
        await until(lambda: waiting(scene) == 3)
        for each in gone:
            each.cancel()
        await until(lambda: waiting(scene) == 1)
        gate.set()
        for answer in (await first, await last):
            assert answer.status == 200
            await answer.read()
    assert [body.get("n") for body in engine.said] == [None, "last"]


async def test_places_go_round_while_clients_come_and_go(scene: Scene, engine: Engine) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(0)  # others come in between
        return await hello(request)

    engine.answer = answer
    async with bench_of(scene, engine, concurrency=2) as bench:
        asking = [asked(bench, n=number) for number in range(60)]
        for number, each in enumerate(asking):
            await asyncio.sleep(0)
            if number % 3 == 0:
                each.cancel()
        told = await asyncio.gather(*asking, return_exceptions=True)
        await until(lambda: scene.reconciler.demands.all["chat"].in_flight == 0)
        assert (await bench.said())[0] == 200
    assert [each[0] for each in told if isinstance(each, tuple)] == [200] * 40
    assert engine.most == 2


async def test_a_place_whose_holder_left_while_the_slot_was_replaced_is_not_lost(scene: Scene) -> None:
    gate = asyncio.Event()
    async with live(scene, "chat", answer=gated(gate)) as runtime, swappable(scene, runtime, concurrency=1) as bench:
        first = asyncio.create_task(bench.ask())
        await until(lambda: serving(scene))
        second = asyncio.create_task(bench.ask())
        await until(lambda: waiting(scene) == 1)
        third = asyncio.create_task(bench.said({"n": "third"}))
        await until(lambda: waiting(scene) == 2)
        runtime.stops = asyncio.Event()
        swap(scene, runtime, concurrency=1)
        await until(lambda: not scene.reconciler.demands.is_open("chat"))
        runtime.answer = hello
        gate.set()
        await (await first).read()
        await until(lambda: "stop chat" in runtime.calls)
        second.cancel()
        await until(lambda: waiting(scene) == 1)
        runtime.stops.set()
        assert await third == (200, {"said": "hello"})


async def test_requests_that_wait_for_a_place_keep_their_order_over_a_swap(scene: Scene) -> None:
    gate = asyncio.Event()
    async with live(scene, "chat", answer=gated(gate)) as runtime, swappable(scene, runtime, concurrency=1) as bench:
        first = asyncio.create_task(bench.ask())
        await until(lambda: serving(scene))
        asking = await asked_in_turn(bench, 3)
        runtime.answer, runtime.stops = hello, asyncio.Event()
        swap(scene, runtime, concurrency=1)
        await until(lambda: not scene.reconciler.demands.is_open("chat"))
        gate.set()
        await (await first).read()
        await until(lambda: "stop chat" in runtime.calls)
        asking.append(asked(bench, n=3))
        await until(partial(_wait, scene, 4))
        runtime.stops.set()
        assert [status for status, _ in await asyncio.gather(*asking)] == [200] * 4
    assert [body["n"] for body in runtime.engines[-1].said] == [0, 1, 2, 3]


@pytest.mark.parametrize("why", ["removed", "never", "broken"])
async def test_all_who_wait_for_a_place_are_told_when_the_slot_is_gone(scene: Scene, engine: Engine, why: str) -> None:
    others = {**slot("a"), **slot("b")}
    chat = slot("chat", port=engine.port, concurrency=1, drain_timeout=0)
    engine.answer = gated(asyncio.Event())
    async with served(scene, MODEL, chat, others) as (client, path), awake(scene):
        bench = Bench(scene, engine, client, path)
        first = asyncio.create_task(bench.ask())
        await until(lambda: serving(scene))
        asking = await asked_in_turn(bench, 3)
        if why == "broken":
            scene.host.doomed.add("chat")
            scene.host.die("chat")
            scene.look("chat")
        else:
            never = slot("chat", port=engine.port, concurrency=1, drain_timeout=0, run="never")
            scene.declare(MODEL, others, {} if why == "removed" else never)
        await until(lambda: not scene.states().get("chat", SlotState.OFFLINE).is_dispatchable)
        first.cancel()
        code = {"removed": "model.not_found", "never": "model.not_loaded", "broken": "slot.load_failed"}[why]
        for _, said in await asyncio.gather(*asking):
            assert said["error"]["code"] == code


async def test_a_request_that_finds_no_place_in_time_is_told_that_the_slot_is_busy(
    scene: Scene, engine: Engine
) -> None:
    gate = asyncio.Event()
    engine.answer = gated(gate)
    async with bench_of(scene, engine, concurrency=1) as bench:
        first = asyncio.create_task(bench.ask())
        await until(lambda: serving(scene))
        async with await bench.ask(headers={"Prefer": "wait=0"}) as answer:
            assert (answer.status, answer.headers["Retry-After"]) == (429, "1")
            assert error_of(await answer.json()) == ("rate_limit_error", "slot.busy")
        gate.set()
        await (await first).read()


async def test_places_that_a_manifest_adds_are_taken_by_those_who_wait(scene: Scene, engine: Engine) -> None:
    gate = asyncio.Event()
    engine.answer = gated(gate)
    async with bench_of(scene, engine, concurrency=1) as bench, awake(scene):
        asking = [asyncio.create_task(bench.ask()) for _ in range(4)]
        await until(lambda: waiting(scene) == 3)
        scene.declare(MODEL, slot("chat", port=engine.port, concurrency=3))
        await until(lambda: engine.now == 3)
        gate.set()
        for answer in await asyncio.gather(*asking):
            await answer.read()
    assert engine.most == 3


async def test_requests_whose_engine_is_gone_for_a_moment_keep_their_order(scene: Scene) -> None:
    port = free_port()
    async with bench_of(scene, Engine(port=port), concurrency=1) as bench:
        asking = await asked_in_turn(bench, 6)
        async with awake(scene), engine_on(port) as engine:
            assert [status for status, _ in await asyncio.gather(*asking)] == [200] * 6
    assert [body["n"] for body in engine.said] == list(range(6))


# For how long a slot is kept.


@pytest.mark.parametrize(
    ("said", "settings", "kept"),
    [
        (0, {}, 0),
        ("0", {}, 0),
        (-1, {}, 900),
        ("-1", {}, 900),
        ("-5m", {}, 900),
        ("10m", {}, 600),
        ("1h30m", {}, 900),
        (30, {}, 30),
        (1.5, {}, 1.5),
        ("45", {}, 45),
        (10**9, {}, 900),
        pytest.param("9" * 400, {}, 900, id="a text of many digits"),
        pytest.param(10**400, {}, 900, id="more than a float holds"),
        pytest.param(-(10**400), {}, 900, id="less than a float holds"),
        ("2h", {"max_keep_alive": "1h"}, 3600),
        (-1, {"max_keep_alive": "1h"}, 3600),
        (7, {"max_keep_alive": 5}, 5),
        (None, {"max_keep_alive": 5}, None),
    ],
)
async def test_a_client_says_for_how_long_a_slot_is_kept_up_to_what_the_manifest_allows(
    scene: Scene, engine: Engine, said: object, settings: dict[str, object], kept: float | None
) -> None:
    async with bench_of(scene, engine, run="on-demand", **settings) as bench, awake(scene):
        assert (await bench.said({"keep_alive": said}))[0] == 200
        assert scene.reconciler.demands.all["chat"].keep == kept
    assert engine.said == [{"model": "m", "messages": []}]


@pytest.mark.parametrize("said", ["soon", "", " ", [], {}, True, "1e5", "ten", "10 m", "m", "5m-", "nan", "inf"])
async def test_a_keep_alive_that_is_none_is_the_clients_mistake(scene: Scene, engine: Engine, said: object) -> None:
    async with bench_of(scene, engine, run="on-demand") as bench, await bench.ask({"keep_alive": said}) as answer:
        assert (answer.status, answer.headers["x-should-retry"]) == (400, "false")
        told = await answer.json()
    assert error_of(told) == ("invalid_request_error", "request.invalid_keep_alive")
    assert told["error"]["param"] == "keep_alive"
    assert scene.reconciler.demands.all == {}


async def test_a_keep_alive_without_end_costs_nobody_anything(scene: Scene, engine: Engine) -> None:
    async with bench_of(scene, engine) as bench:
        status, said = await bench.said({"keep_alive": "1" * 20_000 + "x"})
    assert (status, said["error"]["code"]) == (400, "request.invalid_keep_alive")


@pytest.mark.parametrize(("said", "seconds"), [(0, 0), ("10m", 600), (None, 900)])
async def test_a_slot_is_stopped_when_it_was_kept_for_long_enough(
    scene: Scene, engine: Engine, said: object, seconds: float
) -> None:
    async with bench_of(scene, engine, run="on-demand") as bench:
        scene.demand("chat")
        scene.reconciler.demands.end("chat", served=False)
        await scene.until(ready(scene))
        assert (await bench.said({"keep_alive": said}))[0] == 200
        if seconds:
            await scene.pass_(seconds - 1)
            assert scene.states()["chat"].is_dispatchable
        await scene.pass_(5)
        assert scene.states() == {"chat": SlotState.OFFLINE}


# A swap.


@asynccontextmanager
async def swappable(scene: Scene, runtime: LiveRuntime, **settings: object) -> AsyncIterator[Bench]:
    """Serve one slot whose engine is real, and comes and goes with its service."""
    async with bench_of(scene, Engine(port=runtime.ports["chat"]), **settings) as bench, awake(scene):
        await until(ready(scene))
        yield bench


def swap(scene: Scene, runtime: LiveRuntime, **settings: object) -> None:
    """Have the slot's manifest name another model."""
    text = slot("chat", port=runtime.ports["chat"], **settings)["chat.yaml"].replace("model: m\n", "model: m2\n")
    scene.declare(MODEL, model("m2", scene.folder), {"chat.yaml": text})


async def models_answered(request: web.Request) -> web.StreamResponse:
    return web.json_response({"model": (await request.json())["model"]})


async def test_a_swap_waits_for_requests_in_flight_and_loses_none(scene: Scene) -> None:
    gate = asyncio.Event()
    streaming = gated(gate, first=b"data: 1\n\n")
    async with live(scene, "chat", answer=streaming) as runtime, swappable(scene, runtime) as bench:
        flying = [asyncio.create_task(bench.ask({"stream": True})) for _ in range(5)]
        answers: list[ClientResponse] = await asyncio.gather(*flying)
        assert serving(scene) == 5
        runtime.answer = models_answered
        swap(scene, runtime)
        await until(lambda: not scene.reconciler.demands.is_open("chat"))
        late = await asked_in_turn(bench, 5)
        assert "stop chat" not in runtime.calls
        gate.set()
        for answer in answers:
            assert await answer.read() == b"data: 1\n\ndata: [DONE]\n\n"
        assert await asyncio.gather(*late) == [(200, {"model": "m2"})] * 5
    old, new = runtime.engines
    assert [body["model"] for body in old.said] == ["m"] * 5
    assert [body["model"] for body in new.said] == ["m2"] * 5
    assert scene.host.starts == {"chat": 2}


async def test_no_request_is_lost_or_refused_while_slots_are_swapped_under_load(scene: Scene) -> None:
    async with live(scene, "chat", answer=models_answered) as runtime, swappable(scene, runtime) as bench:
        told: list[tuple[int, Any]] = []
        is_over = asyncio.Event()

        async def ask_on() -> None:
            while not is_over.is_set():
                told.append(await bench.said())

        asking = [asyncio.create_task(ask_on()) for _ in range(20)]
        await until(lambda: len(told) > 100)
        swap(scene, runtime)
        await until(lambda: {"model": "m2"} in [said for _, said in told])
        is_over.set()
        await asyncio.gather(*asking)
    assert {status for status, _ in told} == {200}
    models = [said["model"] for _, said in told]
    assert models == sorted(models)


async def test_a_stop_goes_on_when_requests_in_flight_take_longer_than_it_waits(scene: Scene) -> None:
    endless, settings = gated(asyncio.Event(), first=b"data: 1\n\n"), {"drain_timeout": "100ms"}
    async with live(scene, "chat", answer=endless) as runtime, swappable(scene, runtime, **settings) as bench:
        answer = await bench.ask({"stream": True})
        assert await answer.content.readany() == b"data: 1\n\n"
        runtime.answer = models_answered
        swap(scene, runtime, **settings)
        await until(lambda: not scene.reconciler.demands.is_open("chat"))
        assert await bench.said() == (200, {"model": "m2"})
        assert b"stream.broken" in await answer.read()


async def test_a_slot_on_demand_is_not_stopped_under_a_request_that_is_being_answered(
    scene: Scene, engine: Engine
) -> None:
    gate = asyncio.Event()
    engine.answer = gated(gate, first=b"data: 1\n\n")
    async with bench_of(scene, engine, run="on-demand", idle_timeout=1) as bench, awake(scene):
        answer = await bench.ask({"stream": True})
        scene.clock.forward(100)
        scene.look("chat")
        await until(lambda: scene.states() == {"chat": SlotState.SERVING})
        gate.set()
        assert (await answer.read()).endswith(b"[DONE]\n\n")
        assert "stop chat" not in scene.runtime.calls


# An engine that is not ready after all.


@pytest.mark.parametrize("abort", ["cancel", "drain"])
async def test_a_request_that_the_engine_answers_with_loading_model_waits(either: Bench, abort: str) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        if len(either.engine.asked) == 1:
            body = {"error": {"code": 503, "message": "Loading model", "type": "unavailable_error"}}
            return web.json_response(body, status=503)
        return await hello(request)

    either.scene.declare(MODEL, slot("chat", port=either.engine.port, abort=abort))
    await either.scene.settle()
    either.engine.answer = answer
    async with awake(either.scene):
        assert await either.said() == (200, {"said": "hello"})
    assert either.engine.bodies[0] == either.engine.bodies[-1]
    assert either.scene.reconciler.demands.all["chat"].in_flight == 0


async def test_an_engines_own_503_is_passed_on_and_asked_for_once(either: Bench) -> None:
    either.engine.answer = failing(503)
    assert await either.said() == (503, {"error": {"message": "mine"}})
    assert len(either.engine.asked) == 1


async def test_an_engine_that_says_loading_for_too_long_is_said_to_be_loading(bench: Bench) -> None:
    async def answer(_: web.Request) -> web.StreamResponse:
        return web.json_response({"error": {"message": "Loading model"}}, status=503)

    bench.engine.answer = answer
    async with awake(bench.scene):
        status, said = await bench.said(headers={"Prefer": "wait=1"})
    assert (status, said["error"]["code"]) == (503, "slot.loading")
    assert "is ready" not in said["error"]["message"]


# Clients that go.


async def _gone(bench: Bench, begun: bool) -> None:
    """Ask for a stream, and go away before its first byte or after."""
    asking = asyncio.create_task(bench.ask({"stream": True}))
    async with asyncio.timeout(10):
        await bench.engine.begun.wait()
        if begun:
            answer = await asking
            await answer.content.readany()
            answer.close()
        else:
            asking.cancel()


@pytest.mark.parametrize("begun", [False, True])
async def test_an_engine_that_is_to_be_spared_comes_to_its_end_though_the_client_has_gone(
    scene: Scene, engine: Engine, begun: bool
) -> None:
    gate = asyncio.Event()
    engine.answer = gated(gate, first=b"data: 1\n\n" if begun else b"")
    async with bench_of(scene, engine, abort="drain", concurrency=1) as bench:
        await _gone(bench, begun)
        after = asked(bench)
        await until(lambda: waiting(scene) == 1)
        assert (serving(scene), engine.cancelled.is_set()) == (1, False)
        gate.set()
        engine.answer = hello
        assert (await after)[0] == 200
        assert engine.ended.is_set()
        assert not engine.cancelled.is_set()
        await until(lambda: scene.reconciler.demands.all["chat"].in_flight == 0)
    assert engine.most == 1


async def test_all_that_an_engine_still_says_is_taken_when_its_client_has_gone(scene: Scene, engine: Engine) -> None:
    more = asyncio.Event()

    async def answer(request: web.Request) -> web.StreamResponse:
        response = await sse(b"data: 1\n\n")(request)
        await more.wait()
        for _ in range(200):
            await response.write(b"x" * 65536)
        return response

    engine.answer = answer
    async with bench_of(scene, engine, abort="drain") as bench:
        await _gone(bench, begun=True)
        more.set()
        await until(engine.ended.is_set)
        await until(lambda: scene.reconciler.demands.all["chat"].in_flight == 0)


async def test_a_client_that_goes_frees_its_place_at_the_engine(scene: Scene, engine: Engine) -> None:
    engine.answer = gated(asyncio.Event())
    async with bench_of(scene, engine, concurrency=1) as bench:
        first = asyncio.create_task(bench.ask())
        await until(lambda: serving(scene))
        second = asked(bench)
        await until(lambda: waiting(scene))
        engine.answer = hello
        first.cancel()
        assert (await second)[0] == 200
        assert engine.cancelled.is_set()


async def test_a_client_that_stops_reading_holds_the_engine_back_and_may_go_on(scene: Scene, engine: Engine) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for _ in range(400):
            await response.write(b"x" * 65536)
        return response

    engine.answer = answer
    async with bench_of(scene, engine) as bench:
        found = await bench.ask({"stream": True})
        assert await found.content.read(10) == b"x" * 10
        assert (await bench.client.get("/v1/models")).status == 200
        assert not engine.ended.is_set()
        assert len(await found.read()) == 400 * 65536 - 10


async def test_an_answer_that_the_stop_breaks_off_is_never_filled_up(scene: Scene) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "5000"})
        await response.prepare(request)
        await response.write(b"{")
        await asyncio.Event().wait()
        return response

    async with (
        live(scene, "chat", answer=answer) as runtime,
        swappable(scene, runtime, drain_timeout=0) as bench,
        await bench.ask() as found,
    ):
        swap(scene, runtime, drain_timeout=0)
        with pytest.raises(ClientPayloadError):
            await found.read()
