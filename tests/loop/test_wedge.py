"""Engines that hang while their service runs: proved by a real request, and healed by the slot's drift policy."""

from __future__ import annotations

import asyncio
from itertools import pairwise

from fakes import GOOD, SILENT
from scenes import MODEL, Scene, slot, slots

from hal0.core.conditions import ConditionType
from hal0.core.observed import ProbeResult
from hal0.core.proof import Reply
from hal0.core.state import SlotState

READY, ERROR = SlotState.READY, SlotState.ERROR


async def up(scene: Scene, *files: dict[str, str]) -> None:
    scene.declare(*(files or (slots("chat"),)))
    await scene.until(lambda: all(state is READY for state in scene.states().values()))
    scene.runtime.calls.clear()


def hang(scene: Scene, probe: ProbeResult = ProbeResult.LATE) -> None:
    """Have the engine answer nothing, until it is started anew."""
    scene.prober.answers["chat"] = probe
    scene.completer.reply = SILENT
    scene.look("chat")


def calls(scene: Scene) -> list[str]:
    return [call for call in scene.runtime.calls if not call.startswith("reset_failed")]


async def healing(scene: Scene) -> None:
    """Let the engine work again once it is started anew."""
    await scene.until(lambda: "start chat" in scene.runtime.calls)
    scene.prober.answers.clear()
    scene.completer.reply = GOOD
    await scene.pass_(5)


async def serve(scene: Scene) -> None:
    scene.demand("chat")
    scene.reconciler.demands.serve("chat")
    await scene.pass_(1)


async def test_an_engine_that_hangs_is_proved_to_and_started_anew(scene: Scene) -> None:
    await up(scene)
    hang(scene)
    await scene.pass_(9.9)
    assert scene.completer.asked == []
    await scene.pass_(0.2)
    assert scene.completer.asked == [scene.slot("chat").spec.port]
    await healing(scene)
    assert calls(scene) == ["stop chat", "start chat"]
    assert scene.states() == {"chat": READY}
    (act,) = [act for act in scene.store.ledger.acts("chat") if act.drift]
    assert act.why == "engine: does not answer -> running"


async def test_an_engine_that_is_starved_is_left_alone_for_hours(scene: Scene) -> None:
    await up(scene)
    scene.prober.answers["chat"] = ProbeResult.LATE
    scene.look("chat")
    await scene.pass_(4 * 3600)
    assert calls(scene) == []
    assert scene.states() == {"chat": SlotState.IDLE}
    assert 4 * 3600 / 13 < len(scene.completer.asked) < 4 * 3600 / 9


async def test_an_engine_that_finds_fault_with_the_question_works(scene: Scene) -> None:
    await up(scene)
    hang(scene, ProbeResult.FAILING)
    scene.completer.reply = Reply(400, "it answered 400")
    await scene.pass_(600)
    assert calls(scene) == []
    assert scene.states() == {"chat": READY}


async def test_requests_that_hang_are_not_waited_for(scene: Scene) -> None:
    await up(scene)
    await serve(scene)
    hang(scene)
    await healing(scene)
    assert calls(scene) == ["stop chat", "start chat"]


async def test_under_alert_a_wedged_engine_is_only_named(scene: Scene) -> None:
    await up(scene, MODEL, slot("chat", drift="alert"))
    hang(scene)
    await scene.pass_(3600)
    assert calls(scene) == []
    found = scene.slot("chat")
    assert found.state is ERROR
    stalled, synced = found.condition(ConditionType.STALLED), found.condition(ConditionType.SYNCED)
    assert (stalled.status, stalled.reason, synced.reason) == (True, "Wedged", "Drifted")
    assert "no answer in 45 s" in stalled.message
    assert len(scene.completer.asked) == 1
    scene.prober.answers.clear()
    await scene.pass_(2)
    assert scene.states() == {"chat": READY}


async def test_a_proof_of_long_ago_condemns_no_engine_at_its_next_late_probe(scene: Scene) -> None:
    await up(scene, MODEL, slot("chat", drift="alert"))
    hang(scene)
    await scene.pass_(60)
    scene.prober.answers.clear()
    await scene.pass_(60)
    scene.prober.answers["chat"] = ProbeResult.LATE
    scene.look("chat")
    await scene.settle()
    assert scene.states() == {"chat": READY}


async def test_heal_when_idle_waits_for_the_requests_even_of_a_wedged_engine(scene: Scene) -> None:
    await up(scene, MODEL, slot("chat", drift="heal-when-idle"))
    await serve(scene)
    hang(scene)
    await scene.pass_(600)
    assert calls(scene) == []
    assert scene.states() == {"chat": ERROR}
    scene.reconciler.demands.end("chat", served=True)
    await healing(scene)
    assert calls(scene) == ["stop chat", "start chat"]


async def test_a_slot_whose_type_has_no_cheap_request_is_judged_by_its_probe(scene: Scene) -> None:
    profile = {"p.yaml": "kind: Profile\nname: voice\nimage: x/y:z\nengine: custom\n"}
    await up(scene, MODEL, profile, slot("chat", type="tts", profile="voice"))
    await serve(scene)
    hang(scene)
    await scene.pass_(600)
    assert calls(scene) == []  # one request may keep such an engine from answering its probe
    scene.reconciler.demands.end("chat", served=True)
    await healing(scene)
    assert calls(scene) == ["stop chat", "start chat"]
    assert scene.completer.asked == []


# Engines that hang behind a probe that answers.


def mute(scene: Scene) -> None:
    """Have a request end without a byte, at an engine that answers its probe only."""
    scene.completer.reply = SILENT
    scene.reconciler.prover.suspect("chat")


async def test_a_request_without_a_byte_has_the_engine_proved_and_healed(scene: Scene) -> None:
    await up(scene)
    mute(scene)
    await scene.until(lambda: "start chat" in scene.runtime.calls)
    scene.completer.reply = GOOD
    await scene.pass_(300)
    assert calls(scene) == ["stop chat", "start chat"]
    assert len(scene.completer.asked) == 1
    assert scene.states() == {"chat": READY}


async def test_an_engine_that_answers_is_no_suspect_any_more(scene: Scene) -> None:
    await up(scene)
    scene.reconciler.prover.suspect("chat")
    await scene.pass_(600)
    assert len(scene.completer.asked) == 1
    assert calls(scene) == []


async def test_an_engine_that_may_have_slept_has_time_to_load_its_model_again(scene: Scene) -> None:
    await up(scene, MODEL, slot("chat", sleep_after="5m"), slot("awake"))
    for name in ("awake", "chat"):
        scene.reconciler.prover.suspect(name)
        await scene.pass_(60)
    hang(scene)
    await scene.pass_(11)
    assert scene.completer.deadlines == [45, 645, 45]


async def test_a_suspect_with_requests_at_it_is_asked_when_they_have_ended(scene: Scene) -> None:
    await up(scene)
    await serve(scene)
    mute(scene)
    await scene.pass_(3600)
    assert scene.completer.asked == []
    scene.reconciler.demands.end("chat", served=True)
    await scene.pass_(1)
    assert calls(scene) == ["stop chat", "start chat"]


async def test_a_proof_that_waited_behind_a_request_decides_nothing(scene: Scene) -> None:
    await up(scene)
    scene.completer.hold = asyncio.Event()
    mute(scene)
    await scene.pass_(1)
    await serve(scene)
    scene.clock.forward(44)
    scene.completer.hold.set()
    await scene.pass_(600)
    assert calls(scene) == []
    assert scene.states() == {"chat": SlotState.SERVING}
    scene.completer.reply = GOOD
    scene.reconciler.demands.end("chat", served=True)
    await scene.pass_(600)
    assert calls(scene) == []


async def test_a_request_that_came_and_went_during_a_proof_speaks_for_the_engine(scene: Scene) -> None:
    await up(scene)
    scene.completer.hold = asyncio.Event()
    mute(scene)
    await scene.pass_(1)
    await serve(scene)
    scene.reconciler.demands.end("chat", served=True)
    await scene.pass_(1)
    scene.completer.hold.set()
    scene.completer.reply = SILENT
    await scene.settle()
    assert scene.reconciler.prover.proofs == {}
    assert calls(scene) == []


async def test_a_wedged_engine_that_is_left_alone_is_asked_again_and_ready_when_it_answers(scene: Scene) -> None:
    await up(scene, MODEL, slot("chat", drift="alert"))
    mute(scene)
    await scene.pass_(600)
    assert scene.states() == {"chat": ERROR}
    assert 9 <= len(scene.completer.asked) <= 11
    scene.demand("chat")  # it waits, and does not speak for the engine
    await scene.pass_(30)
    assert scene.states() == {"chat": ERROR}
    scene.completer.reply = GOOD
    await scene.pass_(62)
    assert scene.states() == {"chat": READY}
    assert calls(scene) == []


async def test_a_slot_that_is_being_changed_is_not_asked(scene: Scene) -> None:
    await up(scene)
    scene.runtime.stops = asyncio.Event()
    scene.declare(MODEL, slot("chat", run="never"))
    await scene.settle()
    hang(scene)
    await scene.pass_(60)
    assert scene.completer.asked == []
    scene.runtime.stops.set()
    await scene.settle()


async def test_an_engine_that_never_was_ready_is_not_asked(scene: Scene) -> None:
    scene.declare(slots("chat"))
    hang(scene, ProbeResult.LOADING)
    await scene.pass_(3600)
    assert scene.completer.asked == []
    assert scene.host.starts == {"chat": 1}


async def test_a_removed_slot_leaves_no_proof(scene: Scene) -> None:
    await up(scene, slots("chat", "other"))
    scene.reconciler.prover.suspect("chat")
    await scene.settle()
    assert "chat" in scene.reconciler.prover.proofs
    scene.declare(slots("other"))
    await scene.pass_(60)
    assert scene.reconciler.prover.proofs == {}


async def test_an_engine_that_hangs_again_and_again_is_started_ever_more_rarely(scene: Scene) -> None:
    await up(scene)
    hang(scene)
    moments = []
    for _ in range(6):
        await healing(scene)
        moments.append(scene.clock.now())
        scene.runtime.calls.clear()
        hang(scene)
    waits = [later - earlier for earlier, later in pairwise(moments)]
    assert waits[-1] > 120
    assert waits == sorted(waits)
