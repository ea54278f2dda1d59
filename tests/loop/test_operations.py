from __future__ import annotations

import asyncio
from typing import Any

import pytest
from scenes import MODEL, Scene, slot, slots

from hal0.core.observed import ProbeResult
from hal0.core.state import SlotState
from hal0.errors import StepFailed, UsageError
from hal0.loop import operations
from hal0.loop.operations import ApplyRequest, InvalidManifests
from hal0.loop.reconcile import Leave


async def applied(scene: Scene, request: ApplyRequest | None = None, *, flowing: bool = False) -> list[dict[str, Any]]:
    """Apply while the loop runs, and return every event."""
    async with asyncio.timeout(10):
        events = aiter(operations.apply(scene.reconciler, request or ApplyRequest()))
        told = [await anext(events)]
        async with scene.driven(flowing=flowing):
            return told + [event async for event in events]


def row(events: list[dict[str, Any]], name: str) -> dict[str, Any]:
    found: dict[str, Any] = events[-1]["slots"][name]
    return found


async def test_an_apply_tells_the_plan_then_steps_and_states_and_at_last_a_recap(scene: Scene) -> None:
    scene.declare(slots("chat"))
    events = await applied(scene)
    kinds = [event["event"] for event in events]
    assert kinds[0] == "plan"
    assert kinds[-1] == "recap"
    assert kinds.count("plan") == kinds.count("recap") == 1
    done = [event["step"] for event in events if event["event"] == "step" and event["outcome"] == "ok"]
    assert done == ["write", "reload", "reset_failed", "start"]
    states = [event["state"] for event in events if event["event"] == "state"]
    assert states == ["starting", "warming", "ready"]


async def test_the_recap_counts_what_was_done(scene: Scene) -> None:
    scene.host.images["ggml-org/llama.cpp:server"] = "id"
    scene.declare(slots("chat", "embed"))
    events = await applied(scene)
    assert events[-1]["converged"] is True
    wanted = {"ok": 5, "changed": 4, "unreachable": 0, "failed": 0, "skipped": 0, "waiting": 0, "message": ""}
    assert row(events, "embed") == wanted


async def test_an_apply_with_nothing_to_do_says_so_at_once(scene: Scene) -> None:
    scene.declare(slots("chat"))
    await scene.until(lambda: scene.states() == {"chat": SlotState.READY})
    events = await applied(scene)
    assert [event["event"] for event in events] == ["plan", "recap"]
    assert (row(events, "chat")["ok"], row(events, "chat")["changed"]) == (1, 0)
    assert events[-1]["converged"] is True


async def test_a_removed_slot_is_in_the_recap(scene: Scene) -> None:
    scene.declare(slots("a", "b", "c"))
    await applied(scene)
    scene.declare(slots("a", "b"))
    events = await applied(scene)
    assert set(events[-1]["slots"]) == {"a", "b", "c"}
    assert (row(events, "c")["changed"], row(events, "c")["failed"]) == (5, 0)
    assert events[-1]["converged"] is True


async def test_a_limit_touches_and_reports_only_its_slots(scene: Scene) -> None:
    scene.declare(slots("chat", "embed"))
    request = ApplyRequest(limit=frozenset({"embed"}))
    async with asyncio.timeout(10):
        events = aiter(operations.apply(scene.reconciler, request))
        told = [await anext(events)]
        scene.reconciler.leave = request.leave  # an apply of its own has no daemon that does the rest
        async with scene.driven():
            told += [event async for event in events]
    assert set(told[-1]["slots"]) == {"embed"}
    assert scene.host.starts == {"embed": 1}


async def test_a_limit_that_names_no_slot_is_refused_before_anything_is_changed(scene: Scene) -> None:
    scene.declare(slots("chat", "embed"))
    with pytest.raises(UsageError, match="no slot 'chta'") as caught:
        await applied(scene, ApplyRequest(limit=frozenset({"embed", "chta"})))
    assert "chat" in caught.value.hint
    await scene.reconciler.batches.settle()
    assert scene.runtime.calls == []


async def test_invalid_manifests_are_refused_before_anything_is_changed(scene: Scene) -> None:
    scene.declare(slots("good"), {"bad.yaml": "kind: Slot\nname: bad\nmodel: m\ncolour: red\n"})
    with pytest.raises(InvalidManifests, match=r"/manifests/bad.yaml:4: colour: .*\n1 problem: nothing was changed"):
        await applied(scene)
    assert scene.runtime.calls == []
    assert scene.store.specs == {}


async def test_what_does_not_get_ready_in_time_is_waiting_and_not_converged(scene: Scene) -> None:
    scene.prober.answers["slow"] = ProbeResult.LOADING
    scene.declare(slots("slow", "quick"))
    begun = scene.clock.now()
    events = await applied(scene, ApplyRequest(timeout=30), flowing=True)
    assert events[-1]["converged"] is False
    assert row(events, "slow")["waiting"] == 1
    assert row(events, "slow")["message"] == "the engine is loading its model"
    assert row(events, "quick")["waiting"] == 0
    assert 30 <= scene.clock.now() - begun <= 32


async def test_an_apply_ends_when_all_that_is_left_has_failed(scene: Scene) -> None:
    scene.runtime.faults["start bad"] = StepFailed("no such device", hint="plug it in")
    scene.declare(slots("bad", "good"))
    events = await applied(scene)
    assert events[-1]["converged"] is False
    assert row(events, "bad")["failed"] == 1
    assert "no such device plug it in" in row(events, "bad")["message"]
    assert row(events, "good")["failed"] == 0


async def test_a_failed_reload_skips_the_starts_of_all_that_needed_it(scene: Scene) -> None:
    scene.runtime.faults["reload"] = StepFailed("bad unit")
    scene.declare(slots("a", "b"))
    events = await applied(scene)
    skipped = {(event["slot"], event["step"]) for event in events if event.get("outcome") == "skipped"}
    assert {("a", "start"), ("b", "start")} <= skipped
    assert row(events, "a")["failed"] == row(events, "b")["failed"] == 1


async def test_a_refused_slot_has_failed(scene: Scene) -> None:
    scene.declare({"model.yaml": "kind: Model\nname: m\npath: lost.gguf\n"}, slot("chat"))
    events = await applied(scene)
    assert row(events, "chat")["failed"] == 1
    assert row(events, "chat")["message"].startswith("ModelMissing: there is no ")
    assert events[-1]["converged"] is False


async def test_a_slot_that_cant_be_seen_is_unreachable(scene: Scene) -> None:
    scene.declare(slots("chat"))
    await applied(scene)
    scene.runtime.blind = "the bus is gone"
    events = await applied(scene, ApplyRequest(timeout=30), flowing=True)
    assert row(events, "chat")["unreachable"] == 1
    assert events[-1]["converged"] is False


async def test_a_slot_that_is_meant_to_be_down_is_converged(scene: Scene) -> None:
    scene.declare(MODEL, slot("chat", run="on-demand"), slot("off", run="never"), slot("kept", suspend="true"))
    events = await applied(scene)
    assert events[-1]["converged"] is True
    assert scene.host.starts == {}


async def test_prune_all_is_the_leave_to_remove_most_slots(scene: Scene) -> None:
    scene.declare(slots("a", "b", "c"))
    await applied(scene)
    scene.declare(slots("a"))
    refused = await applied(scene)
    assert row(refused, "b")["failed"] == 1
    events = await applied(scene, ApplyRequest(prune_all=True))
    assert events[-1]["converged"] is True
    assert set(scene.host.files) == {"a"}


# Looks.


async def test_a_preview_changes_nothing_and_refuses_invalid_manifests(scene: Scene) -> None:
    scene.declare(slots("chat"))
    found = await operations.preview(scene.reconciler)
    assert [change.slot for change in found.changes] == ["chat"]
    assert scene.runtime.calls == []
    scene.declare({"bad.yaml": "kind: Slot\nname: bad\nmodel: {\n"})
    with pytest.raises(InvalidManifests):
        await operations.preview(scene.reconciler)


async def test_a_preview_of_a_limit_that_names_no_slot_is_refused(scene: Scene) -> None:
    scene.declare(slots("chat"))
    with pytest.raises(UsageError, match="no slot 'nobody'"):
        await operations.preview(scene.reconciler, Leave(frozenset({"nobody"})))


async def test_the_overview_is_of_the_last_pass(scene: Scene) -> None:
    scene.declare(slots("chat"))
    await scene.settle()
    scene.clock.forward(12)
    found = operations.overview(scene.reconciler)
    assert found["observe_age_seconds"] == 12
    assert (found["version"], found["runtime"], found["root"], found["generation"]) == (1, "systemd", "/manifests", 1)
    assert [slot["name"] for slot in found["slots"]] == ["chat"]


async def test_a_slot_in_full_tells_its_transitions_and_what_was_done_newest_first(scene: Scene) -> None:
    scene.host.images["ggml-org/llama.cpp:server"] = "id"
    scene.declare(slots("chat"))
    await scene.until(lambda: scene.states() == {"chat": SlotState.READY})
    scene.host.stop("chat")
    scene.look("chat")
    await scene.settle()
    found = operations.slot_detail(scene.reconciler, "chat")
    assert found["transitions"][0]["after"] == "ready"
    assert [(act["action"], act["drift"]) for act in found["acts"]] == [("restart", True), ("create", False)]
    assert found["instance"]["running"] is True


async def test_a_slot_that_is_not_there_is_answered_with_the_closest_one(scene: Scene) -> None:
    scene.declare(slots("chat"))
    await scene.settle()
    with pytest.raises(UsageError, match="no slot 'caht'") as caught:
        operations.slot(scene.reconciler, "caht")
    assert "chat" in caught.value.hint
