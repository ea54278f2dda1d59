"""Requests while a slot's engine is replaced beside itself: none is lost, refused or held up by a load."""

from __future__ import annotations

import asyncio

import pytest
from plane import Bench, Engine, awake, bench_of, free_port, live, model, until
from scenes import MODEL, Scene, slot

from hal0.core.facts import Known
from hal0.core.observed import ProbeResult
from hal0.core.pools import RAM, Pool

NEXT, CLIENTS = "chat.next", 8
LANES = pytest.mark.parametrize("lane", [{}, {"abort": "drain"}], ids=["express", "task"])


@LANES
async def test_no_request_is_lost_or_refused_over_a_replacement_and_all_have_one_engines_model(
    scene: Scene, lane: dict[str, str]
) -> None:
    scene.hardware.table[RAM] = Known(Pool(RAM, 2**30, 0, stated=True))
    spare = free_port()
    host = {"host.yaml": f"kind: Host\nslot_ports: {spare}-{spare}\n"}
    async with live(scene, "chat") as runtime:
        runtime.ports[NEXT] = spare
        port = {"port": runtime.ports["chat"]}
        async with bench_of(scene, Engine(port=port["port"]), **lane) as bench, awake(scene):
            assert (await bench.said())[0] == 200
            ended = asyncio.Event()
            asking = [asyncio.create_task(asked_on(bench, ended)) for _ in range(CLIENTS)]
            changed = slot("chat", **port, **lane)["chat.yaml"].replace("model: m\n", "model: m2\n")
            scene.declare(MODEL, host, model("m2", scene.folder), {"chat.yaml": changed})
            scene.prober.answers[NEXT] = ProbeResult.LOADING
            await until(lambda: NEXT in runtime.running)
            scene.prober.answers.clear()
            await until(lambda: scene.host.starts.get("chat") == 2 and NEXT not in runtime.running)
            await until(lambda: scene.slot("chat").is_settled)
            ended.set()
            statuses = {status for told in await asyncio.gather(*asking) for status in told}
            await until(lambda: not scene.reconciler.demands.all["chat"].in_flight)
    old, beside, new = runtime.engines
    assert statuses == {200}
    assert {body["model"] for body in old.said} == {"m"}
    assert {body["model"] for body in (*beside.said, *new.said)} == {"m2"}
    assert beside.said


async def asked_on(bench: Bench, ended: asyncio.Event) -> list[int]:
    """Ask one thing after the other, and return each answer's status."""
    found = []
    while not ended.is_set():
        found.append((await bench.said())[0])
    return found
