from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest
from scenes import MODEL, Scene, slot

from hal0.core.backoff import STALLED_AFTER
from hal0.core.conditions import ConditionType
from hal0.core.observed import ProbeResult
from hal0.core.state import SlotState
from hal0.errors import Conflict, Hal0Error, HostUnreachable, NotFound, UsageError
from hal0.loop import operations
from hal0.loop.acts import LONGEST, ActRequest, Verb, act

BIG = {"big.yaml": "kind: Model\nname: big\npath: big.gguf\ncontext_size: 99\naliases: [huge]\n"}
LOST = {"lost.yaml": "kind: Model\nname: lost\npath: lost.gguf\n"}
READY, OFFLINE, IDLE = SlotState.READY, SlotState.OFFLINE, SlotState.IDLE


async def asked(
    scene: Scene, verb: str, name: str = "chat", *, flowing: bool = False, **more: Any
) -> list[dict[str, Any]]:
    """Ask something of a slot while the loop runs, and return every event."""
    async with asyncio.timeout(10):
        events = aiter(act(scene.reconciler, ActRequest(name, Verb(verb), "eve", **more)))
        told = [await anext(events)]
        async with scene.driven(flowing=flowing):
            return told + [event async for event in events]


async def declared(scene: Scene, **settings: object) -> None:
    """Declare one slot and the models it may have, and let it settle."""
    (scene.folder / "models" / "big.gguf").touch()
    scene.host.images["ggml-org/llama.cpp:server"] = "id"
    scene.declare(MODEL, BIG, LOST, slot("chat", **settings))
    await scene.until(lambda: scene.slot("chat").is_settled)


def synced(scene: Scene) -> tuple[bool | None, str, str]:
    found = scene.slot("chat").condition(ConditionType.SYNCED)
    return found.status, found.reason, found.message


def rows(scene: Scene) -> list[tuple[str, str]]:
    return [(own.aspect.value, own.value) for own in scene.store.overrides.rows]


# Load and unload.


@pytest.mark.parametrize("run", ["never", "on-demand"])
async def test_a_load_waits_until_the_slot_is_healthy_and_keeps_it_up(scene: Scene, run: str) -> None:
    await declared(scene, run=run, idle_timeout="60s")
    events = await asked(scene, "load", flowing=True)
    assert [event["state"] for event in events if event["event"] == "state"] == ["starting", "warming", "ready"]
    assert events[-1]["converged"] is True
    assert events[0]["plan"]["overrides"][0]["text"] == f"run: {run} -> up (by eve)"
    await scene.pass_(100_000)
    assert scene.states() == {"chat": IDLE}
    assert synced(scene) == (True, "Overridden", f"run: {run} -> up (by eve)")
    assert (await scene.plan()).changes == ()


async def test_an_unload_stops_the_slot_and_keeps_it_down_whoever_asks_for_it(scene: Scene) -> None:
    await declared(scene, run="on-demand")
    await asked(scene, "load", flowing=True)
    events = await asked(scene, "unload")
    assert events[-1]["converged"] is True
    scene.demand("chat")
    await scene.pass_(600)
    assert scene.states() == {"chat": OFFLINE}
    ready = scene.slot("chat").condition(ConditionType.READY)
    assert (ready.reason, ready.message) == ("NotWanted", "unloaded by eve")
    assert not scene.slot("chat").may_answer


async def test_an_unload_lets_requests_at_the_engine_end(scene: Scene) -> None:
    await declared(scene)
    scene.demand("chat")
    scene.reconciler.demands.serve("chat")
    async with asyncio.timeout(10):
        events = aiter(act(scene.reconciler, ActRequest("chat", Verb.UNLOAD, "eve")))
        assert (await anext(events))["plan"]["changes"][0]["steps"] == ["drain", "stop"]
        assert scene.host.instances["chat"].running
        scene.reconciler.demands.end("chat", served=True)
        async with scene.driven():
            assert [event async for event in events][-1]["converged"] is True
    assert "chat" not in scene.host.instances


async def test_what_the_manifest_says_anyhow_is_not_kept_and_takes_back_its_opposite(scene: Scene) -> None:
    await declared(scene)
    await asked(scene, "load")
    assert rows(scene) == []
    await asked(scene, "unload")
    assert rows(scene) == [("run", "down")]
    await asked(scene, "load", flowing=True)
    assert rows(scene) == []
    assert (scene.states(), synced(scene)) == ({"chat": READY}, (True, "InSync", ""))


async def test_an_override_ends_at_its_time_and_not_before(scene: Scene) -> None:
    await declared(scene)
    await asked(scene, "unload", lasting=7207.0)  # not when everything is looked at anyhow
    await scene.pass_(7206)
    assert scene.states() == {"chat": OFFLINE}
    await scene.pass_(2)
    assert (rows(scene), scene.host.starts["chat"]) == ([], 2)
    await scene.until(lambda: scene.states() == {"chat": READY}, within=5)


async def test_an_override_outlives_hal0_and_ends_at_its_time_all_the_same(scene: Scene) -> None:
    await declared(scene, run="never")
    await asked(scene, "load", lasting=7200.0, flowing=True)
    scene.restart()
    await scene.pass_(3600)
    assert (scene.states(), scene.host.starts) == ({"chat": IDLE}, {"chat": 1})
    scene.restart()
    scene.clock.forward(7200)
    await scene.settle()
    assert (scene.states(), rows(scene)) == ({"chat": OFFLINE}, [])


async def test_a_load_that_fails_ends_and_says_so(scene: Scene) -> None:
    await declared(scene, run="never")
    scene.host.doomed.add("chat")
    events = await asked(scene, "load", flowing=True)
    assert events[-1]["converged"] is False
    assert events[-1]["slots"]["chat"]["failed"] == 1


async def test_a_slot_that_failed_is_unloaded_once_it_is_down(scene: Scene) -> None:
    await declared(scene)
    scene.host.doomed.add("chat")
    scene.host.die("chat")
    scene.look("chat")
    await scene.pass_(5)
    events = await asked(scene, "unload")
    assert (events[-1]["converged"], events[-1]["slots"]["chat"]["failed"]) == (True, 0)
    starts = scene.host.starts["chat"]
    await scene.pass_(3600)
    assert scene.host.starts["chat"] == starts


async def test_a_load_that_is_not_waited_for_ends_with_the_plan_and_goes_on(scene: Scene) -> None:
    await declared(scene, run="never")
    events = await asked(scene, "load", wait=False)
    assert [event["event"] for event in events] == ["plan"]
    await scene.until(lambda: scene.states() == {"chat": READY})


async def test_a_load_that_takes_too_long_is_waiting_and_stays_asked_for(scene: Scene) -> None:
    await declared(scene, run="never")
    scene.prober.answers["chat"] = ProbeResult.LOADING
    events = await asked(scene, "load", timeout=30.0, flowing=True)
    assert events[-1]["slots"]["chat"]["waiting"] == 1
    assert rows(scene) == [("run", "up")]


async def test_a_load_touches_no_other_slot(scene: Scene) -> None:
    await declared(scene, run="never")
    scene.declare(MODEL, slot("chat", run="never"), slot("other"))
    events = [event async for event in act(scene.reconciler, ActRequest("chat", Verb.LOAD, "eve", wait=False))]
    await scene.reconciler.batches.settle()
    assert [change["slot"] for change in events[0]["plan"]["changes"]] == ["chat"]
    assert "other" not in scene.host.files


async def test_a_slot_that_nobody_uses_is_idle_from_the_moment_on_and_runs_on(scene: Scene) -> None:
    await declared(scene, idle_timeout="47s")
    await scene.pass_(46)
    assert scene.states() == {"chat": READY}
    await scene.pass_(2)
    assert scene.states() == {"chat": IDLE}
    await scene.pass_(600)
    assert (scene.states(), scene.host.starts) == ({"chat": IDLE}, {"chat": 1})


# Models.


async def test_a_load_of_another_model_replaces_the_slot_and_all_that_follows_from_it(scene: Scene) -> None:
    await declared(scene)
    generation = scene.reconciler.desired.generation
    await asked(scene, "load", model="huge", flowing=True)
    spec = scene.slot("chat").spec
    assert (spec.model, spec.context_size, spec.model_path.endswith("big.gguf")) == ("big", 99, True)
    assert "big.gguf" in scene.host.files["chat"]
    assert synced(scene) == (True, "Overridden", "model: m -> big (by eve)")
    assert scene.reconciler.desired.generation == generation
    await asked(scene, "reset", flowing=True)
    assert (scene.slot("chat").spec.model, synced(scene)) == ("m", (True, "InSync", ""))


async def test_a_model_override_ends_at_its_time_whatever_else_is_looked_at_then(scene: Scene) -> None:
    await declared(scene)
    await asked(scene, "load", model="big", lasting=50.0, flowing=True)
    scene.clock.forward(51)
    scene.reconciler.queue.take(scene.clock.now())
    scene.look("chat")
    await scene.settle()
    assert scene.slot("chat").spec.model == "m"
    assert "m.gguf" in scene.host.files["chat"]


async def test_a_model_that_is_removed_while_it_overrides_is_named_and_breaks_nothing(scene: Scene) -> None:
    await declared(scene)
    await asked(scene, "load", model="big", flowing=True)
    scene.declare(MODEL, slot("chat"))
    await scene.until(lambda: scene.slot("chat").spec.model == "m" and scene.states() == {"chat": READY})
    assert scene.reconciler.desired.problems == ()
    assert synced(scene)[2] == "model: m -> big (by eve); without effect: no Model 'big' is declared any more"


@pytest.mark.parametrize(
    ("more", "error", "said"),
    [
        ({"name": "caht"}, NotFound, "no slot 'caht'.*chat"),
        ({"model": "bgi"}, NotFound, "no Model 'bgi'.*big"),
        ({"model": "lost"}, UsageError, "ModelMissing: there is no .*lost.gguf.*put the file there"),
        ({"lasting": 0.0}, UsageError, "can't last for 0 s"),
        ({"lasting": LONGEST + 1}, UsageError, "366 days"),
    ],
)
async def test_what_cant_be_meant_is_refused_before_anything_is_changed(
    scene: Scene, more: dict[str, Any], error: type[Hal0Error], said: str
) -> None:
    await declared(scene, run="never")
    with pytest.raises(error) as caught:
        await asked(scene, "load", **more)
    assert re.search(said, f"{caught.value} {caught.value.hint}")
    assert (rows(scene), scene.runtime.calls) == ([], ["write chat", "reload"])


async def test_no_model_is_put_over_a_manifest_with_errors(scene: Scene) -> None:
    await declared(scene)
    scene.declare(MODEL, BIG, slot("chat", colour="red"))
    with pytest.raises(Conflict, match="has errors"):
        await asked(scene, "load", model="big")
    assert rows(scene) == []


# Suspended slots.


async def test_a_suspended_slot_is_left_alone_and_so_are_its_overrides(scene: Scene) -> None:
    await declared(scene)
    await asked(scene, "unload")
    scene.declare(MODEL, slot("chat", suspend="true"))
    await scene.settle()
    scene.host.start("chat")
    await scene.pass_(600)
    assert scene.host.instances["chat"].running
    for verb in ("load", "unload", "restart", "retry"):
        with pytest.raises(Conflict, match="suspended"):
            await asked(scene, verb)
    await asked(scene, "reset")
    assert rows(scene) == []


# Restart and retry.


async def test_a_restart_happens_once(scene: Scene) -> None:
    await declared(scene)
    events = await asked(scene, "restart", flowing=True)
    assert events[0]["plan"]["changes"][0]["reasons"][0]["after"] == "asked for by eve"
    assert (events[-1]["converged"], scene.host.starts) == (True, {"chat": 2})
    assert {reason: count for (_, reason), count in scene.reconciler.counts.restarts.items() if count} == {"asked": 1}
    await scene.pass_(600)
    assert (rows(scene), scene.host.starts) == ([], {"chat": 2})


async def test_a_restart_goes_on_where_hal0_was_killed_in_between(scene: Scene) -> None:
    await declared(scene)
    scene.runtime.faults["start"] = OSError("killed")
    await asked(scene, "restart", timeout=5.0, flowing=True)
    scene.restart()
    await scene.until(lambda: scene.states() == {"chat": READY})
    await scene.pass_(600)
    assert (rows(scene), scene.host.starts) == ([], {"chat": 2})


async def test_only_what_runs_is_restarted(scene: Scene) -> None:
    await declared(scene, run="never")
    with pytest.raises(Conflict, match="does not run") as caught:
        await asked(scene, "restart")
    assert caught.value.hint == "hal0 slot load chat"
    scene.runtime.blind = "the bus is gone"
    with pytest.raises(HostUnreachable, match="can't be seen"):
        await asked(scene, "restart")


async def test_a_retry_tries_at_once_and_begins_the_waits_anew(scene: Scene) -> None:
    await declared(scene)
    scene.host.doomed.add("chat")
    scene.host.die("chat")
    scene.look("chat")
    await scene.until(lambda: scene.slot("chat").condition(ConditionType.STALLED).reason == "CrashLoop")
    starts = scene.host.starts["chat"]
    scene.host.doomed.clear()
    events = await asked(scene, "retry", flowing=True)
    assert (events[-1]["converged"], scene.host.starts["chat"]) == (True, starts + 1)
    assert starts > STALLED_AFTER


# What is said of it.


async def test_who_asked_for_what_is_kept_with_what_hal0_did(scene: Scene) -> None:
    await declared(scene)
    await asked(scene, "load", model="big", lasting=7200.0, flowing=True)
    found = operations.slot_detail(scene.reconciler, "chat")
    assert ("load", "asked for by eve, model big, for 2h") in [(act["action"], act["why"]) for act in found["acts"]]
    (told,) = found["overrides"]
    assert (told["aspect"], told["declared"], told["value"], told["who"]) == ("model", "m", "big", "eve")
    assert told["until"] - told["at"] == 7200


# Why.


def told(scene: Scene) -> list[tuple[str, str, str]]:
    """Return what happened to the slot, oldest first: act, rule and person."""
    return [(act.action, act.rule, act.by) for act in reversed(scene.store.ledger.acts("chat"))]


async def test_what_was_asked_by_hand_and_its_end_are_told_with_who_asked(scene: Scene) -> None:
    await declared(scene, run="never")
    before = len(told(scene))
    await asked(scene, "load", model="big", lasting=50.0, flowing=True)
    scene.clock.forward(51)
    await scene.until(lambda: scene.slot("chat").spec.model == "m" and scene.states() == {"chat": OFFLINE})
    acts = told(scene)[before:]
    assert [act for act, _, _ in acts] == ["load", "update", "lapse", "lapse", "update"]
    assert {(rule, by) for _, rule, by in acts} == {("hand", "eve")}
    assert [row.who for row in scene.store.ledger.applies()] == ["manifests"]


async def test_a_load_that_takes_an_unload_back_is_why_the_slot_starts(scene: Scene) -> None:
    await declared(scene)
    await asked(scene, "unload")
    before = len(told(scene))
    await asked(scene, "load", flowing=True)
    assert told(scene)[before:] == [("load", "hand", "eve"), ("restart", "hand", "eve")]
