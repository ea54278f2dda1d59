"""A slot's place taken over: shown, put aside, and then made what the manifest says."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from scenes import MODEL, Scene, slot

from hal0.core.observed import Activity
from hal0.core.state import SlotState
from hal0.errors import Conflict, HostUnreachable, NotFound, StepFailed
from hal0.loop.acts import ActRequest, Verb, act
from hal0.loop.adopt import adoption

THEIRS = "[Service]\nExecStart=\nExecStart=/bin/theirs --forever\n"


async def occupied(scene: Scene, **settings: object) -> Scene:
    """A slot whose drop-in somebody else wrote, and whose unit runs it."""
    scene.host.images["ggml-org/llama.cpp:server"] = "id"
    scene.host.write("chat", THEIRS)
    scene.host.reload()
    scene.host.start("chat")
    scene.declare(MODEL, slot("chat", port=8100, **settings))
    await scene.settle()
    return scene


async def adopted(scene: Scene, seen: str = "") -> list[Any]:
    scene.runtime.calls.clear()
    async with asyncio.timeout(10):
        events = aiter(act(scene.reconciler, ActRequest("chat", Verb.ADOPT, "eve", seen=seen)))
        told = [await anext(events)]
        async with scene.driven():
            return told + [event async for event in events]


async def test_what_is_replaced_and_by_what_is_shown_and_nothing_is_changed(scene: Scene) -> None:
    await occupied(scene)
    scene.runtime.calls.clear()
    found = await adoption(scene.reconciler, "chat")
    assert scene.runtime.calls == []
    assert found["why"].endswith("hal0 slot adopt chat, or move it away")
    assert "-ExecStart=/bin/theirs --forever\n" in found["diff"]
    assert "+[X-Hal0]\n" in found["diff"]
    assert found["container"] == "chat-1"


async def test_an_adopted_slot_is_as_declared_and_who_asked_is_known(scene: Scene) -> None:
    await occupied(scene)
    events = await adopted(scene, (await adoption(scene.reconciler, "chat"))["seen"])
    assert scene.runtime.calls[:2] == ["put_aside chat", "write chat"]
    assert events[-1]["converged"] is True
    assert scene.states() == {"chat": SlotState.READY}
    assert scene.host.instances["chat"].slot == "chat"
    assert [act.why for act in scene.reconciler.store.ledger.acts("chat") if act.action == "adopt"] == [
        "asked for by eve"
    ]


async def test_a_container_without_the_label_is_replaced(scene: Scene) -> None:
    scene.declare(MODEL, slot("chat", port=8100))
    await scene.settle()
    scene.host.instances["chat"] = replace(scene.host.instances["chat"], slot="", id="theirs")
    scene.look("chat")
    await scene.settle()
    found = await adoption(scene.reconciler, "chat")
    assert (found["container"], "container hal0-slot-chat" in found["why"]) == ("theirs", True)
    await adopted(scene, found["seen"])
    assert scene.host.instances["chat"].slot == "chat"


async def test_a_slot_on_demand_is_defined_and_left_down(scene: Scene) -> None:
    await occupied(scene, run="on-demand")
    await adopted(scene)
    assert scene.states() == {"chat": SlotState.OFFLINE}
    assert "[X-Hal0]" in scene.host.files["chat"]


async def test_what_was_not_shown_is_not_taken_over(scene: Scene) -> None:
    await occupied(scene)
    seen = (await adoption(scene.reconciler, "chat"))["seen"]
    scene.host.write("chat", THEIRS + "# another\n")
    with pytest.raises(Conflict, match="has changed since it was shown"):
        await adopted(scene, seen)
    assert scene.runtime.calls == []


async def test_only_what_is_declared_and_not_hal0s_is_adopted(scene: Scene) -> None:
    scene.declare(MODEL, slot("chat", port=8100))
    await scene.settle()
    with pytest.raises(Conflict, match="slot chat is hal0's already"):
        await adopted(scene)
    with pytest.raises(NotFound):
        await adoption(scene.reconciler, "caht")
    assert scene.runtime.calls == []


async def test_a_suspended_slot_is_left_as_it_is(scene: Scene) -> None:
    await occupied(scene, suspend="true")
    with pytest.raises(Conflict, match="suspended"):
        await adopted(scene)
    assert scene.runtime.calls == []


async def test_a_unit_in_the_templates_place_and_what_cant_be_seen_are_refused(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    await occupied(scene)
    theirs = scene.host._service

    def service(name: str) -> Any:
        found = theirs(name)
        return found and replace(found, fragment="/etc/systemd/system/hal0-slot@chat.service")

    monkeypatch.setattr(scene.host, "_service", service)
    with pytest.raises(Conflict, match="stands in for"):
        await adopted(scene)
    scene.runtime.blind = "systemd: no answer"
    with pytest.raises(HostUnreachable, match="systemd: no answer"):
        await adopted(scene)
    assert scene.runtime.calls == []


async def test_a_container_that_cant_be_seen_is_not_read_as_none(scene: Scene) -> None:
    await occupied(scene)
    scene.runtime.mute = "podman: no answer"
    with pytest.raises(HostUnreachable, match="its container can't be seen: podman: no answer"):
        await adoption(scene.reconciler, "chat")
    with pytest.raises(HostUnreachable):
        await adopted(scene)
    assert scene.runtime.calls == []


async def test_what_does_not_stop_is_not_adopted(scene: Scene) -> None:
    await occupied(scene)
    scene.runtime.faults["put_aside"] = StepFailed("it does not stop")
    with pytest.raises(StepFailed):
        await adopted(scene)
    assert scene.host.files["chat"] == THEIRS
    assert scene.host.activity["chat"] is Activity.ACTIVE
