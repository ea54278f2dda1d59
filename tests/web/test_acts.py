"""What a person asks of a slot, over the unix socket, and what clients of /v1 see of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import ClientSession
from plane import Bench, Engine, awake, bench_of, engine_on, scraped, served_on_tcp, until
from scenes import MODEL, Scene, slot

from hal0.core.observed import ProbeResult
from hal0.core.state import SlotState

BIG = {"big.yaml": "kind: Model\nname: big\npath: big.gguf\n"}


@pytest.fixture
async def engine() -> AsyncIterator[Engine]:
    async with engine_on() as made:
        yield made


@pytest.fixture
async def never(scene: Scene, engine: Engine) -> AsyncIterator[Bench]:
    """A slot that does not run, on a host whose loop does."""
    async with bench_of(scene, engine, run="never") as bench, awake(scene):
        await until(lambda: scene.states() == {"chat": SlotState.OFFLINE})
        yield bench


async def asked(bench: Bench, verb: str, body: object = None, *, name: str = "chat") -> tuple[int, list[Any]]:
    """Ask something of a slot; return the status, and the events or the error."""
    async with asyncio.timeout(10), bench.client.post(f"/api/slots/{name}/{verb}", json=body or {}) as answer:
        return answer.status, [json.loads(line) async for line in answer.content]


async def test_a_load_streams_what_happens_until_the_slot_is_healthy(never: Bench) -> None:
    status, events = await asked(never, "load", {"who": "eve", "for": "2h"})
    assert status == 200
    assert (events[0]["event"], events[-1]["event"], events[-1]["converged"]) == ("plan", "recap", True)
    (told,) = events[0]["plan"]["overrides"]
    assert (told["slot"], told["aspect"], told["declared"], told["value"]) == ("chat", "run", "never", "up")
    assert (told["who"], told["until"] - told["at"]) == ("eve", 7200)
    assert (await never.said({"model": "chat"}))[0] == 200
    assert (await scraped(never.client))["hal0_overrides"] == {("run", "chat"): 1}


async def test_requests_wait_for_a_slot_that_is_loaded_by_hand(never: Bench) -> None:
    status, said = await never.said({"model": "chat"})
    assert (status, said["error"]["code"]) == (503, "model.not_loaded")
    assert said["error"]["message"] == "slot chat is not up, and is not to be: run: never"
    never.scene.prober.answers["chat"] = ProbeResult.LOADING
    assert (await asked(never, "load", {"wait": False}))[1][-1]["event"] == "plan"
    asking = asyncio.create_task(never.said({"model": "chat"}))
    await until(lambda: never.scene.reconciler.demands.waiting("chat"))
    del never.scene.prober.answers["chat"]
    never.scene.look("chat")
    assert (await asking)[0] == 200


async def test_clients_are_told_who_unloaded_a_slot_and_until_when(scene: Scene, engine: Engine) -> None:
    async with bench_of(scene, engine, run="on-demand") as bench, awake(scene):
        assert (await bench.said({"model": "chat"}))[0] == 200
        await asked(bench, "unload", {"who": "eve", "for": 600})
        status, said = await bench.said({"model": "chat"})
    assert (status, said["error"]["code"]) == (503, "model.not_loaded")
    assert said["error"]["message"].startswith(
        "slot chat is not up, and is not to be: unloaded by eve until 2023-11-14 "
    )


async def test_restart_reset_and_retry_are_taken(never: Bench) -> None:
    await asked(never, "load")
    assert (await asked(never, "restart"))[1][-1]["slots"]["chat"]["changed"] == 3
    assert (await asked(never, "retry"))[1][-1]["slots"]["chat"]["changed"] == 0
    assert (await asked(never, "reset"))[1][-1]["slots"]["chat"]["changed"] == 1
    assert never.scene.states() == {"chat": SlotState.OFFLINE}


async def test_a_swap_tells_before_its_recap_what_became_of_it(never: Bench) -> None:
    (never.scene.folder / "models" / "big.gguf").touch()
    never.scene.declare(MODEL, BIG, slot("chat", run="never"))
    status, events = await asked(never, "swap", {"who": "eve", "model": "big", "persist": False, "for": "2h"})
    assert status == 200
    assert [event["event"] for event in events[-2:]] == ["swap", "recap"]
    assert (events[-2]["swapped"], events[-2]["model"], events[-1]["converged"]) == (True, "big", True)
    (row,) = never.scene.store.overrides.rows
    assert (row.value, row.who) == ("big", "eve")


@pytest.mark.parametrize(
    ("verb", "body", "status", "said"),
    [
        ("load", {"model": "bgi"}, 404, "there is no Model 'bgi' (did you mean 'big'?)"),
        ("load", {"model": "big"}, 400, "ModelMissing: there is no "),
        ("load", {"for": "soon"}, 400, "for: Value error, is not a duration"),
        ("load", {"for": 0}, 400, "can't last for 0 s"),
        ("load", {"who": "eve\nroot"}, 400, "who: "),
        ("load", {"timeout": -1}, 400, "timeout: "),
        ("unload", {"model": "m"}, 400, "model: Extra inputs"),
        ("restart", {"for": "2h"}, 400, "for: Extra inputs"),
        ("restart", {}, 409, "slot chat does not run (hal0 slot load chat)"),
        ("swap", {}, 400, "model: Field required"),
        ("swap", {"model": "bgi"}, 404, "there is no Model 'bgi' (did you mean 'big'?)"),
        ("swap", {"model": "m", "for": "2h"}, 400, "a swap for a while is not written to the manifest"),
        ("swap", {"model": "m", "persist": "no"}, 400, "persist: "),
        ("evict", {}, 404, "Not Found"),
    ],
)
async def test_a_refusal_has_a_status_of_its_own_and_changes_nothing(
    never: Bench, verb: str, body: dict[str, object], status: int, said: str
) -> None:
    never.scene.declare(MODEL, BIG, slot("chat", run="never"))
    found, (answer,) = await asked(never, verb, body)
    assert (found, said in answer["error"]["message"]) == (status, True), answer
    assert never.scene.store.overrides.rows == ()
    assert never.scene.host.starts == {}


async def test_a_slot_that_is_not_there_is_answered_with_the_closest_one(never: Bench) -> None:
    status, (answer,) = await asked(never, "load", name="caht")
    assert (status, "did you mean 'chat'?" in answer["error"]["message"]) == (404, True)


async def test_nothing_is_asked_of_a_slot_over_tcp(scene: Scene) -> None:
    scene.declare(MODEL, slot("chat", run="never"))
    async with served_on_tcp(scene) as address, ClientSession(address) as client:
        for verb in ("load", "unload", "restart", "swap", "reset", "retry"):
            async with client.post(f"/api/slots/chat/{verb}", json={}) as answer:
                assert (answer.status, (await answer.json())["error"]["code"]) == (403, "auth.local_only")
    assert scene.store.overrides.rows == ()
