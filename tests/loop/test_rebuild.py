"""A store that is lost or damaged: what runs goes on, and hal0 knows again what it must."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from scenes import MODEL, Scene, slot, slots

from hal0.core.conditions import ConditionType
from hal0.core.override import UP, Aspect, Override
from hal0.core.state import SlotState
from hal0.errors import Conflict
from hal0.host.ports import MANIFESTS
from hal0.host.store import Store
from hal0.loop.acts import ActRequest, Verb, act


def lost(path: Path) -> None:
    path.unlink()


def damaged(path: Path) -> None:
    path.write_bytes(b"not a database at all" * 100)


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5000])


def unreadable_rows(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE inventory SET spec = '{}'")


LOSSES = [lost, damaged, truncated, unreadable_rows]


async def shuffled(scene: Scene) -> dict[str, int]:
    """Have three slots on ports that nobody would give them today."""
    scene.declare(slots("x", "y", "z"))
    await scene.until(lambda: set(scene.states().values()) == {SlotState.READY})
    scene.declare(slots("a", "x", "y", "z"))
    await scene.until(lambda: set(scene.states().values()) == {SlotState.READY})
    return {name: scene.slot(name).spec.port for name in scene.states()}


@pytest.mark.parametrize("loss", LOSSES)
async def test_no_slot_is_touched_where_the_store_is_gone(
    scene: Scene, loss: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    ports = await shuffled(scene)
    assert ports == {"a": 8084, "x": 8081, "y": 8082, "z": 8083}
    scene.runtime.calls.clear()
    scene.store.close()
    loss(scene.store.path)
    scene.restart()
    await scene.pass_(60)
    assert scene.runtime.calls == []
    assert {name: scene.slot(name).spec.port for name in scene.states()} == ports
    assert scene.states() == dict.fromkeys(ports, SlotState.READY)
    assert {name: spec.port for name, spec in scene.store.specs.items()} == ports
    assert "the store knows nothing of a, x, y, z: ports are read back from the host" in caplog.text
    moved = [(move.before, move.after) for move in scene.store.ledger.transitions("a")]
    assert "error" not in {after for _, after in moved}


async def test_a_definition_that_cant_be_seen_yet_is_waited_for(scene: Scene) -> None:
    ports = await shuffled(scene)
    scene.runtime.calls.clear()
    scene.store.close()
    lost(scene.store.path)
    scene.restart()
    scene.runtime.hidden = "the disk does not answer"
    await scene.pass_(60)
    assert scene.runtime.calls == []
    scene.runtime.hidden = ""
    await scene.pass_(60)
    assert scene.runtime.calls == []
    assert {name: spec.port for name, spec in scene.store.specs.items()} == ports


async def test_a_slot_whose_manifest_states_another_port_now_serves_on_where_it_listens(scene: Scene) -> None:
    await shuffled(scene)
    scene.store.close()
    lost(scene.store.path)
    scene.restart()
    scene.declare(MODEL, slot("a", port=8090), slot("x"), slot("y"), slot("z"))
    scene.runtime.calls.clear()
    await scene.pass_(60)
    assert (scene.runtime.calls, scene.slot("a").serves.port, scene.slot("a").spec.port) == ([], 8084, 8090)
    reset(scene, "a")
    await scene.pass_(60)
    assert {call.split()[-1] for call in scene.runtime.calls if call.startswith(("stop", "start"))} == {"a"}
    assert scene.slot("a").serves.port == 8090


# What ran for a reason that the store alone knew.


RUN_UP = Override("chat", Aspect.RUN, UP, "eve", 0.0)
BIG = Override("chat", Aspect.MODEL, "big", "eve", 0.0)
HOLD = "hold: as declared -> as found when the store was lost (by hal0)"
REASONS = [("never", (RUN_UP,)), ("never", (RUN_UP, BIG)), ("always", (BIG,)), ("on-demand", (RUN_UP, BIG))]
READY, OFFLINE = SlotState.READY, SlotState.OFFLINE


def manifests(run: str, **settings: object) -> dict[str, str]:
    big = {"big.yaml": "kind: Model\nname: big\npath: big.gguf\n"}
    return MODEL | big | slot("chat", run=run, **settings)


def reset(scene: Scene, name: str) -> None:
    scene.store.overrides.change(drop=[(name, aspect) for aspect in Aspect])
    scene.look(MANIFESTS)


async def loaded(scene: Scene, run: str, *asked: Override) -> str:
    """Have a slot run for what was asked of it by hand, and return which run it is."""
    (scene.folder / "models" / "big.gguf").touch()
    scene.declare(manifests(run))
    scene.store.overrides.change(put=asked)
    await scene.until(lambda: scene.states() == {"chat": READY})
    scene.runtime.calls.clear()
    return scene.slot("chat").run


async def begun_anew(scene: Scene, loss: Callable[[Path], None] = lost) -> None:
    """Have a new hal0 begin without what the old one remembered."""
    scene.store.close()
    loss(scene.store.path)
    scene.restart()
    await scene.pass_(60)


async def held(scene: Scene, run: str = "never", *asked: Override) -> str:
    """Have a slot be held that runs; without anything that was asked of it: that it is loaded."""
    found = await loaded(scene, run, *(asked or (RUN_UP,)))
    await begun_anew(scene)
    assert said(scene) == [HOLD]
    return found


def said(scene: Scene) -> list[str]:
    return [str(found) for found in scene.slot("chat").overrides]


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize(("run", "asked"), REASONS)
async def test_a_slot_that_runs_for_what_was_asked_by_hand_is_left_as_it_is(
    scene: Scene, loss: Callable[[Path], None], run: str, asked: tuple[Override, ...]
) -> None:
    engine = await loaded(scene, run, *asked)
    await begun_anew(scene, loss)
    await scene.pass_(600)
    assert (scene.runtime.calls, scene.slot("chat").run) == ([], engine)
    assert scene.slot("chat").is_ready
    assert scene.slot("chat").may_answer


@pytest.mark.parametrize(("run", "asked"), REASONS)
async def test_what_is_held_is_named_until_it_is_reset(
    scene: Scene, run: str, asked: tuple[Override, ...], caplog: pytest.LogCaptureFixture
) -> None:
    await held(scene, run, *asked)
    assert "slot chat runs, and the store that knew why is lost: it is left as it is" in caplog.text
    assert scene.slot("chat").condition(ConditionType.SYNCED).message == HOLD
    assert scene.slot("chat").verdict.why == "as found when the store was lost"
    found = await scene.plan()
    assert (found.changes, [str(each) for each in found.overrides]) == ((), [HOLD])
    scene.restart()
    await scene.pass_(60)
    assert (scene.runtime.calls, said(scene)) == ([], [HOLD])
    reset(scene, "chat")
    await scene.pass_(60)
    assert said(scene) == []
    assert scene.states() == {"chat": READY if run == "always" else OFFLINE}
    assert [call for call in scene.runtime.calls if call.startswith("stop")] == ["stop chat"]


@pytest.mark.parametrize("change", [{"run": "on-demand"}, {"run": "never", "context_size": 99}])
async def test_a_hold_ends_when_the_manifest_asks_for_something_else(scene: Scene, change: dict[str, str]) -> None:
    await held(scene)
    scene.declare(manifests("never", aliases=["talk"]))
    await scene.pass_(60)
    assert said(scene) == [HOLD]
    scene.declare(manifests(**change))
    await scene.pass_(60)
    assert said(scene) == []


async def test_a_hold_stays_while_the_manifest_has_errors(scene: Scene) -> None:
    await loaded(scene, "always")
    scene.declare(manifests("always", port=8090))
    await begun_anew(scene)
    scene.declare(manifests("always", port=8090, prot=8091))
    await scene.pass_(60)
    assert (scene.runtime.calls, said(scene)) == ([], [HOLD])


async def test_a_hold_ends_with_what_it_holds(scene: Scene) -> None:
    await held(scene, "always", BIG)
    scene.host.die("chat")
    scene.look("chat")
    await scene.until(lambda: scene.states() == {"chat": READY})
    assert (said(scene), scene.slot("chat").serves.model) == ([], "m")


@pytest.mark.parametrize("what", ["blind", "hidden", "mute"])
@pytest.mark.parametrize("killed", [True, False])
@pytest.mark.parametrize(("run", "asked"), REASONS)
async def test_what_cant_be_seen_at_first_is_not_touched_and_held_later(
    scene: Scene, run: str, asked: tuple[Override, ...], what: str, *, killed: bool
) -> None:
    await loaded(scene, run, *asked)
    scene.store.close()
    lost(scene.store.path)
    scene.restart()
    setattr(scene.runtime, what, "nobody answers")
    await scene.pass_(60)
    assert scene.runtime.calls == []
    setattr(scene.runtime, what, "")
    if killed:
        scene.restart()
    await scene.pass_(60)
    assert (scene.runtime.calls, said(scene)) == ([], [HOLD])


async def test_a_container_of_another_spec_than_its_definition_is_held_once_it_is_seen(scene: Scene) -> None:
    await loaded(scene, "always")
    scene.host.instances["chat"] = replace(scene.host.instances["chat"], command=("podman", "run"), spec_hash="old")
    scene.store.close()
    lost(scene.store.path)
    scene.restart()
    scene.runtime.mute = "podman does not answer"
    await scene.pass_(60)
    scene.runtime.mute = ""
    await scene.pass_(60)
    assert (scene.runtime.calls, said(scene)) == ([], [HOLD])


async def test_what_no_manifest_declares_is_pruned_as_ever(scene: Scene) -> None:
    await loaded(scene, "never", RUN_UP)
    scene.declare(manifests("never"), slot("a"), slot("b"))
    await scene.until(lambda: len(scene.states()) == 3)
    scene.declare(MODEL, slot("a"), slot("b"))
    await begun_anew(scene)
    assert sorted(scene.states()) == ["a", "b"]
    assert scene.store.overrides.rows == ()


async def test_a_look_that_only_reads_tells_what_is_held_and_writes_nothing(scene: Scene) -> None:
    await loaded(scene, "never", RUN_UP)
    scene.store.close()
    lost(scene.store.path)
    scene.store = Store(scene.store.path, read_only=True)
    scene.reconciler = scene.make()
    found = await scene.plan()
    assert (found.changes, [str(each) for each in found.overrides]) == ((), [HOLD])
    assert not scene.store.path.exists()


async def test_whoever_says_what_should_run_ends_the_hold(scene: Scene) -> None:
    await held(scene)
    await asked_for(scene, ActRequest("chat", Verb.UNLOAD, "eve"))
    assert (said(scene), scene.states()) == ([], {"chat": OFFLINE})


async def test_a_load_of_a_model_replaces_what_is_held(scene: Scene) -> None:
    await held(scene)
    await asked_for(scene, ActRequest("chat", Verb.LOAD, "eve", model="big"))
    assert said(scene) == ["model: m -> big (by eve)", "run: never -> up (by eve)"]
    assert scene.slot("chat").serves.model == "big"


async def test_a_load_without_a_model_leaves_what_is_held(scene: Scene) -> None:
    await held(scene, "never", RUN_UP, BIG)
    await asked_for(scene, ActRequest("chat", Verb.LOAD, "eve"))
    assert (scene.runtime.calls, said(scene)) == ([], [HOLD, "run: never -> up (by eve)"])


async def test_what_is_held_is_not_restarted_since_nobody_knows_from_what(scene: Scene) -> None:
    await held(scene, "always", BIG)
    with pytest.raises(Conflict, match="nobody knows from what"):
        await asked_for(scene, ActRequest("chat", Verb.RESTART, "eve"))
    assert (scene.runtime.calls, said(scene)) == ([], [HOLD])


async def asked_for(scene: Scene, request: ActRequest) -> None:
    async with asyncio.timeout(10):
        events = aiter(act(scene.reconciler, request))
        await anext(events)
        async with scene.driven(flowing=True):
            assert [event async for event in events][-1]["converged"] is True
