from __future__ import annotations

import pytest
from scenes import MODEL, Scene, slot

from hal0.core.facts import known
from hal0.errors import HostUnreachable, StepFailed
from hal0.loop.removal import holdings, remove_slots


async def settled(scene: Scene, *names: str) -> Scene:
    scene.declare(MODEL, *(slot(name, port=8100 + number) for number, name in enumerate(names)))
    await scene.settle()
    return scene


async def test_every_slot_of_hal0_is_stopped_and_its_definition_removed(scene: Scene) -> None:
    await settled(scene, "chat", "embed")
    found = await holdings(scene.runtime)
    scene.runtime.calls.clear()
    gone = [path async for path in remove_slots(scene.runtime, found.own)]
    assert scene.runtime.calls == ["stop chat", "remove chat", "stop embed", "remove embed", "reload"]
    assert ["chat" in gone[0], "embed" in gone[1]] == [True, True]
    assert (await holdings(scene.runtime)).own == {}


async def test_what_others_put_under_hal0s_names_is_named_and_left(scene: Scene) -> None:
    await settled(scene, "chat", "mine")
    scene.host.write("mine", "[Service]\nExecStart=/bin/mine\n")
    found = await holdings(scene.runtime)
    assert list(found.own) == ["chat"]
    assert found.foreign["mine"].startswith("ForeignUnit: ")


async def test_an_edited_definition_still_bears_the_mark(scene: Scene) -> None:
    await settled(scene, "chat")
    definition = known((await scene.runtime.observe({}))["chat"].definition)
    assert definition
    scene.host.write("chat", "# edited\n" + definition.text)
    assert list((await holdings(scene.runtime)).own) == ["chat"]


@pytest.mark.parametrize("what", ["blind", "hidden"])
async def test_what_can_not_be_seen_has_nothing_removed(scene: Scene, what: str) -> None:
    await settled(scene, "chat")
    setattr(scene.runtime, what, "systemd: no answer")
    with pytest.raises(HostUnreachable, match="slot chat: unknown: systemd: no answer"):
        await holdings(scene.runtime)


async def test_a_slot_that_does_not_stop_ends_it_and_the_next_try_goes_on(scene: Scene) -> None:
    await settled(scene, "chat", "embed")
    scene.runtime.faults["stop embed"] = StepFailed("it does not stop")
    with pytest.raises(StepFailed):
        _ = [path async for path in remove_slots(scene.runtime, (await holdings(scene.runtime)).own)]
    scene.runtime.faults.clear()
    assert list((await holdings(scene.runtime)).own) == ["embed"]
