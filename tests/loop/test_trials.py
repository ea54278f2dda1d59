"""``apply --atomic``: a spec proves itself by a real answer, or the slot is taken back to its last good one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from fakes import SILENT
from scenes import MODEL, Scene, slot, slots

from hal0.core.backoff import Attempt
from hal0.core.conditions import ConditionType
from hal0.core.observed import Activity, ProbeResult
from hal0.core.proof import Reply
from hal0.core.spec import SlotSpec
from hal0.core.state import SlotState
from hal0.core.trial import Trial
from hal0.errors import Conflict, StepFailed
from hal0.host.ledger import Apply
from hal0.loop import operations
from hal0.loop.acts import ActRequest, Verb, act
from hal0.loop.operations import ApplyRequest

READY, ERROR = SlotState.READY, SlotState.ERROR
BAD = {"args": "[--bad]"}


async def up(scene: Scene, *files: dict[str, str]) -> None:
    scene.declare(*(files or (slots("chat"),)))
    await scene.until(lambda: set(scene.states().values()) == {READY})
    scene.runtime.calls.clear()


async def driven(scene: Scene, events: Any) -> list[dict[str, Any]]:
    async with asyncio.timeout(20):
        told = [await anext(events)]
        async with scene.driven(flowing=True):
            return told + [event async for event in events]


async def applied(scene: Scene, *, atomic: bool = True, patience: float = 600.0, **limits: Any) -> dict[str, Any]:
    """Apply, and return the recap."""
    request = ApplyRequest(timeout=patience, who="eve", atomic=atomic, **limits)
    return (await driven(scene, aiter(operations.apply(scene.reconciler, request))))[-1]


async def asked(scene: Scene, verb: Verb, name: str = "chat") -> dict[str, Any]:
    return (await driven(scene, aiter(act(scene.reconciler, ActRequest(name, verb, "eve")))))[-1]


async def until(scene: Scene, what: Callable[[], object]) -> None:
    """Wait until something is so, beside a loop that is driven."""
    with scene.reconciler.feed.subscribe() as news:
        while not what():
            await news.get()


def runs(scene: Scene, name: str = "chat") -> tuple[str, ...]:
    """Return the command of what runs; empty where nothing does."""
    found = scene.host.instances.get(name)
    return found.command if found else ()


def last(scene: Scene) -> Apply:
    return scene.store.ledger.applies(limit=1)[0]


def good(scene: Scene, name: str = "chat") -> SlotSpec:
    return scene.store.trials.good[name]


def accepted(scene: Scene, name: str = "chat") -> tuple[bool | None, str]:
    found = scene.slot(name).condition(ConditionType.ACCEPTED)
    return found.status, found.reason


def rejected(scene: Scene, name: str = "chat") -> list[str]:
    return [found.why for found in scene.store.trials.rejections.values() if found.slot == name]


# What proves itself.


async def test_a_spec_that_answers_is_the_good_one_from_then_on(scene: Scene) -> None:
    await up(scene)
    before = good(scene)
    scene.declare(MODEL, slot("chat", args="[--new]"))
    recap = await applied(scene)
    assert recap["converged"] is True
    assert "--new" in runs(scene)
    assert (before.args, good(scene).args) == ((), ("--new",))
    assert scene.completer.asked == [scene.slot("chat").spec.port]
    assert scene.store.trials.open == {}
    assert (last(scene).atomic, last(scene).result) == (True, "converged")
    assert accepted(scene) == (True, "Valid")


async def test_without_atomic_nothing_is_asked_for_a_proof(scene: Scene) -> None:
    await up(scene)
    scene.declare(MODEL, slot("chat", args="[--new]"))
    await applied(scene, atomic=False)
    assert scene.completer.asked == []
    assert last(scene).atomic is False


async def test_what_is_good_already_is_not_tried(scene: Scene) -> None:
    await up(scene)
    recap = await applied(scene)
    assert recap["converged"] is True
    assert scene.completer.asked == []


async def test_requests_wait_until_the_new_engine_has_proved_itself(scene: Scene) -> None:
    await up(scene)
    scene.declare(MODEL, slot("chat", args="[--new]"))
    scene.completer.hold = asyncio.Event()
    task = asyncio.create_task(applied(scene))
    await until(scene, lambda: scene.states() == {"chat": READY} and scene.completer.asked)
    assert not scene.reconciler.demands.is_open("chat")
    assert accepted(scene) == (True, "OnTrial")
    assert not task.done()
    scene.completer.hold.set()
    assert (await task)["converged"] is True
    assert scene.reconciler.demands.is_open("chat")


async def test_a_slot_whose_type_has_no_cheap_request_is_tried_by_its_probe(scene: Scene) -> None:
    profile = {"p.yaml": "kind: Profile\nname: voice\nimage: x/y:z\nengine: custom\n"}
    scene.declare(MODEL, profile, slot("chat", type="tts", profile="voice"))
    assert (await applied(scene))["converged"] is True
    assert good(scene).profile == "voice"
    assert scene.completer.asked == []


async def test_an_engine_that_finds_fault_with_the_question_has_answered(scene: Scene) -> None:
    scene.completer.reply = Reply(401, "it answered 401")
    scene.declare(slots("chat"))
    assert (await applied(scene))["converged"] is True


async def test_one_slow_first_answer_is_forgiven(scene: Scene) -> None:
    scene.completer.first = [SILENT]
    scene.declare(slots("chat"))
    assert (await applied(scene))["converged"] is True


# What does not.


async def test_an_engine_that_crashes_is_taken_back_to_the_last_good_spec(scene: Scene) -> None:
    await up(scene)
    scene.host.doomed.add("--bad")
    scene.declare(MODEL, slot("chat", **BAD))
    recap = await applied(scene)
    row = recap["slots"]["chat"]
    assert (recap["converged"], row["failed"], row["waiting"]) == (False, 1, 0)
    assert row["message"].startswith("rolled back: spec ")
    assert "hal0 slot retry chat tries it again, or change the manifest" in row["message"]
    assert scene.states() == {"chat": READY}
    assert "--bad" not in runs(scene)
    assert (last(scene).atomic, last(scene).result) == (True, "rolled-back")
    assert last(scene).summary.startswith("chat: rolled back: spec ")
    assert accepted(scene) == (False, "Rejected")
    assert scene.slot("chat").condition(ConditionType.SYNCED).status is True
    (why,) = rejected(scene)
    assert "start-limit-hit" in why


async def test_a_rejected_spec_is_not_tried_again_by_time_or_by_apply(scene: Scene) -> None:
    await up(scene)
    scene.host.doomed.add("--bad")
    scene.declare(MODEL, slot("chat", **BAD))
    await applied(scene)
    starts = dict(scene.host.starts)
    await scene.pass_(3 * 3600)
    for atomic in (True, False):
        recap = await applied(scene, atomic=atomic)
        assert (recap["converged"], recap["slots"]["chat"]["failed"]) == (False, 1)
        assert (last(scene).atomic, last(scene).result) == (atomic, "failed")
    assert scene.host.starts == starts
    (rejection,) = scene.reconciler.snapshot.plan.rejections
    assert scene.reconciler.snapshot.plan.changes == ()
    assert str(rejection) in scene.slot("chat").message


async def test_an_image_that_cant_be_had_never_stops_the_old_engine(scene: Scene) -> None:
    await up(scene)
    container = scene.host.instances["chat"].id
    scene.runtime.faults["pull x/bad:1"] = StepFailed("no such image", hint="name it in full")
    profile = {"p.yaml": "kind: Profile\nname: bad\nimage: x/bad:1\n"}
    scene.declare(MODEL, profile, slot("chat", profile="bad"))
    recap = await applied(scene)
    assert recap["slots"]["chat"]["failed"] == 1
    assert rejected(scene) == ["no such image name it in full"]
    assert scene.host.instances["chat"].id == container
    assert scene.states() == {"chat": READY}


async def test_an_engine_that_is_never_ready_has_its_start_deadline(scene: Scene) -> None:
    await up(scene)
    begun = scene.clock.now()
    scene.prober.answers["chat"] = ProbeResult.LOADING
    scene.declare(MODEL, slot("chat", **BAD))
    task = asyncio.create_task(applied(scene, patience=7200))
    await until(scene, lambda: rejected(scene))
    assert scene.clock.now() - begun == pytest.approx(good(scene).start_deadline, abs=2)
    scene.prober.answers.clear()
    assert (await task)["slots"]["chat"]["failed"] == 1
    assert "--bad" not in runs(scene)
    assert scene.states() == {"chat": READY}


async def test_a_pull_takes_nothing_of_the_deadline(scene: Scene) -> None:
    await up(scene)
    scene.runtime.pulls = asyncio.Event()
    profile = {"p.yaml": "kind: Profile\nname: large\nimage: x/large:1\n"}
    scene.declare(MODEL, profile, slot("chat", profile="large"))
    recap = await applied(scene, patience=4 * 3600)
    assert (recap["slots"]["chat"]["waiting"], rejected(scene)) == (1, [])
    scene.runtime.pulls.set()
    await scene.pass_(5)
    assert good(scene).profile == "large"
    assert last(scene).result == "converged"


async def test_health_is_not_enough(scene: Scene) -> None:
    await up(scene)
    scene.completer.reply = SILENT
    scene.declare(MODEL, slot("chat", **BAD))
    recap = await applied(scene)
    assert recap["slots"]["chat"]["failed"] == 1
    (why,) = rejected(scene)
    assert "does not answer a real request: no answer in 45 s" in why
    assert len(scene.completer.asked) == 2
    assert scene.runtime.calls.count("start chat") == 2
    assert "--bad" not in runs(scene)
    assert scene.states() == {"chat": READY}


async def test_of_two_slots_only_the_bad_one_goes_back(scene: Scene) -> None:
    await up(scene, slots("chat", "embed"))
    scene.host.doomed.add("--bad")
    scene.declare(MODEL, slot("chat", **BAD), slot("embed", args="[--new]"))
    recap = await applied(scene)
    assert {name: row["failed"] for name, row in recap["slots"].items()} == {"chat": 1, "embed": 0}
    assert "--bad" not in runs(scene)
    assert "--new" in runs(scene, "embed")
    assert good(scene, "embed").args == ("--new",)


async def test_a_limit_tries_only_what_it_names(scene: Scene) -> None:
    await up(scene, slots("chat", "embed"))
    scene.host.doomed.add("--bad")
    scene.declare(MODEL, slot("chat", **BAD), slot("embed", args="[--new]"))
    await applied(scene, limit=frozenset({"embed"}))
    assert rejected(scene) == []
    assert good(scene, "embed").args == ("--new",)


async def test_a_new_slot_that_is_bad_is_kept_down(scene: Scene) -> None:
    scene.host.doomed.add("--bad")
    scene.declare(slots("other"), slot("chat", **BAD))
    recap = await applied(scene)
    row = recap["slots"]["chat"]
    assert (recap["converged"], row["failed"], row["waiting"]) == (False, 1, 0)
    assert row["message"].startswith("kept down: spec ")
    starts = scene.host.starts["chat"]
    scene.demand("chat")
    await scene.pass_(3 * 3600)
    assert scene.host.starts["chat"] == starts
    found = scene.slot("chat")
    assert not found.may_answer
    assert "was rejected" in found.verdict.why
    for verb in (Verb.LOAD, Verb.RESTART):
        with pytest.raises(Conflict, match="hal0 slot retry chat"):
            await asked(scene, verb)


async def test_a_new_slot_that_loads_for_ever_is_stopped(scene: Scene) -> None:
    scene.prober.answers["chat"] = ProbeResult.LOADING
    scene.declare(slots("chat"))
    await applied(scene, patience=7200)
    assert scene.host.activity["chat"] is Activity.INACTIVE
    assert scene.states() == {"chat": SlotState.OFFLINE}
    (act_, *_) = [found for found in scene.store.ledger.acts("chat") if found.action == "update"]
    assert act_.rule == "trial"


async def test_an_image_behind_its_tag_is_only_reported(scene: Scene) -> None:
    await up(scene)
    scene.host.doomed.add("chat")
    scene.host.images[scene.slot("chat").spec.image] = "another"
    recap = await applied(scene)
    assert recap["slots"]["chat"]["failed"] == 1
    assert "rolled back" not in recap["slots"]["chat"]["message"]
    assert rejected(scene) == []
    assert last(scene).result == "failed"


async def test_the_recap_waits_for_the_good_engine_where_a_step_failed(scene: Scene) -> None:
    await up(scene)
    scene.runtime.faults["start chat"] = StepFailed("no such device")
    scene.declare(MODEL, slot("chat", **BAD))
    task = asyncio.create_task(applied(scene))
    await until(scene, lambda: rejected(scene))
    scene.prober.answers["chat"] = ProbeResult.LOADING
    scene.runtime.faults.clear()
    await until(scene, lambda: scene.states() == {"chat": SlotState.WARMING} and "--bad" not in runs(scene))
    assert not task.done()
    scene.prober.answers.clear()
    row = (await task)["slots"]["chat"]
    assert (row["failed"], row["waiting"]) == (1, 0)
    assert row["message"].startswith("rolled back: spec ")
    assert scene.states() == {"chat": READY}


async def test_a_slot_in_a_batch_is_judged_by_the_next_look(scene: Scene) -> None:
    scene.prober.answers["chat"] = ProbeResult.LOADING
    scene.declare(slots("chat"))
    await applied(scene, patience=5)
    hal0 = scene.reconciler
    attempts = {"chat": Attempt(scene.slot("chat").spec_hash, 1, 0.0, "no such device")}
    assert hal0.trials.follow(hal0.snapshot, attempts, {"chat"}) == frozenset()
    assert hal0.trials.follow(hal0.snapshot, attempts, ()) == {"chat"}


# Second chances.


async def test_a_retry_tries_the_rejected_spec_again_on_trial(scene: Scene) -> None:
    await up(scene)
    scene.host.doomed.add("--bad")
    scene.declare(MODEL, slot("chat", **BAD))
    await applied(scene)
    recap = await asked(scene, Verb.RETRY)
    assert recap["slots"]["chat"]["failed"] == 1
    assert "--bad" not in runs(scene)
    assert len(rejected(scene)) == 1
    scene.host.doomed.clear()  # what it lacked is there now
    recap = await asked(scene, Verb.RETRY)
    assert recap["converged"] is True
    assert "--bad" in runs(scene)
    assert rejected(scene) == []
    assert good(scene).args == ("--bad",)


async def test_a_new_slot_that_was_kept_down_comes_up_after_a_retry(scene: Scene) -> None:
    scene.host.doomed.add("--bad")
    scene.declare(slots("other"), slot("chat", **BAD))
    await applied(scene)
    scene.host.doomed.clear()
    assert (await asked(scene, Verb.RETRY))["converged"] is True
    assert scene.states() == {"chat": READY, "other": READY}


async def test_another_edit_is_tried_at_once(scene: Scene) -> None:
    await up(scene)
    scene.host.doomed.add("--bad")
    scene.declare(MODEL, slot("chat", **BAD))
    await applied(scene)
    scene.declare(MODEL, slot("chat", args="[--better]"))
    await scene.pass_(5)
    assert "--better" in runs(scene)
    assert accepted(scene) == (True, "Valid")
    scene.declare(MODEL, slot("chat", **BAD))
    await scene.pass_(5)
    assert "--better" in runs(scene)
    assert accepted(scene) == (False, "Rejected")
    scene.declare(slots("chat"))
    await scene.pass_(5)
    assert scene.reconciler.snapshot.plan.rejections == ()


async def test_another_edit_meanwhile_ends_the_trial(scene: Scene) -> None:
    await up(scene)
    scene.prober.answers["chat"] = ProbeResult.LOADING
    scene.declare(MODEL, slot("chat", **BAD))
    await applied(scene, patience=5)
    assert [trial.who for trial in scene.store.trials.open.values()] == ["eve"]
    scene.declare(MODEL, slot("chat", args="[--better]"))
    await scene.pass_(2 * 3600)
    assert (scene.store.trials.open, rejected(scene)) == ({}, [])
    assert "--better" in runs(scene)


async def test_a_spec_that_crashed_before_it_was_tried_gets_a_start_of_its_own(scene: Scene) -> None:
    await up(scene)
    scene.host.doomed.add("--bad")
    scene.declare(MODEL, slot("chat", **BAD))
    await scene.pass_(60)
    starts = scene.host.starts["chat"]
    recap = await applied(scene)
    assert recap["slots"]["chat"]["failed"] == 1
    assert scene.host.starts["chat"] == starts + 2
    assert "--bad" not in runs(scene)


async def test_a_trial_of_what_the_watcher_took_up_before_the_command_came(scene: Scene) -> None:
    await up(scene)
    scene.prober.answers["chat"] = ProbeResult.LOADING
    scene.declare(MODEL, slot("chat", **BAD))
    await scene.pass_(5)
    assert "--bad" in runs(scene)
    task = asyncio.create_task(applied(scene, patience=7200))
    await until(scene, lambda: rejected(scene))
    scene.prober.answers.clear()
    assert (await task)["slots"]["chat"]["failed"] == 1
    assert last(scene).result == "rolled-back"
    assert "--bad" not in runs(scene)


async def test_a_slot_in_error_is_mended_by_the_spec_that_is_tried(scene: Scene) -> None:
    scene.host.doomed.add("--bad")
    scene.declare(MODEL, slot("chat", **BAD))
    await scene.pass_(60)
    assert scene.states() == {"chat": ERROR}
    scene.declare(MODEL, slot("chat", args="[--better]"))
    assert (await applied(scene))["converged"] is True
    assert good(scene).args == ("--better",)


# Slots that are not wanted up, and what people ask meanwhile.


async def test_a_slot_on_demand_is_tried_when_a_request_wants_it(scene: Scene) -> None:
    await up(scene)
    scene.host.doomed.add("--bad")
    scene.declare(MODEL, slot("chat", run="on-demand", idle_timeout="1m"))
    await scene.pass_(300)
    assert scene.states() == {"chat": SlotState.OFFLINE}
    scene.declare(MODEL, slot("chat", run="on-demand", idle_timeout="1m", **BAD))
    recap = await applied(scene)
    assert recap["converged"] is True
    await scene.pass_(3 * 3600)
    assert accepted(scene) == (True, "OnTrial")
    scene.demand("chat")
    await scene.pass_(5)
    assert scene.states() == {"chat": READY}
    assert "--bad" not in runs(scene)
    assert accepted(scene) == (False, "Rejected")


async def test_the_deadline_stands_still_while_a_slot_is_unloaded(scene: Scene) -> None:
    scene.prober.answers["chat"] = ProbeResult.LOADING
    scene.declare(slots("chat"))
    await applied(scene, patience=5)
    await asked(scene, Verb.UNLOAD)
    await scene.pass_(3 * 3600)
    scene.prober.answers.clear()
    assert (await asked(scene, Verb.LOAD))["converged"] is True
    assert rejected(scene) == []


async def test_policies_of_the_manifest_hold_for_a_slot_that_was_taken_back(scene: Scene) -> None:
    await up(scene)
    scene.host.doomed.add("--bad")
    scene.declare(MODEL, slot("chat", **BAD))
    await applied(scene)
    scene.declare(MODEL, slot("chat", run="never", aliases="[small]", **BAD))
    await scene.pass_(5)
    assert scene.states() == {"chat": SlotState.OFFLINE}
    assert scene.slot("chat").spec.aliases == ("small",)


# A hal0 that is killed.


async def test_a_trial_goes_on_after_a_kill(scene: Scene) -> None:
    await up(scene)
    scene.prober.answers["chat"] = ProbeResult.LOADING
    scene.declare(MODEL, slot("chat", **BAD))
    await applied(scene, patience=5)
    scene.restart()
    deadline = good(scene).start_deadline
    await scene.pass_(deadline - 10)
    assert rejected(scene) == []
    scene.host.die("chat")
    scene.prober.answers.clear()
    scene.host.doomed.add("--bad")
    scene.look("chat")
    await scene.pass_(30)
    assert len(rejected(scene)) == 1
    assert "--bad" not in runs(scene)
    assert last(scene).result == "rolled-back"


async def test_a_kill_before_the_roll_back_only_delays_it(scene: Scene) -> None:
    await up(scene)
    scene.host.doomed.add("--bad")
    scene.declare(MODEL, slot("chat", **BAD))
    await scene.settle()
    wanted = scene.slot("chat").spec_hash
    scene.store.trials.begin([Trial("chat", wanted, "eve", scene.clock.wall())])
    scene.restart()
    await scene.pass_(60)
    assert len(rejected(scene)) == 1
    assert scene.states() == {"chat": READY}
    assert "--bad" not in runs(scene)


async def test_a_kill_after_the_rejection_leaves_the_roll_back_to_the_next(scene: Scene) -> None:
    await up(scene)
    scene.prober.answers["chat"] = ProbeResult.LOADING
    scene.declare(MODEL, slot("chat", **BAD))
    task = asyncio.create_task(applied(scene, patience=7200))
    await until(scene, lambda: rejected(scene))
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    scene.restart()
    scene.prober.answers.clear()
    await scene.pass_(60)
    assert "--bad" not in runs(scene)
    assert accepted(scene) == (False, "Rejected")
    await scene.pass_(3 * 3600)
    assert scene.states() == {"chat": SlotState.IDLE}


# Broken manifests.


async def test_what_stays_of_a_broken_manifest_is_the_good_spec(scene: Scene) -> None:
    await up(scene)
    scene.host.doomed.add("--bad")
    scene.declare(MODEL, slot("chat", **BAD))
    await scene.pass_(60)
    assert scene.states() == {"chat": ERROR}
    scene.declare(MODEL, slot("chat", model="gone"))
    await scene.pass_(60)
    assert scene.states() == {"chat": READY}
    assert "--bad" not in runs(scene)


async def test_a_bad_slot_whose_manifest_breaks_stays_down(scene: Scene) -> None:
    scene.host.doomed.add("--bad")
    scene.declare(slots("other"), slot("chat", **BAD))
    await applied(scene)
    starts = scene.host.starts["chat"]
    scene.declare(slots("other"), slot("chat", colour="red"))
    await scene.pass_(600)
    assert scene.host.starts["chat"] == starts


async def test_a_slot_that_is_gone_leaves_nothing(scene: Scene) -> None:
    await up(scene, slots("chat", "other", "more"))
    scene.host.doomed.add("--bad")
    scene.declare(slots("other", "more"), slot("chat", **BAD))
    await applied(scene)
    scene.declare(slots("other", "more"))
    await scene.pass_(60)
    assert set(scene.store.trials.good) == {"other", "more"}
    assert rejected(scene) == []
