from __future__ import annotations

import asyncio
import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import pytest
import scenes
from fakes import UNREACHABLE
from scenes import MODEL, Scene, calm, slot, slots

from hal0.core.conditions import ConditionType
from hal0.core.observed import ProbeResult, SlotObservation
from hal0.core.phase import Failing
from hal0.core.state import EDGES, SlotState
from hal0.core.steps import Action
from hal0.errors import StepFailed
from hal0.host.store import Store
from hal0.loop.news import News, StateNews, StepNews
from hal0.loop.reconcile import Leave

READY = SlotState.READY
ALLOWED = Leave(prune_all=True)
WRITES = ("write", "remove", "reload", "start", "stop", "pull")


def acts(scene: Scene) -> list[str]:
    """Return what was done to the host, without the resets that change nothing in this one."""
    return [call for call in scene.runtime.calls if call.startswith(WRITES)]


async def up(scene: Scene, *files: dict[str, str]) -> None:
    """Declare, wait until all is ready, and forget how it came about."""
    scene.declare(*files)
    await scene.until(lambda: set(scene.states().values()) == {READY})
    scene.runtime.calls.clear()


# From nothing, and from what is there already.


async def test_what_is_declared_becomes_ready_from_nothing(scene: Scene) -> None:
    scene.declare(slots("chat", "embed"))
    await scene.until(lambda: scene.states() == {"chat": READY, "embed": READY})
    assert acts(scene) == [
        "pull ggml-org/llama.cpp:server",
        "write chat",
        "write embed",
        "reload",
        "start chat",
        "start embed",
    ]
    assert set(scene.store.specs) == {"chat", "embed"}
    assert scene.slot("chat").generation == scene.reconciler.snapshot.generation == 1


async def test_a_second_pass_changes_nothing(scene: Scene) -> None:
    await up(scene, slots("chat", "embed"))
    await scene.pass_(3600)
    assert acts(scene) == []
    assert scene.host.starts == {"chat": 1, "embed": 1}


async def test_the_host_is_looked_at_every_resync_and_no_more_often(scene: Scene) -> None:
    await up(scene, slots("chat"))
    before = scene.passes
    await scene.pass_(300)
    assert scene.passes - before == 10


async def test_a_new_daemon_over_a_host_as_declared_changes_nothing(scene: Scene) -> None:
    await up(scene, slots("chat"))
    scene.restart()
    await scene.pass_(60)
    assert scene.states() == {"chat": READY}
    assert acts(scene) == []
    assert scene.reconciler.snapshot.generation == 1


async def test_a_changed_manifest_replaces_the_container_and_counts_a_generation(scene: Scene) -> None:
    await up(scene, slots("chat"))
    scene.declare(MODEL, slot("chat", context_size=2048))
    await scene.until(lambda: "--ctx-size" in scene.host.instances["chat"].command)
    assert acts(scene) == ["stop chat", "write chat", "reload", "start chat"]
    await scene.settle()
    assert scene.slot("chat").generation == scene.reconciler.snapshot.generation == 2


# Healing.


async def test_a_killed_container_is_healed_at_once(scene: Scene) -> None:
    await up(scene, slots("chat", "embed"))
    scene.host.die("chat")
    scene.look("chat")
    await scene.settle()
    assert scene.host.starts == {"chat": 2, "embed": 1}
    assert scene.states()["chat"] is READY


async def test_a_stop_by_others_is_healed_at_once(scene: Scene) -> None:
    await up(scene, slots("chat"))
    for count in (2, 3, 4):
        scene.host.stop("chat")
        scene.look("chat")
        await scene.settle()
        assert scene.host.starts["chat"] == count


async def test_a_missed_event_is_made_up_for_by_the_resync(scene: Scene) -> None:
    await up(scene, slots("chat"))
    scene.host.stop("chat")
    await scene.pass_(31)
    assert scene.host.starts["chat"] == 2


async def test_a_hand_edited_definition_is_written_back_without_a_restart(scene: Scene) -> None:
    await up(scene, slots("chat"))
    declared = scene.host.files["chat"]
    scene.host.write("chat", declared.replace("--read-only", "--privileged"))
    scene.look("chat")
    await scene.settle()
    assert scene.host.files["chat"] == declared
    assert acts(scene) == ["write chat", "reload"]


async def test_a_retagged_image_replaces_the_container(scene: Scene) -> None:
    await up(scene, slots("chat"))
    scene.host.images["ggml-org/llama.cpp:server"] = "another build"
    scene.look("chat")
    await scene.settle()
    assert scene.host.instances["chat"].image == "another build"


async def test_a_crash_loop_is_tried_again_ever_more_rarely(scene: Scene) -> None:
    scene.host.doomed.add("chat")
    scene.runtime.last_lines = ["loading", "out of memory"]
    scene.declare(slots("chat"))
    starts = []
    for _ in range(4):
        await scene.pass_(3600)
        starts.append(scene.host.starts["chat"])
    first, *later = [after - before for before, after in pairwise([0, *starts])]
    assert 12 <= first <= 20  # 2 s doubling up to 300 s, and a jitter of at most a fifth
    assert all(10 <= count <= 12 for count in later)
    stalled = scene.slot("chat").condition(ConditionType.STALLED)
    assert (stalled.status, stalled.reason) == (True, "CrashLoop")
    assert "loading | out of memory" in stalled.message


async def test_a_crash_loop_that_ends_is_forgotten(scene: Scene) -> None:
    scene.host.doomed.add("chat")
    scene.declare(slots("chat"))
    await scene.pass_(3600)
    scene.host.doomed.clear()
    await scene.until(lambda: scene.states() == {"chat": READY})
    assert scene.slot("chat").condition(ConditionType.STALLED).status is False
    await scene.pass_(331)
    assert scene.reconciler.attempts == {}


async def test_a_day_of_a_crash_loop_is_some_three_hundred_starts(scene: Scene) -> None:
    scene.host.doomed.add("chat")
    scene.declare(slots("chat"), {"host.yaml": "kind: Host\nresync: 1h\n"})
    await scene.pass_(24 * 3600)
    assert 240 <= scene.host.starts["chat"] <= 294
    assert scene.slot("chat").condition(ConditionType.STALLED).reason == "CrashLoop"


async def test_an_engine_that_ends_soon_after_it_was_ready_is_backed_off_and_stalled_too(scene: Scene) -> None:
    scene.declare(slots("chat"), {"host.yaml": "kind: Host\nresync: 1h\n"})
    end = scene.clock.now() + 24 * 3600
    while scene.clock.now() < end:
        await scene.until(lambda: scene.states() == {"chat": READY})
        await scene.pass_(3)
        scene.host.die("chat")
        scene.look("chat")
        await scene.settle()
    assert 240 <= scene.host.starts["chat"] <= 300
    stalled = scene.slot("chat").condition(ConditionType.STALLED)
    assert (stalled.status, stalled.reason) == (True, "CrashLoop")
    await scene.until(lambda: scene.states() == {"chat": READY})
    await scene.pass_(3600)
    scene.host.die("chat")
    scene.look("chat")
    before = scene.host.starts["chat"]
    await scene.settle()
    assert scene.host.starts["chat"] == before + 1


async def test_a_slot_that_got_ready_is_held_back_for_nothing_but_a_failure(scene: Scene) -> None:
    scene.declare(MODEL, slot("chat", run="on-demand", idle_timeout="5s"))
    await scene.settle()
    await wake(scene)
    scene.host.die("chat")
    scene.look("chat")
    await scene.until(lambda: scene.host.starts["chat"] == 2, within=0)
    await scene.pass_(6)
    assert scene.states() == {"chat": SlotState.OFFLINE}
    await wake(scene)
    assert scene.host.starts["chat"] == 3


async def wake(scene: Scene) -> None:
    scene.demand("chat")
    await scene.until(lambda: scene.states() == {"chat": READY}, within=1)
    scene.reconciler.demands.end("chat", served=False)


async def test_a_corrected_manifest_ends_the_wait_of_a_crash_loop(scene: Scene) -> None:
    scene.host.doomed.add("chat")
    scene.declare(slots("chat"))
    await scene.pass_(3600)
    before = scene.host.starts["chat"]
    scene.host.doomed.clear()
    scene.declare(MODEL, slot("chat", context_size=64))
    await scene.settle()
    assert scene.host.starts["chat"] == before + 1


async def test_a_slot_that_loads_is_looked_at_often_until_it_is_ready(scene: Scene) -> None:
    scene.prober.answers["chat"] = ProbeResult.LOADING
    scene.declare(slots("chat"))
    await scene.pass_(20)
    assert scene.states() == {"chat": SlotState.WARMING}
    scene.prober.answers.clear()
    await scene.pass_(0.5)
    assert scene.states() == {"chat": READY}


async def test_a_slot_that_never_gets_ready_is_an_error_after_its_deadline(scene: Scene) -> None:
    scene.prober.answers["chat"] = ProbeResult.LOADING
    profile = {"p.yaml": "kind: Profile\nname: slow\nimage: x/y:z\nstart_deadline: 60s\n"}
    scene.declare(MODEL, profile, slot("chat", profile="slow"))
    await scene.pass_(50)
    assert scene.states() == {"chat": SlotState.WARMING}
    await scene.pass_(30)
    assert scene.slot("chat").condition(ConditionType.STALLED).reason == "NotReady"
    assert scene.host.starts == {"chat": 1}


async def test_an_engine_that_was_restarted_between_two_looks_is_loading_not_an_error(scene: Scene) -> None:
    await up(scene, slots("chat"))
    scene.host.start("chat")
    scene.prober.answers["chat"] = ProbeResult.LOADING
    scene.look("chat")
    await scene.pass_(30)
    assert scene.states() == {"chat": SlotState.WARMING}


async def test_a_ready_slot_is_an_error_when_nothing_listens_for_ten_seconds(scene: Scene) -> None:
    await up(scene, slots("chat"))
    scene.completer.hold = asyncio.Event()
    scene.prober.answers["chat"] = ProbeResult.LOADING
    scene.look("chat")
    await scene.pass_(9.9)
    assert scene.states() == {"chat": READY}
    assert scene.slot("chat").condition(ConditionType.READY).reason == "ProbeFailing"
    await scene.pass_(0.1)
    assert scene.slot("chat").condition(ConditionType.STALLED).reason == "NotReady"
    assert acts(scene) == []


async def test_a_ready_slot_that_hangs_is_an_error_after_a_minute(scene: Scene) -> None:
    await up(scene, slots("chat"))
    scene.completer.hold = asyncio.Event()
    scene.prober.answers["chat"] = ProbeResult.LATE
    scene.look("chat")
    await scene.pass_(59.9)
    assert scene.states() == {"chat": READY}
    await scene.pass_(0.1)
    assert scene.states() == {"chat": SlotState.ERROR}


async def test_a_starved_engine_that_answers_now_and_then_is_never_an_error(scene: Scene) -> None:
    await up(scene, slots("chat"))
    before = scene.store.ledger.transitions("chat")
    for _ in range(10):
        scene.prober.answers["chat"] = ProbeResult.LATE
        scene.look("chat")
        await scene.pass_(50)
        scene.prober.answers.clear()
        await scene.pass_(2)
    assert scene.states() == {"chat": READY}
    assert scene.store.ledger.transitions("chat") == before


async def test_a_burst_of_looks_makes_no_error_of_a_failed_probe(scene: Scene) -> None:
    await up(scene, slots("chat"))
    scene.prober.answers["chat"] = ProbeResult.FAILING
    before = scene.passes
    for _ in range(20):
        scene.look("chat")
        await scene.settle()
        scene.clock.forward(0.05)
    assert scene.passes - before >= 20
    assert scene.states() == {"chat": READY}


async def test_a_failed_probe_counts_only_when_it_was_made_however_often_others_are_looked_at(scene: Scene) -> None:
    await up(scene, slots("busy", "other"))
    failed = scene.clock.now()
    scene.prober.answers["busy"] = ProbeResult.FAILING
    scene.look("busy")
    await scene.settle()
    for _ in range(5):
        scene.demand("busy")
        scene.reconciler.demands.end("busy", served=False)
        scene.look("other")
        scene.clock.forward(0.21)
        await scene.settle()
    assert scene.slot("busy").failing == Failing(failed, failed)
    assert scene.states()["busy"] is READY


async def test_drift_that_is_left_alone_by_policy_is_not_looked_at_all_the_time(scene: Scene) -> None:
    await up(scene, MODEL, slot("chat", drift="alert"))
    scene.host.stop("chat")
    before = scene.passes
    await scene.pass_(300)
    assert scene.slot("chat").condition(ConditionType.SYNCED).reason == "Drifted"
    assert acts(scene) == []
    assert scene.passes - before <= 11


# What can't be seen is left alone.


async def test_nothing_is_done_while_systemd_cant_be_seen_and_all_is_healed_after(scene: Scene) -> None:
    await up(scene, slots("chat", "embed"))
    scene.runtime.blind = "the bus is gone"
    scene.host.stop("chat")
    scene.host.die("embed")
    scene.look("*")
    await scene.pass_(600)
    assert acts(scene) == []
    assert scene.states() == {"chat": READY, "embed": READY}
    assert scene.slot("chat").condition(ConditionType.READY).status is None
    scene.runtime.blind = ""
    await scene.pass_(31)
    assert scene.host.starts == {"chat": 2, "embed": 2}
    assert scene.states() == {"chat": READY, "embed": READY}


async def test_a_daemon_that_begins_blind_does_nothing(scene: Scene) -> None:
    await up(scene, slots("chat"))
    scene.restart()
    scene.runtime.blind = "the bus is gone"
    await scene.pass_(600)
    assert acts(scene) == []
    assert scene.slot("chat").condition(ConditionType.RUNNING).status is None


async def test_a_bus_that_dies_in_the_middle_of_a_batch_is_tried_again(scene: Scene) -> None:
    scene.runtime.faults["reload"] = UNREACHABLE
    scene.declare(slots("chat"))
    await scene.pass_(10)
    assert scene.host.starts == {}
    assert "D-Bus is gone" in scene.reconciler.attempts["chat"].error
    scene.runtime.faults.clear()
    await scene.until(lambda: scene.states() == {"chat": READY}, within=60)


# Faults of one slot, and of hal0 itself.


async def test_a_failed_start_of_one_slot_leaves_the_others_alone(scene: Scene) -> None:
    scene.runtime.faults["start bad"] = StepFailed("no such device", hint="plug it in")
    scene.declare(slots("bad", "good"))
    await scene.pass_(30)
    assert scene.states() == {"bad": SlotState.ERROR, "good": READY}
    assert "no such device" in scene.slot("bad").message


async def test_a_removal_that_fails_is_not_tried_again_at_once(scene: Scene) -> None:
    await up(scene, slots("a", "b", "c"))
    scene.runtime.faults["stop c"] = StepFailed("the job timed out")
    scene.declare(slots("a", "b"))
    await scene.pass_(120)
    assert 1 <= scene.runtime.calls.count("stop c") <= 10
    scene.runtime.faults.clear()
    await scene.until(lambda: "c" not in scene.store.specs, within=600)


async def test_a_fault_of_hal0_itself_is_not_tried_again_at_once(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    scene.runtime.faults["start chat"] = RuntimeError("a bug of ours")
    scene.declare(slots("chat"))
    await scene.pass_(120)
    assert 1 <= scene.runtime.calls.count("start chat") <= 10
    assert "a bug of ours" in caplog.text
    scene.runtime.faults.clear()
    await scene.until(lambda: scene.states() == {"chat": READY}, within=600)


# Pulls.


async def test_a_slot_waits_for_its_pull_and_then_goes_on(scene: Scene) -> None:
    scene.runtime.pulls = asyncio.Event()
    scene.declare(slots("chat", "embed"))
    await scene.pass_(120)
    assert scene.states() == {"chat": SlotState.PULLING, "embed": SlotState.PULLING}
    assert acts(scene) == ["pull ggml-org/llama.cpp:server"]
    scene.runtime.pulls.set()
    await calm()
    await scene.settle()
    assert scene.states() == {"chat": READY, "embed": READY}


async def test_a_pull_under_way_is_reported_once_and_what_it_was_for_is_recorded_once(scene: Scene) -> None:
    scene.runtime.pulls = asyncio.Event()
    scene.declare(slots("chat"))
    with scene.reconciler.feed.subscribe() as news:
        await scene.pass_(120)
        told = [item for item in drained(news) if isinstance(item, StepNews) and item.step == "pull"]
    assert [item.outcome for item in told] == ["started", "waiting"]
    assert scene.store.ledger.acts("chat") == []
    scene.runtime.pulls.set()
    await scene.settle()
    assert [act.action for act in scene.store.ledger.acts("chat")] == ["create"]


async def test_a_pull_holds_up_no_other_slot(scene: Scene) -> None:
    scene.runtime.pulls = asyncio.Event()
    scene.host.images["ready/made:1"] = "id"
    profile = {"p.yaml": "kind: Profile\nname: other\nimage: ready/made:1\n"}
    scene.declare(MODEL, profile, slot("chat"), slot("embed", profile="other"))
    await scene.settle()
    assert scene.states() == {"chat": SlotState.PULLING, "embed": READY}


async def test_a_failed_pull_is_reported_and_tried_again_ever_more_rarely(scene: Scene) -> None:
    scene.runtime.faults["pull"] = StepFailed("manifest unknown", hint="check the tag")
    scene.declare(slots("chat"))
    await scene.settle()
    assert scene.states() == {"chat": SlotState.ERROR}
    assert "manifest unknown check the tag" in str(scene.reconciler.snapshot.plan.changes[0].reasons[-1])
    await scene.pass_(3600)
    assert 10 <= scene.runtime.calls.count("pull ggml-org/llama.cpp:server") <= 25
    assert scene.slot("chat").condition(ConditionType.STALLED).reason == "CrashLoop"
    scene.runtime.faults.clear()
    await scene.until(lambda: scene.states() == {"chat": READY})


async def test_a_failed_pull_is_told_to_every_slot_that_waited_for_it(scene: Scene) -> None:
    scene.runtime.faults["pull"] = StepFailed("manifest unknown")
    scene.declare(slots("chat", "embed"))
    await scene.settle()
    assert scene.states() == {"chat": SlotState.ERROR, "embed": SlotState.ERROR}
    assert scene.runtime.calls == ["pull ggml-org/llama.cpp:server"]
    assert all("manifest unknown" in scene.slot(name).message for name in ("chat", "embed"))


async def test_an_image_that_was_lost_is_pulled_again(scene: Scene) -> None:
    await up(scene, slots("chat"))
    scene.host.images.clear()
    scene.host.stop("chat")
    scene.look("chat")
    await scene.settle()
    assert acts(scene) == ["pull ggml-org/llama.cpp:server", "start chat"]
    assert scene.states() == {"chat": READY}


async def test_a_slot_whose_image_was_corrected_does_not_wait_for_the_old_pull(scene: Scene) -> None:
    scene.runtime.pulls = asyncio.Event()
    scene.declare(slots("chat"))
    await scene.settle()
    scene.host.images["ready/made:1"] = "id"
    profile = {"p.yaml": "kind: Profile\nname: other\nimage: ready/made:1\n"}
    scene.declare(MODEL, profile, slot("chat", profile="other"))
    await scene.settle()
    assert scene.states() == {"chat": READY}


# Slow hands.


async def test_a_slow_stop_of_one_slot_does_not_hold_another_up(scene: Scene) -> None:
    await up(scene, slots("slow", "other"))
    scene.runtime.stops = asyncio.Event()
    scene.declare(MODEL, slot("slow", context_size=1), slot("other"))
    await scene.settle()
    scene.host.die("other")
    scene.look("other")
    await scene.settle()
    assert scene.host.starts == {"slow": 1, "other": 2}
    assert scene.reconciler.batches.is_busy
    scene.runtime.stops.set()
    await scene.until(lambda: scene.host.starts["slow"] == 2)


async def test_a_slot_is_in_one_batch_at_a_time(scene: Scene) -> None:
    await up(scene, slots("slow"))
    scene.runtime.stops = asyncio.Event()
    scene.declare(MODEL, slot("slow", context_size=1))
    await scene.pass_(300)
    assert acts(scene) == ["stop slow"]
    scene.runtime.stops.set()
    await scene.until(lambda: scene.states() == {"slow": READY})


async def test_a_batch_that_ends_during_a_look_at_another_slot_is_not_begun_again(scene: Scene) -> None:
    await up(scene, slots("slow", "other", "third"))
    scene.runtime.stops = asyncio.Event()
    scene.declare(slots("other", "third"))
    await scene.settle()
    observe = scene.runtime.observe

    async def observe_slowly(
        images: Mapping[str, str], *, only: frozenset[str] | None = None
    ) -> dict[str, SlotObservation]:
        assert scene.runtime.stops
        scene.runtime.stops.set()
        await scene.reconciler.batches.settle()
        return await observe(images, only=only)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scene.runtime, "observe", observe_slowly)
        await scene.reconciler.run(frozenset({"other"}))
    await scene.settle()
    assert acts(scene) == ["stop slow", "remove slow", "reload"]


def busy(scene: Scene, *names: str) -> None:
    """Have an engine answer a request of each slot."""
    for name in names:
        scene.reconciler.demands.enter(name)


async def test_slots_that_drain_hold_up_no_other_slot_nor_each_other(scene: Scene) -> None:
    await up(scene, slots("busy", "long", "a", "b", "c"))
    busy(scene, "busy", "long")
    others = slot("a", context_size=1), slot("b", run="never"), slot("new")
    scene.declare(MODEL, slot("busy", context_size=1), slot("long", context_size=1), *others)
    await scene.settle()
    at_once = ["stop a", "stop b", "stop c", "write a", "write new", "remove c", "reload", "start a", "start new"]
    assert acts(scene) == at_once
    states = scene.states()
    assert (states["a"], states["b"], states["new"]) == (READY, SlotState.OFFLINE, READY)
    doors = {name: scene.reconciler.demands.is_open(name) for name in ("busy", "long", "a", "new")}
    assert doors == {"busy": False, "long": False, "a": True, "new": True}
    assert scene.reconciler.batches.is_busy

    scene.reconciler.demands.end("busy", served=True)
    await scene.settle()
    assert acts(scene) == [*at_once, "stop busy", "write busy", "reload", "start busy"]
    assert scene.reconciler.demands.is_open("busy")
    assert not scene.reconciler.demands.is_open("long")

    scene.reconciler.demands.end("long", served=True)
    await scene.settle()
    assert acts(scene)[-4:] == ["stop long", "write long", "reload", "start long"]
    assert scene.reconciler.demands.is_open("long")
    assert scene.host.starts == {"busy": 2, "long": 2, "a": 2, "b": 1, "c": 1, "new": 1}
    assert not scene.reconciler.batches.is_busy


async def test_a_slot_that_drains_is_left_alone_by_all_passes_until_it_has_been_replaced(scene: Scene) -> None:
    await up(scene, slots("busy", "a"))
    busy(scene, "busy")
    scene.declare(MODEL, slot("busy", context_size=1), slot("a"))
    await scene.pass_(300)
    assert acts(scene) == []
    assert not scene.reconciler.demands.is_open("busy")
    scene.declare(MODEL, slot("busy", context_size=2), slot("a"))
    await scene.pass_(300)
    scene.reconciler.demands.end("busy", served=True)
    await scene.settle()
    assert scene.host.instances["busy"].command == scene.reconciler.desired.slots["busy"].launch.argv
    assert scene.states() == {"busy": READY, "a": READY}


async def test_who_gets_the_port_of_a_slot_that_drains_waits_for_it(scene: Scene) -> None:
    await up(scene, slots("keeper"), slot("busy", port=9001), slot("idle", port=9002))
    busy(scene, "busy")
    scene.declare(slots("keeper"), slot("busy", port=9002), slot("idle", port=9001), slot("new"))
    await scene.settle()
    assert acts(scene) == ["write new", "reload", "start new"]
    scene.reconciler.demands.end("busy", served=True)
    await scene.settle()
    assert acts(scene)[3:] == [
        *("stop busy", "stop idle", "write busy", "write idle", "reload", "start busy", "start idle"),
    ]


@pytest.mark.parametrize("steps", [["a", "b", "renamed"], ["a", "b"]])
async def test_a_slot_that_was_renamed_starts_when_its_old_self_has_answered(scene: Scene, steps: list[str]) -> None:
    await up(scene, slots("a", "b", "old"))
    busy(scene, "old")
    scene.declare(slots(*steps))
    await scene.settle()
    scene.declare(slots("a", "b", "renamed"))
    await scene.settle()
    assert acts(scene) == []
    scene.reconciler.demands.end("old", served=True)
    await scene.settle()
    done = acts(scene)
    assert sorted(set(done)) == ["reload", "remove old", "start renamed", "stop old", "write renamed"]
    assert done.index("stop old") < done.index("start renamed")
    assert scene.states() == {"a": READY, "b": READY, "renamed": READY}


# Manifests that are wrong, or gone.


async def test_a_broken_manifest_keeps_its_slots_last_good_spec_and_the_rest_goes_on(scene: Scene) -> None:
    await up(scene, slots("bad", "good"))
    scene.declare(
        MODEL, {"bad.yaml": "kind: Slot\nname: bad\nmodel: m\nport: many\n"}, slot("good", context_size=1), slot("new")
    )
    await scene.until(lambda: scene.states().get("new") is READY)
    assert "--ctx-size" in scene.host.instances["good"].command
    accepted = scene.slot("bad").condition(ConditionType.ACCEPTED)
    assert accepted.status is False
    assert accepted.message.startswith("/manifests/bad.yaml:4: port: ")
    assert scene.states()["bad"] is READY
    assert scene.host.starts["bad"] == 1


async def test_the_last_good_spec_is_kept_across_a_restart_and_still_healed(scene: Scene) -> None:
    await up(scene, slots("bad", "good"))
    scene.restart()
    scene.declare(slots("good"), {"bad.yaml": "kind: Slot\nname: bad\nmodel: {\n"})
    scene.host.die("bad")
    await scene.until(lambda: scene.states() == {"bad": READY, "good": READY})
    assert scene.slot("bad").condition(ConditionType.ACCEPTED).status is False
    assert scene.host.starts["bad"] == 2


async def test_a_slot_without_a_manifest_is_stopped_removed_and_forgotten(scene: Scene) -> None:
    await up(scene, slots("a", "b", "c"))
    scene.declare(slots("a", "b"))
    await scene.settle()
    assert acts(scene) == ["stop c", "remove c", "reload"]
    assert set(scene.store.specs) == set(scene.states()) == {"a", "b"}
    assert "c" not in scene.host.files


async def test_a_manifest_root_that_lost_most_slots_is_not_believed(scene: Scene) -> None:
    await up(scene, slots("a", "b", "c"))
    scene.declare(slots("a"))
    await scene.pass_(600)
    assert acts(scene) == []
    assert scene.slot("b").condition(ConditionType.STALLED).status is True
    await scene.make_pass(ALLOWED)
    await scene.settle()
    assert set(scene.store.specs) == {"a"}


async def test_an_unreadable_manifest_root_removes_nothing(scene: Scene) -> None:
    await up(scene, slots("a", "b"))
    scene.manifests.fault = "can't be read: Permission denied"
    await scene.pass_(600)
    assert acts(scene) == []
    assert scene.states() == {"a": READY, "b": READY}
    assert scene.slot("a").condition(ConditionType.ACCEPTED).status is False


async def test_a_foreign_container_is_refused_and_left(scene: Scene) -> None:
    await up(scene, slots("chat"))
    scene.host.instances["chat"] = replace(scene.host.instances["chat"], slot="")
    scene.look("chat")
    await scene.pass_(600)
    assert acts(scene) == []
    assert scene.slot("chat").condition(ConditionType.STALLED).reason == "ForeignUnit"


async def test_a_suspended_slot_is_left_as_it_is(scene: Scene) -> None:
    await up(scene, slots("chat"))
    scene.declare(MODEL, slot("chat", suspend="true", context_size=1))
    scene.host.stop("chat")
    await scene.pass_(600)
    assert acts(scene) == []
    assert scene.states() == {"chat": SlotState.OFFLINE}


# What is remembered.


async def test_a_record_that_was_lost_is_made_again_from_what_lies_on_disk(scene: Scene) -> None:
    await up(scene, slots("chat"))
    spec = scene.store.specs["chat"]
    scene.store.forget("chat")
    scene.restart()
    assert scene.store.specs == {}
    scene.declare(slots("chat"))
    await scene.settle()
    assert scene.store.specs == {"chat": spec}
    assert acts(scene) == []


async def test_a_slot_of_a_lost_store_is_still_pruned_by_its_mark(scene: Scene) -> None:
    await up(scene, slots("a", "b", "c"))
    for name in ("a", "b", "c"):
        scene.store.forget(name)
    scene.restart()
    scene.declare(slots("a", "b"))
    await scene.settle()
    assert set(scene.host.files) == {"a", "b"}


@dataclass
class Life:
    """How many acts a daemon has left; then it is dead, and whatever it still tries has no effect."""

    left: int
    used: int = 0

    def spend(self) -> None:
        self.used += 1
        if self.is_over:
            raise Died

    @property
    def is_over(self) -> bool:
        return self.used > self.left


class Died(BaseException):
    """The daemon was killed."""


def mortal(scene: Scene, life: Life) -> None:
    """Make every change that the daemon makes, to the host or to its store, cost a part of its life."""
    call = scene.runtime._call

    def spend(verb: str, what: str) -> None:
        life.spend()
        call(verb, what)

    class MortalStore(Store):
        @contextmanager
        def _write(self) -> Iterator[sqlite3.Connection]:
            life.spend()
            with super()._write() as db:
                yield db

    scene.runtime._call = spend  # type: ignore[method-assign]
    scene.store.close()
    scene.store = MortalStore(scene.folder / "hal0.db")
    scene.reconciler = scene.make()


def host_of(scene: Scene) -> dict[str, object]:
    """Return a host's state without the names that each run of a container gets anew."""
    instances = {name: replace(found, id="") for name, found in scene.host.instances.items()}
    owned = set(scene.store.specs)
    return {"files": scene.host.files, "loaded": scene.host.loaded, "instances": instances, "owned": owned}


def is_as(scene: Scene, *names: str) -> bool:
    return scene.states() == dict.fromkeys(names, READY) and not scene.reconciler.batches.is_busy


BEFORE = slots("a", "b", "c")
AFTER = {**slots("b", "d"), **slot("a", context_size=99)}


async def changed(scene: Scene, life: Life) -> None:
    """Bring a host from three slots to another three: one replaced, one kept, one removed, one new."""
    await up(scene, BEFORE)
    mortal(scene, life)
    scene.declare(AFTER)
    with suppress(Died):
        await scene.until(lambda: life.is_over or is_as(scene, "a", "b", "d"))


async def test_a_daemon_killed_before_any_of_its_acts_comes_to_the_same_end(tmp_path: Path) -> None:
    async with scenes.scene(tmp_path) as whole:
        life = Life(10_000)
        await changed(whole, life)
        most, end = life.used, host_of(whole)
    assert most > 15
    for left in range(most):
        (tmp_path / "hal0.db").unlink()
        async with scenes.scene(tmp_path) as scene:
            await changed(scene, life := Life(left))
            assert life.is_over
            scene.restart()
            await scene.until(lambda scene=scene: is_as(scene, "a", "b", "d"))  # type: ignore[misc]
            assert host_of(scene) == end, f"killed before act {left}"


# Demand.


def on_demand(**settings: object) -> dict[str, str]:
    return MODEL | slot("chat", run="on-demand", idle_timeout="5m", **settings)


async def test_a_slot_on_demand_stays_down_until_a_request_wants_it(scene: Scene) -> None:
    scene.declare(on_demand())
    await scene.pass_(600)
    assert scene.host.starts == {}
    assert scene.states() == {"chat": SlotState.OFFLINE}
    scene.demand("chat")
    await scene.settle()
    assert scene.states() == {"chat": READY}
    scene.reconciler.demands.serve("chat")
    await scene.pass_(1)
    assert scene.states() == {"chat": SlotState.SERVING}


async def test_an_idle_slot_on_demand_is_stopped_when_its_time_is_up(scene: Scene) -> None:
    scene.declare(on_demand(), {"host.yaml": "kind: Host\nresync: 24h\n"})  # it is not a resync that finds it
    await scene.settle()
    scene.demand("chat")
    await scene.pass_(3600)
    assert scene.states() == {"chat": READY}
    scene.reconciler.demands.end("chat", served=False)
    await scene.pass_(299)
    assert scene.states() == {"chat": READY}
    await scene.pass_(2)
    assert scene.states() == {"chat": SlotState.OFFLINE}
    assert acts(scene)[-1] == "stop chat"
    await scene.pass_(3600)
    assert scene.host.starts == {"chat": 1}


async def test_many_requests_are_one_look(scene: Scene) -> None:
    scene.host.images["ggml-org/llama.cpp:server"] = "id"
    scene.declare(on_demand())
    await scene.settle()
    for _ in range(100):
        scene.demand("chat")
    before = scene.passes
    await scene.settle()
    assert scene.passes - before == 2  # one that starts it, one that sees it up
    assert scene.host.starts == {"chat": 1}


async def test_a_busy_slot_costs_no_look_at_the_host_for_each_request(scene: Scene) -> None:
    await up(scene, slots("chat"))
    before = scene.passes
    for _ in range(100):
        scene.demand("chat")
        scene.reconciler.demands.end("chat", served=False)
    await scene.pass_(1)
    assert scene.passes - before == 1


async def test_a_changed_demand_is_seen_without_looking_at_the_host(scene: Scene) -> None:
    await up(scene, slots("chat"))
    scene.runtime.observe = no_look  # type: ignore[method-assign]
    scene.reconciler.demands.enter("chat")
    await scene.pass_(1)
    assert scene.states() == {"chat": SlotState.SERVING}


async def no_look(*_: object, **__: object) -> dict[str, SlotObservation]:
    pytest.fail("the host was looked at")


# Views.


async def test_recorded_transitions_are_legal_edges_and_one_chain(scene: Scene) -> None:
    with scene.reconciler.feed.subscribe() as news:
        await up(scene, slots("chat"))
        scene.host.die("chat")
        scene.look("chat")
        await scene.pass_(60)
        scene.declare(MODEL, slot("chat", context_size=3))
        await scene.pass_(60)
        scene.host.doomed.add("chat")
        scene.host.die("chat")
        await scene.pass_(3600)
        told = [(item.before, item.after) for item in drained(news) if isinstance(item, StateNews)]
    recorded = [(move.before, move.after) for move in reversed(scene.store.ledger.transitions("chat", limit=1000))]
    assert recorded == told
    assert told[0][0] == "offline"
    assert all(SlotState(after) in EDGES[SlotState(before)] for before, after in told)
    assert all(first[1] == then[0] for first, then in pairwise(told))


async def test_a_removed_slot_is_seen_to_go_down(scene: Scene) -> None:
    await up(scene, slots("a", "b", "c"))
    scene.declare(slots("a", "b"))
    await scene.settle()
    assert scene.store.ledger.transitions("c")[0].after == "offline"


async def test_a_new_daemon_does_not_tell_of_starts_that_did_not_happen(scene: Scene) -> None:
    await up(scene, slots("chat"))
    before = scene.store.ledger.transitions("chat")
    scene.restart()
    await scene.pass_(60)
    assert scene.store.ledger.transitions("chat") == before


async def test_a_look_changes_nothing_and_shows_everything(scene: Scene) -> None:
    scene.declare(slots("chat"))
    plan = await scene.plan()
    assert plan.counts() == Counter({Action.CREATE: 1})
    assert scene.runtime.calls == []
    assert scene.states() == {"chat": SlotState.OFFLINE}


def drained(news: asyncio.Queue[News]) -> list[News]:
    return [news.get_nowait() for _ in range(news.qsize())]
