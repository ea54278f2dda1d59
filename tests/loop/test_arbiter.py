"""Slots that share a pool of memory, over a clock that is told."""

from __future__ import annotations

import pytest
from scenes import MODEL, Scene, slot

from hal0.core.conditions import ConditionType
from hal0.core.observed import Activity, ProbeResult
from hal0.core.schedule import Ground, Standing
from hal0.core.state import SlotState
from hal0.core.steps import Action
from hal0.loop.operations import ApplyRequest, Overcommitted, apply

READY, OFFLINE, ERROR = SlotState.READY, SlotState.OFFLINE, SlotState.ERROR
POOL = {"host.yaml": "kind: Host\npools: {ram: 10Gi}\n"}


def lazy(name: str, claim: str = "6Gi", **keys: object) -> dict[str, str]:
    return slot(name, run="on-demand", claim=claim, idle_timeout="15m", **keys)


async def serve(scene: Scene, name: str) -> None:
    """Have a request come, wait for its slot, and go to the engine."""
    scene.demand(name)
    await scene.until(lambda: scene.slot(name).state.is_dispatchable and scene.reconciler.demands.is_open(name))
    scene.reconciler.demands.serve(name)
    await scene.pass_(1)


def reason(scene: Scene, name: str, kind: ConditionType = ConditionType.READY) -> str:
    return scene.slot(name).condition(kind).reason


def ups(scene: Scene) -> set[str]:
    return {name for name, activity in scene.host.activity.items() if activity.is_up}


async def test_an_idle_slot_makes_room_for_one_that_is_asked_for(scene: Scene) -> None:
    scene.declare(MODEL, POOL, lazy("a"), lazy("b"))
    await serve(scene, "a")
    scene.reconciler.demands.end("a", served=True)
    await scene.pass_(1)
    scene.demand("b")
    await scene.until(lambda: scene.slot("b").state is READY)
    assert ups(scene) == {"b"}
    assert scene.reconciler.counts.evictions == {("a", Ground.MEMORY): 1}
    assert "makes room for b: memory" in scene.store.ledger.acts("a")[0].why
    await scene.pass_(5)
    assert scene.host.starts == {"a": 1, "b": 1}  # nobody asks for it, so it does not come back


async def test_the_least_recently_used_goes_and_no_more_than_needed(scene: Scene) -> None:
    scene.declare(MODEL, POOL, lazy("a", "3Gi"), lazy("b", "3Gi"), lazy("c", "3Gi"), lazy("d", "3Gi"))
    for name in "abc":
        await serve(scene, name)
        scene.reconciler.demands.end(name, served=True)
    await serve(scene, "a")
    scene.reconciler.demands.end("a", served=True)
    await serve(scene, "d")
    assert ups(scene) == {"a", "c", "d"}


async def test_a_slot_in_use_is_drained_after_its_turn_and_no_request_breaks(scene: Scene) -> None:
    scene.declare(MODEL, POOL, lazy("a"), lazy("b"))
    await serve(scene, "a")
    scene.demand("b")
    await scene.pass_(5)
    assert scene.slot("b").verdict.standing is Standing.WAITS
    assert reason(scene, "b") == "WaitingForRoom"
    assert scene.reconciler.demands.is_open("a")
    await scene.pass_(600)
    assert scene.slot("a").verdict.standing is Standing.DRAINS
    assert not scene.reconciler.demands.is_open("a")
    assert ups(scene) == {"a"}  # no timeout ends its request
    scene.demand("a")  # one that comes now waits
    scene.reconciler.demands.end("a", served=True)
    await scene.pass_(0.3)
    assert "a" not in ups(scene)
    await scene.until(lambda: scene.slot("b").state is READY)
    assert ups(scene) == {"b"}


async def test_a_door_opens_again_when_nobody_needs_the_room_any_more(scene: Scene) -> None:
    scene.declare(MODEL, POOL, lazy("a"), lazy("b"))
    await serve(scene, "a")
    scene.demand("b")
    await scene.pass_(60)
    assert not scene.reconciler.demands.is_open("a")
    scene.reconciler.demands.end("b", served=False)
    await scene.pass_(3)
    assert scene.reconciler.demands.is_open("a")
    assert scene.slot("a").state is SlotState.SERVING
    assert scene.host.starts == {"a": 1}


async def test_two_busy_slots_take_turns(scene: Scene) -> None:
    scene.declare(MODEL, POOL, lazy("a"), lazy("b"))
    served = {"a": 0, "b": 0}
    for name in "ab":
        scene.demand(name)
    for _ in range(240):
        for name in "ab":
            found, demands = scene.slot(name) if name in scene.states() else None, scene.reconciler.demands
            if found and found.state.is_dispatchable and demands.is_open(name):
                demands.serve(name)
                demands.end(name, served=True)
                demands.begin(name, is_up=True)
                served[name] += 1
        await scene.pass_(1)
    assert min(served.values()) > 60
    assert 4 <= sum(scene.host.starts.values()) <= 26


async def test_a_higher_priority_takes_the_place_of_one_that_should_always_be_up(scene: Scene) -> None:
    scene.declare(MODEL, POOL, slot("low", claim="6Gi"), lazy("high", priority=10))
    await scene.until(lambda: scene.states()["low"] is READY)
    await serve(scene, "high")
    assert ups(scene) == {"high"}
    assert reason(scene, "low", ConditionType.RECONCILING) == "WaitingForRoom"
    assert "pool ram has 10.0 GiB, of which high 6.0 GiB (stated) are taken" in scene.slot("low").verdict.why
    scene.reconciler.demands.end("high", served=True)
    await scene.pass_(16 * 60)
    assert ups(scene) == {"low"}


@pytest.mark.parametrize("keys", [{"pinned": "true"}, {"priority": 1}, {}])
async def test_one_that_will_not_go_is_why_another_is_refused(scene: Scene, keys: dict[str, object]) -> None:
    scene.declare(MODEL, POOL, slot("kept", claim="6Gi", **keys), lazy("asked"))
    await scene.until(lambda: scene.states()["kept"] is READY)
    scene.demand("asked")
    await scene.pass_(1)
    assert scene.slot("asked").verdict.standing is Standing.REFUSED
    assert reason(scene, "asked", ConditionType.STALLED) == "Refused"
    assert "asked claims 6.0 GiB (stated): 2.0 GiB too much" in scene.slot("asked").message
    assert ups(scene) == {"kept"}


async def test_images_and_an_llm_take_turns_on_one_gpu_whatever_memory_there_is(scene: Scene) -> None:
    gpu = {"device": "gpu-vulkan", "profile": "llama-server-cpu"}
    scene.declare(MODEL, lazy("llm", **gpu), lazy("pictures", type="image", **gpu))
    await serve(scene, "llm")
    scene.demand("pictures")
    await scene.pass_(3)
    assert scene.slot("pictures").verdict.ground is Ground.IMAGE
    scene.reconciler.demands.end("llm", served=True)
    await scene.until(lambda: scene.slot("pictures").state is READY)
    assert ups(scene) == {"pictures"}
    assert scene.reconciler.counts.evictions == {("llm", Ground.IMAGE): 1}


async def test_the_gpu_is_shared_with_images_where_the_host_says_so(scene: Scene) -> None:
    gpu = {"device": "gpu-vulkan", "profile": "llama-server-cpu"}
    shared = {"host.yaml": "kind: Host\nshare_gpu_with_images: true\n"}
    scene.declare(MODEL, shared, slot("llm", **gpu), slot("pictures", type="image", **gpu))
    await scene.until(lambda: set(scene.states().values()) == {READY})


async def test_one_slot_of_a_pool_loads_at_a_time_and_a_late_one_holds_up_nobody(scene: Scene) -> None:
    scene.prober.answers["a"] = ProbeResult.LOADING
    scene.declare(MODEL, POOL, slot("a", claim="1Gi"), slot("b", claim="1Gi"))
    await scene.pass_(60)
    assert ups(scene) == {"a"}
    assert scene.slot("b").verdict.why == "slot a loads first: one at a time in pool ram"
    await scene.pass_(600)
    assert scene.states() == {"a": ERROR, "b": READY}


async def test_one_that_crashes_again_and_again_holds_up_nobody(scene: Scene) -> None:
    scene.host.doomed.add("a")
    scene.declare(MODEL, POOL, slot("a", claim="6Gi"), slot("b", claim="3Gi"))
    await scene.until(lambda: scene.states().get("b") is READY)
    assert scene.host.activity["a"] is Activity.FAILED


async def test_a_larger_context_waits_for_room_and_the_old_engine_runs_on(scene: Scene) -> None:
    scene.declare(MODEL, POOL, slot("a", claim="4Gi", context_size=512), slot("b", claim="4Gi"))
    await scene.until(lambda: set(scene.states().values()) == {READY})
    scene.declare(MODEL, POOL, slot("a", claim="7Gi", context_size=4096), slot("b", claim="4Gi"))
    await scene.pass_(5)
    assert ups(scene) == {"a", "b"}
    assert scene.host.starts["a"] == 1
    assert scene.slot("a").verdict.standing is Standing.REFUSED
    assert scene.slot("a").is_ready


async def test_slots_that_should_always_be_up_and_do_not_fit_are_refused_before_anything_changes(scene: Scene) -> None:
    scene.declare(MODEL, POOL, *(slot(name, claim="4Gi") for name in "abc"))
    change = (await scene.plan()).change("c")
    assert change
    assert change.action is Action.REFUSE
    with pytest.raises(Overcommitted, match=r"slot c: pool ram has 10.0 GiB, of which a 4.0 GiB .* 2.0 GiB too much"):
        await anext(apply(scene.reconciler, ApplyRequest()))
    assert not scene.host.files
    assert not scene.host.starts


async def test_an_apply_of_others_is_not_refused_for_a_slot_that_does_not_fit(scene: Scene) -> None:
    scene.declare(MODEL, POOL, *(slot(name, claim="4Gi") for name in "abc"))
    assert (await anext(apply(scene.reconciler, ApplyRequest(limit=frozenset("a")))))["event"] == "plan"


async def test_what_cant_be_seen_keeps_its_room_and_is_not_stopped(scene: Scene) -> None:
    scene.declare(MODEL, POOL, lazy("a"), lazy("b"))
    await serve(scene, "a")
    scene.reconciler.demands.end("a", served=True)
    scene.runtime.blind = "the bus is gone"
    scene.demand("b")
    await scene.pass_(60)
    assert ups(scene) == {"a"}
    assert scene.host.starts == {"a": 1}


async def test_a_slot_without_a_claim_takes_the_size_of_its_models_file(scene: Scene) -> None:
    (scene.folder / "models" / "m.gguf").write_bytes(b"x" * 4096)
    scene.declare(MODEL, {"host.yaml": "kind: Host\npools: {ram: 6000}\n"}, slot("a"), slot("b"))
    await scene.until(lambda: scene.states().get("a") is READY)
    assert scene.slot("b").verdict.standing is Standing.REFUSED
    assert "b claims 4.0 KiB (file)" in scene.slot("b").verdict.why
    assert scene.reconciler.snapshot.pools["ram"].claimed == 4096


async def test_a_new_hal0_finds_the_same_places(scene: Scene) -> None:
    scene.declare(MODEL, POOL, slot("a", claim="6Gi"), slot("b", claim="6Gi"))
    await scene.until(lambda: scene.states().get("a") is READY)
    scene.restart()
    await scene.pass_(60)
    assert ups(scene) == {"a"}
    assert scene.host.starts == {"a": 1}
