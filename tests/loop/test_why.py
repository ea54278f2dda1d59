from __future__ import annotations

import asyncio

import pytest
from scenes import MODEL, Scene, slot, slots

from hal0.core.observed import ProbeResult
from hal0.core.state import SlotState
from hal0.errors import NotFound, StepFailed
from hal0.host.ledger import Act
from hal0.loop import operations
from hal0.loop.operations import ApplyRequest
from hal0.loop.requests import RefusedRequest, Requests
from hal0.loop.why import why

READY = SlotState.READY


def links(scene: Scene, name: str = "chat") -> list[tuple[str, str, str, str]]:
    """Return what the acts on a slot are linked to, oldest first."""
    acts: list[Act] = scene.store.ledger.acts(name)[::-1]
    return [(act.rule, act.revision, act.request, act.by) for act in acts]


async def up(scene: Scene, *files: dict[str, str]) -> None:
    scene.host.images["ggml-org/llama.cpp:server"] = "id"
    scene.declare(*files)
    await scene.until(lambda: set(scene.states().values()) == {READY})


async def test_each_act_has_its_rule_and_the_revision_in_force(scene: Scene) -> None:
    await up(scene, slots("chat"))
    scene.manifests.revision = "def"
    scene.declare(slots("chat"), {"host.yaml": "kind: Host\nresync: 20s\n"})
    await scene.settle()
    scene.host.stop("chat")
    scene.look("chat")
    await scene.pass_(5)
    assert links(scene) == [("manifests", "abc", "", ""), ("drift", "def", "", "")]


async def test_what_a_person_applied_is_linked_to_them_and_what_heals_is_not(scene: Scene) -> None:
    scene.host.images["ggml-org/llama.cpp:server"] = "id"
    scene.declare(slots("chat"))
    async with asyncio.timeout(10):
        events = aiter(operations.apply(scene.reconciler, ApplyRequest(who="eve")))
        await anext(events)
        async with scene.driven(flowing=True):
            assert [event async for event in events]
    scene.host.stop("chat")
    scene.look("chat")
    await scene.pass_(5)
    assert links(scene) == [("manifests", "abc", "", "eve"), ("drift", "abc", "", "")]


async def test_a_wake_is_linked_to_the_first_request_that_wanted_it(scene: Scene) -> None:
    scene.declare(MODEL, slot("chat", run="on-demand", idle_timeout="10s"))
    scene.host.images["ggml-org/llama.cpp:server"] = "id"
    await scene.settle()
    for wake in ("first", "second"):
        for request in (f"{wake}-1", f"{wake}-2"):
            scene.reconciler.requests.woke("chat", request)
            scene.demand("chat")
        await scene.settle()
        assert scene.states() == {"chat": READY}
        for _ in range(2):
            scene.reconciler.demands.end("chat", served=False)
        await scene.pass_(60)
    rules = [(rule, request) for rule, _, request, _ in links(scene)[1:]]
    assert rules == [("demand", "first-1"), ("demand", ""), ("demand", "second-1"), ("demand", "")]


async def test_all_that_is_known_is_told(scene: Scene) -> None:
    await up(scene, slots("chat"))
    scene.clock.forward(7)
    scene.reconciler.requests.refused("chat", RefusedRequest(5.0, "r-1", "m", "slot.loading", 503))
    found = why(scene.reconciler, "chat")
    assert (found["version"], found["name"], found["state"]) == (1, "chat", "ready")
    assert found["since_seconds"] == 7
    assert found["verdict"] == {
        "up": True,
        "why": "run: always",
        "standing": "admitted",
        "ground": None,
        "for": "",
    }
    assert (found["change"], found["backoff"]) == (None, None)
    assert [act["rule"] for act in found["acts"]] == ["manifests"]
    assert found["refusals"] == [{"at": 5.0, "request": "r-1", "model": "m", "code": "slot.loading", "status": 503}]


async def test_a_slot_that_does_not_come_up_says_what_is_tried_and_when_again(scene: Scene) -> None:
    scene.runtime.faults["start chat"] = StepFailed("no such device")
    scene.declare(slots("chat"))
    await scene.pass_(1)
    found = why(scene.reconciler, "chat")
    assert found["change"]["action"] == "wait"
    assert (found["backoff"]["starts"], found["backoff"]["error"]) == (1, "no such device")
    assert 8 <= found["backoff"]["next_in_seconds"] <= 12


async def test_a_slot_that_loads_has_a_try_behind_it(scene: Scene) -> None:
    scene.prober.answers["chat"] = ProbeResult.LOADING
    scene.declare(slots("chat"))
    await scene.pass_(1)
    assert why(scene.reconciler, "chat")["backoff"]["starts"] == 1


async def test_a_slot_that_no_manifest_declares_and_one_that_is_not_there(scene: Scene) -> None:
    await up(scene, slots("a", "b"))
    scene.declare(slots("a"), {"bad.yaml": "kind: Slot\n"})
    await scene.settle()
    found = why(scene.reconciler, "b")
    assert found["verdict"]["up"] is True  # its last good spec stays in force
    with pytest.raises(NotFound, match="no slot 'c'"):
        why(scene.reconciler, "c")


def test_a_flood_of_refusals_keeps_the_last_ones() -> None:
    requests = Requests()
    for number in range(1000):
        requests.refused("chat", RefusedRequest(0.0, str(number), "m", "slot.busy", 429))
    assert [refusal.request for refusal in requests.refusals("chat")] == [str(999 - ago) for ago in range(20)]
    assert requests.refusals("other") == []
