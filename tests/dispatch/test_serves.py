"""From the edit of a slot's manifest to the replacement of its engine, requests are for the engine that is there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from plane import (
    Bench,
    Engine,
    LiveRuntime,
    awake,
    bench_of,
    engine_on,
    free_port,
    gated,
    live,
    model,
    recording,
    served,
    until,
)
from scenes import MODEL, Scene, slot

from hal0.core.engines import stand_in_of
from hal0.core.observed import ProbeResult
from hal0.core.state import SlotState
from hal0.loop.news import PassNews

EDITS = {"defaults": "{top_k: 7}", "strip": "[mine]", "set": "{seed: 7}"}
PROFILE = {
    "other.yaml": "kind: Profile\nname: other\nimage: other:1\nprobe: /other\npaths: {/v1/chat/completions: /other}\n"
}
LANES = pytest.mark.parametrize("lane", [{}, {"abort": "drain"}], ids=["express", "task"])


def edited(scene: Scene, name: str, runtime: LiveRuntime, **settings: object) -> None:
    """Have a slot's manifest name another model, and whatever else."""
    text = slot(name, **({"port": runtime.ports[name]} | settings))[f"{name}.yaml"]
    changed = text.replace("model: m\n", "model: m2\n")
    scene.declare(MODEL, PROFILE, model("m2", scene.folder), {f"{name}.yaml": changed})


@asynccontextmanager
async def behind(scene: Scene, runtime: LiveRuntime, **edits: object) -> AsyncIterator[Bench]:
    """Serve a slot whose manifest is edited, while the image that it names now is still on the way."""
    engine = Engine(port=runtime.ports["chat"])
    async with bench_of(scene, engine, defaults="{top_k: 1}", **_lane(edits)) as bench, awake(scene):
        assert (await bench.said())[0] == 200
        runtime.pulls = asyncio.Event()
        edited(scene, "chat", runtime, profile="other", **edits)
        await until(lambda: "pull other:1" in runtime.calls)
        await until(lambda: scene.reconciler.demands.is_open("chat"))
        yield bench


def _lane(edits: dict[str, object]) -> dict[str, object]:
    return {key: value for key, value in edits.items() if key == "abort"}


def replaced(runtime: LiveRuntime) -> None:
    """Let the image be there."""
    assert runtime.pulls is not None
    runtime.pulls.set()


async def renewed(scene: Scene, runtime: LiveRuntime) -> Engine:
    """Return the new engine once requests go to it."""
    await until(lambda: len(runtime.engines) == 2 and scene.states() == {"chat": SlotState.READY})
    await until(lambda: scene.reconciler.demands.is_open("chat"))
    return runtime.engines[1]


@LANES
async def test_the_old_engine_gets_its_own_models_name_and_parameters_until_it_is_replaced(
    scene: Scene, lane: dict[str, str]
) -> None:
    async with live(scene, "chat") as runtime, behind(scene, runtime, **EDITS, **lane) as bench:
        assert (await bench.said({"mine": 1}))[0] == 200
        replaced(runtime)
        await renewed(scene, runtime)
        assert (await bench.said({"mine": 1}))[0] == 200
        old, new = runtime.engines
    assert old.said[-1] == {"model": "m", "messages": [], "mine": 1, "top_k": 1}
    assert new.said == [{"model": "m2", "messages": [], "top_k": 7, "seed": 7}]
    assert [old.asked[-1].path, new.asked[-1].path] == ["/v1/chat/completions", "/other"]


@LANES
async def test_requests_go_to_the_old_engines_port_until_it_is_replaced(scene: Scene, lane: dict[str, str]) -> None:
    port = free_port()
    async with live(scene, "chat") as runtime, behind(scene, runtime, port=port, **lane) as bench:
        before = len(runtime.engines[0].asked)
        assert (await bench.said())[0] == 200
        assert len(runtime.engines[0].asked) == before + 1
        runtime.ports["chat"] = port
        replaced(runtime)
        new = await renewed(scene, runtime)
        assert (await bench.said())[0] == 200
        assert len(new.asked) == 1


async def test_the_old_engine_is_probed_where_it_listens(scene: Scene) -> None:
    probed: list[tuple[str, int, str]] = []

    async def probe(targets: list[tuple[str, int, str]]) -> dict[str, ProbeResult]:
        probed.extend(targets)
        return {name: ProbeResult.UP for name, _, _ in targets}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scene.prober, "probe", probe)
        async with live(scene, "chat") as runtime, behind(scene, runtime, port=free_port()):
            old = runtime.ports["chat"]
            scene.look("chat")
            await until(lambda: len(probed) > 3)
    assert set(probed) == {("chat", old, "/health")}


async def test_both_models_names_lead_to_the_slot_until_its_engine_is_replaced_and_then_the_new_one_does(
    scene: Scene,
) -> None:
    async with live(scene, "chat") as runtime, behind(scene, runtime) as bench:
        told = [(await bench.said({"model": name}))[0] for name in ("m", "m2", "chat")]
        assert told == [200] * 3
        assert [body["model"] for body in runtime.engines[0].said[-3:]] == ["m"] * 3
        assert {"m", "m2"} <= await listed(bench)
        replaced(runtime)
        await renewed(scene, runtime)
        told = [(await bench.said({"model": name}))[0] for name in ("m", "m2", "chat")]
        assert told == [503, 200, 200]  # the first is known, but no slot has it
        assert "m" not in await listed(bench)


async def listed(bench: Bench) -> set[str]:
    async with bench.client.get("/v1/models") as answer:
        return {each["id"] for each in (await answer.json())["data"]}


async def test_what_the_engine_does_not_see_is_in_force_at_once(scene: Scene, engine: Engine) -> None:
    async with bench_of(scene, engine) as bench:
        scene.declare(MODEL, slot("chat", port=engine.port, **EDITS))
        await scene.settle()
        await bench.said({"mine": 1})
    assert engine.said == [{"model": "m", "messages": [], "top_k": 7, "seed": 7}]


async def test_a_suspended_slots_engine_is_asked_as_it_was_started(scene: Scene) -> None:
    async with live(scene, "chat") as runtime:
        async with bench_of(scene, Engine(port=runtime.ports["chat"])) as bench:
            edited(scene, "chat", runtime, suspend="true", **EDITS)
            await scene.settle()
            assert (await bench.said())[0] == 200
        assert runtime.engines[0].said == [{"model": "m", "messages": []}]


async def test_a_form_gets_the_name_of_the_model_that_the_old_engine_has(scene: Scene) -> None:
    async with live(scene, "ears") as runtime:
        scene.declare(MODEL, slot("ears", type="transcription", port=runtime.ports["ears"]))
        await scene.settle()
        edited(scene, "ears", runtime, type="transcription", suspend="true")
        await scene.settle()
        async with served(scene) as (client, _), client.post("/v1/audio/transcriptions", data=recording()) as answer:
            assert answer.status == 200
        assert b'name="model"\r\n\r\nm\r\n' in runtime.engines[0].bodies[0]


async def test_a_route_is_told_with_the_engine_that_a_request_goes_to(scene: Scene) -> None:
    async with live(scene, "chat") as runtime, behind(scene, runtime, port=free_port()) as bench:
        async with bench.client.get("/api/route", params={"model": "chat"}) as answer:
            target: dict[str, Any] = (await answer.json())["target"]
        old = runtime.ports["chat"]
    assert (target["model"], target["url"]) == ("m", f"http://127.0.0.1:{old}/v1/chat/completions")


async def test_after_a_restart_of_hal0_the_old_engine_is_known_for_what_it_is(scene: Scene) -> None:
    async with live(scene, "chat") as runtime:
        async with bench_of(scene, Engine(port=runtime.ports["chat"])):
            edited(scene, "chat", runtime, suspend="true", **EDITS)
            await scene.settle()
        scene.reconciler = scene.make()
        await scene.settle()
        serves = scene.slot("chat").serves
    assert (serves.model, serves.defaults, scene.slot("chat").spec.model) == ("m", {}, "m2")


# Two engines of one slot. A snapshot is all that says which of them requests go to.


def flip(scene: Scene, port: int) -> None:
    """Publish that the slot's stand-in serves from now on, and have a pass told of."""
    publisher, chat = scene.reconciler.publisher, scene.slot("chat")
    beside = replace(chat, engine=stand_in_of("chat"), serves=replace(chat.serves, port=port))
    publisher.snapshot = replace(publisher.snapshot, slots={"chat": beside})
    scene.reconciler.feed.publish(PassNews(0))


@asynccontextmanager
async def two_engines(scene: Scene, gate: asyncio.Event, **settings: object) -> AsyncIterator[tuple[Bench, Engine]]:
    """Serve a slot with an engine that answers when a gate opens; return its stand-in, too."""
    async with engine_on(answer=gated(gate)) as own, engine_on() as beside, bench_of(scene, own, **settings) as bench:
        yield bench, beside


def at(scene: Scene) -> tuple[int, int, int]:
    """Return how many requests are at the slot's own engine, at its stand-in, and wait."""
    demands = scene.reconciler.demands
    return demands.serving("chat"), demands.serving("chat.next"), demands.waiting("chat")


@LANES
async def test_an_engine_drains_while_its_stand_in_takes_the_slots_requests(scene: Scene, lane: dict[str, str]) -> None:
    gate = asyncio.Event()
    async with two_engines(scene, gate, **lane) as (bench, beside):
        first = [asyncio.create_task(bench.ask()) for _ in range(3)]
        await until(lambda: at(scene) == (3, 0, 0))
        flip(scene, beside.port)
        demands = scene.reconciler.demands
        demands.close(["chat"])
        draining = asyncio.create_task(demands.drain("chat", 3600.0))
        assert [await bench.said() for _ in range(5)] == [(200, {"said": "hello"})] * 5
        beside.answer = gated(gate)
        late = asyncio.create_task(bench.ask())
        await until(lambda: at(scene) == (3, 1, 0))
        assert demands.all["chat"].serving == 4
        assert not draining.done()
        for each in first:
            each.cancel()
        gate.set()
        await asyncio.wait_for(draining, 5)
        await (await late).read()
        await until(lambda: at(scene) == (0, 0, 0))
    assert len(beside.asked) == 6
    assert len(bench.engine.asked) == 3


@LANES
async def test_a_request_that_leaves_the_old_engine_gives_nobody_a_place_at_the_new_one(
    scene: Scene, lane: dict[str, str]
) -> None:
    old, new = asyncio.Event(), asyncio.Event()
    async with two_engines(scene, old, concurrency=1, **lane) as (bench, beside):
        beside.answer = gated(new)
        first = asyncio.create_task(bench.ask({"n": 0}))
        await until(lambda: at(scene) == (1, 0, 0))
        flip(scene, beside.port)
        asking = []
        for number in range(1, 4):
            asking.append(asyncio.create_task(bench.ask({"n": number})))
            await until(lambda number=number: at(scene) == (1, 1, number - 1))  # type: ignore[misc]
        old.set()
        await (await first).read()
        await until(lambda: at(scene) == (0, 1, 2))
        new.set()
        for each in asking:
            await (await each).read()
    assert [body["n"] for body in beside.said] == [1, 2, 3]
    assert beside.most == 1


async def test_who_waits_for_a_place_gets_one_at_the_stand_in(scene: Scene) -> None:
    gate = asyncio.Event()
    async with two_engines(scene, gate, concurrency=1) as (bench, beside):
        first = asyncio.create_task(bench.ask())
        await until(lambda: at(scene) == (1, 0, 0))
        asking = [asyncio.create_task(bench.said()) for _ in range(3)]
        await until(lambda: at(scene) == (1, 0, 3))
        flip(scene, beside.port)
        assert await asyncio.gather(*asking) == [(200, {"said": "hello"})] * 3
        gate.set()
        await (await first).read()
    assert beside.most == 1


async def test_a_stand_in_that_does_not_listen_is_not_asked_again_before_it_was_looked_at(scene: Scene) -> None:
    gate = asyncio.Event()
    gate.set()
    async with two_engines(scene, gate) as (bench, _):
        flip(scene, free_port())
        asking = asyncio.create_task(bench.said())
        demands = scene.reconciler.demands
        await until(lambda: not demands.is_open("chat.next"))
        assert (demands.is_open("chat"), at(scene)) == (True, (0, 0, 1))
        asking.cancel()
        await until(lambda: at(scene) == (0, 0, 0))
