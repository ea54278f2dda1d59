"""Slots that wait for their model's file."""

from __future__ import annotations

import asyncio

import pytest
from scenes import Scene, calm, slot

from hal0.core.conditions import ConditionType
from hal0.core.override import Aspect
from hal0.core.state import SlotState
from hal0.errors import StepFailed, WrongFile
from hal0.loop import operations
from hal0.loop.acts import ActRequest, Verb, act

READY, PULLING, ERROR, OFFLINE = SlotState.READY, SlotState.PULLING, SlotState.ERROR, SlotState.OFFLINE
SOURCE = "source: {repo: org/repo, file: big.gguf}\n"
BIG = {"big.yaml": f"kind: Model\nname: big\n{SOURCE}"}


def big(name: str, **keys: object) -> dict[str, str]:
    """Return the manifest of a slot with the model that is fetched."""
    return {file: text.replace("model: m", "model: big") for file, text in slot(name, **keys).items()}


def path(scene: Scene) -> str:
    return str(scene.folder / "models" / "org" / "repo" / "big.gguf")


@pytest.fixture
def slow(scene: Scene) -> Scene:
    """A host whose fetcher gives ten bytes of a hundred at a time, each when it is let."""
    scene.fetcher.go, scene.fetcher.block = asyncio.Semaphore(0), 10
    return scene


async def let(scene: Scene, blocks: int, *, seconds: float = 2.0) -> None:
    """Let some blocks come, some time after one another."""
    assert scene.fetcher.go
    for _ in range(blocks):
        await scene.pass_(seconds)
        scene.fetcher.go.release()
        await scene.settle()
    await calm()
    await scene.settle()


def reason(scene: Scene, name: str, kind: ConditionType) -> str:
    return scene.slot(name).condition(kind).reason


async def test_a_slot_fetches_its_model_and_then_starts(scene: Scene) -> None:
    scene.declare(BIG, big("chat"))
    await scene.settle()
    assert scene.states() == {"chat": READY}
    assert scene.fetcher.begun == [(path(scene), 0)]
    assert scene.runtime.calls.index("pull ggml-org/llama.cpp:server") < scene.runtime.calls.index("start chat")
    assert (await scene.plan()).is_empty


async def test_two_slots_of_one_model_wait_for_one_fetch_and_say_how_far_it_is(slow: Scene) -> None:
    slow.declare(BIG, big("chat"), big("embed"))
    await let(slow, 3)
    assert slow.states() == {"chat": PULLING, "embed": PULLING}
    assert slow.slot("chat").message == slow.slot("embed").message == "fetching big: 30 of 100 B, 5 B/s"
    assert reason(slow, "chat", ConditionType.READY) == "Pulling"
    assert not slow.slot("chat").is_settled
    await let(slow, 7)
    assert slow.states() == {"chat": READY, "embed": READY}
    assert slow.fetcher.begun == [(path(slow), 0)]


async def test_a_fetch_that_fails_backs_off_and_goes_on_with_what_is_there(slow: Scene) -> None:
    slow.fetcher.faults[path(slow)] = [StepFailed("Interrupted: the connection broke", hint="20 of 100 B are kept")]
    slow.declare(BIG, big("chat"))
    await let(slow, 1, seconds=0)
    assert slow.states() == {"chat": ERROR}
    assert "Interrupted: the connection broke 20 of 100 B are kept" in slow.slot("chat").message
    assert len(slow.fetcher.begun) == 1
    await slow.pass_(9)
    assert len(slow.fetcher.begun) == 1
    await slow.pass_(6)
    assert slow.fetcher.begun == [(path(slow), 0), (path(slow), 10)]
    assert slow.states() == {"chat": PULLING}
    await let(slow, 9)
    assert slow.states() == {"chat": READY}


async def test_a_fetch_that_goes_on_failing_is_tried_ever_more_rarely_and_told(scene: Scene) -> None:
    scene.fetcher.faults[path(scene)] = [StepFailed("ModelNotFound: no such file")] * 100
    scene.fetcher.size = 10_000
    scene.declare(BIG, big("chat"))
    await scene.pass_(3600)
    assert 10 <= len(scene.fetcher.begun) <= 25
    assert reason(scene, "chat", ConditionType.STALLED) == "CrashLoop"
    assert "ModelNotFound: no such file" in scene.slot("chat").message


async def test_a_wrong_checksum_is_not_fetched_for_ever(scene: Scene) -> None:
    scene.fetcher.faults[path(scene)] = [WrongFile("it has another sha256")] * 2
    scene.declare(BIG, big("chat"))
    await scene.pass_(3600)
    assert len(scene.fetcher.begun) == 1
    assert "it has another sha256" in scene.slot("chat").message
    scene.declare({"big.yaml": f"{BIG['big.yaml']}sha256: {'a' * 64}\n"}, big("chat"))
    scene.fetcher.faults.clear()
    await scene.until(lambda: scene.states() == {"chat": READY})


async def test_a_corrected_source_is_fetched_at_once_and_the_old_one_is_given_up(slow: Scene) -> None:
    slow.declare(BIG, big("chat"))
    await let(slow, 2)
    slow.declare({"big.yaml": BIG["big.yaml"].replace("repo: org", "repo: other")}, big("chat"))
    await let(slow, 10)
    assert slow.states() == {"chat": READY}
    assert [source.repo for source in slow.fetcher.sources] == ["org/repo", "other/repo"]
    assert slow.reconciler.actor.transfers.models == {}


async def test_a_broken_manifest_gives_no_download_up(slow: Scene) -> None:
    slow.declare(BIG, big("chat"))
    await let(slow, 2)
    slow.declare({"big.yaml": "kind: Model\nname: big\n"}, big("chat"))
    await slow.settle()
    slow.declare(BIG, big("chat"))
    await let(slow, 8)
    assert slow.fetcher.begun == [(path(slow), 0)]
    assert slow.states() == {"chat": READY}


async def test_a_daemon_that_is_restarted_goes_on_where_the_last_one_was(slow: Scene) -> None:
    slow.declare(BIG, big("chat"))
    await let(slow, 4)
    await slow.reconciler.actor.transfers.close()
    slow.restart()
    await let(slow, 6)
    assert slow.fetcher.begun == [(path(slow), 0), (path(slow), 40)]
    assert slow.states() == {"chat": READY}


async def test_an_on_demand_slot_fetches_when_a_request_comes_and_goes_on_when_that_has_gone(slow: Scene) -> None:
    slow.declare(BIG, big("chat", run="on-demand"))
    await slow.pass_(60)
    assert slow.fetcher.begun == []
    slow.demand("chat")
    await let(slow, 1)
    assert slow.states() == {"chat": PULLING}
    slow.reconciler.demands.end("chat", served=False)
    await let(slow, 9)
    assert slow.fetcher.begun == [(path(slow), 0)]
    assert slow.states()["chat"] in {OFFLINE, READY}


async def test_a_model_that_is_fetched_by_hand_is_missing_until_somebody_does(scene: Scene) -> None:
    scene.declare({"big.yaml": BIG["big.yaml"] + "fetch: manual\n"}, big("chat"))
    await scene.pass_(600)
    assert scene.fetcher.begun == []
    assert reason(scene, "chat", ConditionType.STALLED) == "ModelMissing"
    assert scene.slot("chat").message.endswith("(hal0 model pull big)")


async def test_an_engine_serves_on_while_the_next_model_is_fetched(
    slow: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[str] = []
    monkeypatch.setattr(slow.reconciler.demands, "close", closed.extend)
    slow.declare(BIG, {"m.yaml": "kind: Model\nname: m\npath: m.gguf\n"}, slot("chat"))
    await slow.settle()
    slow.declare(BIG, {"m.yaml": "kind: Model\nname: m\npath: m.gguf\n"}, big("chat"))
    await let(slow, 5)
    assert slow.states() == {"chat": READY}
    assert closed == []
    monkeypatch.undo()
    assert slow.slot("chat").serves.model == "m"
    assert slow.slot("chat").condition(ConditionType.RECONCILING).message == "fetching big: 50 of 100 B, 5 B/s"
    await let(slow, 5)
    await slow.until(lambda: slow.slot("chat").serves.model == "big" and slow.states() == {"chat": READY})


async def test_a_swap_fetches_the_model_that_it_is_to(scene: Scene) -> None:
    scene.declare(BIG, {"m.yaml": "kind: Model\nname: m\npath: m.gguf\n"}, slot("chat"))
    await scene.until(lambda: scene.states() == {"chat": READY})
    async with scene.driven(flowing=True):
        request = ActRequest("chat", Verb.SWAP, "eve", model="big", persist=False)
        events = [event async for event in act(scene.reconciler, request)]
    assert [event["swapped"] for event in events if event["event"] == "swap"] == [True]
    assert scene.fetcher.begun == [(path(scene), 0)]
    assert [row.value for row in scene.store.overrides.rows if row.aspect is Aspect.MODEL] == ["big"]


async def test_an_apply_tells_how_far_a_model_is(slow: Scene) -> None:
    slow.declare(BIG, big("chat"))
    assert slow.fetcher.go
    for _ in range(10):
        slow.fetcher.go.release()
    async with slow.driven(flowing=True):
        events = [event async for event in operations.apply(slow.reconciler, operations.ApplyRequest())]
    (told,) = [event for event in events if event["event"] == "transfer"]
    assert (told["model"], told["slots"], told["done_bytes"], told["total_bytes"]) == ("big", ["chat"], 10, 100)
    assert told["message"] == "fetching big: 10 of 100 B"
    steps = [(event["step"], event["outcome"]) for event in events if event["event"] == "step"]
    assert ("fetch", "waiting") in steps
    assert events[-1]["converged"] is True
