"""``apply --atomic`` where there is memory for another engine: the old one never leaves for a spec that fails."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from fakes import SILENT
from scenes import MODEL, Scene, slot

from hal0.core.facts import Known
from hal0.core.observed import ProbeResult
from hal0.core.pools import RAM, Pool
from hal0.errors import StepFailed
from hal0.loop import operations
from hal0.loop.operations import ApplyRequest

NEXT, SPARE = "chat.next", 8099


@pytest.fixture
async def ready(scene: Scene) -> Scene:
    """A slot that is ready, on a host with memory for another engine."""
    with (scene.folder / "models" / "m.gguf").open("wb") as file:
        file.truncate(200 * 2**20)
    scene.hardware.table[RAM] = Known(Pool(RAM, 8 * 2**30, 0, stated=True))
    scene.declare(MODEL, slot("chat"))
    await scene.until(lambda: scene.slot("chat").is_settled)
    return scene


async def applied(scene: Scene) -> dict[str, Any]:
    """Edit the slot and apply that on trial; return the recap."""
    scene.declare(MODEL, slot("chat", args="[--new]"))
    async with asyncio.timeout(20):
        events = aiter(operations.apply(scene.reconciler, ApplyRequest(timeout=3600.0, who="eve", atomic=True)))
        await anext(events)
        async with scene.driven(flowing=True):
            told = [event async for event in events]
    recap: dict[str, Any] = told[-1]
    return recap


def fails(scene: Scene) -> None:
    scene.host.doomed.add(NEXT)


def hangs(scene: Scene) -> None:
    scene.prober.answers[NEXT] = ProbeResult.LOADING


def is_silent(scene: Scene) -> None:
    scene.completer.replies[SPARE] = SILENT


def has_no_image(scene: Scene) -> None:
    scene.runtime.faults[f"start {NEXT}"] = StepFailed("no such image")


async def test_a_spec_that_answers_beside_the_old_one_is_good(ready: Scene) -> None:
    recap = await applied(ready)
    assert recap["converged"] is True
    assert "--new" in ready.host.instances["chat"].command
    assert ready.store.trials.good["chat"].args == ("--new",)
    assert (ready.store.trials.open, ready.store.trials.rejections) == ({}, {})
    await ready.pass_(60)
    assert NEXT not in ready.host.files


@pytest.mark.parametrize("breaks", [fails, hangs, is_silent, has_no_image])
async def test_a_spec_that_fails_beside_the_old_one_is_rejected_and_the_old_one_never_leaves(
    ready: Scene, breaks: Any
) -> None:
    breaks(ready)
    recap = await applied(ready)
    assert (recap["converged"], recap["slots"]["chat"]["failed"]) == (False, 1)
    assert "rolled back" in recap["slots"]["chat"]["message"]
    (rejection,) = ready.store.trials.rejections.values()
    assert rejection.slot == "chat"
    assert ready.host.starts["chat"] == 1
    await ready.pass_(3600)
    assert ready.host.starts == {"chat": 1, NEXT: 1} or breaks is has_no_image
    assert NEXT not in ready.host.files
    assert ready.slot("chat").is_ready
    assert ready.store.ledger.applies(limit=1)[0].result == "rolled-back"
