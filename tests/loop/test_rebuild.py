"""A store that is lost or damaged: what runs goes on, and hal0 knows again what it must."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from scenes import MODEL, Scene, slot, slots

from hal0.core.state import SlotState


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


async def test_a_port_that_is_stated_now_wins_over_the_one_found(scene: Scene) -> None:
    await shuffled(scene)
    scene.store.close()
    lost(scene.store.path)
    scene.restart()
    scene.declare(MODEL, slot("a", port=8090), slot("x"), slot("y"), slot("z"))
    scene.runtime.calls.clear()
    await scene.pass_(60)
    assert {call.split()[-1] for call in scene.runtime.calls if call.startswith(("stop", "start"))} == {"a"}
    assert scene.slot("a").spec.port == 8090
