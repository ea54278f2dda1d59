"""What a client is told of a slot for which there is no room."""

from __future__ import annotations

from plane import CHAT, Engine, awake, error_of, many_clients
from scenes import MODEL, Scene, slot

from hal0.core.state import SlotState

HOST = {"host.yaml": "kind: Host\npools: {ram: 10Gi}\n"}
GPU = {"device": "gpu-vulkan", "profile": "llama-server-cpu"}
PICTURES = {"model": "pictures", "prompt": "a cat"}


async def is_up(scene: Scene, name: str) -> None:
    await scene.until(lambda: scene.states()[name] is SlotState.READY)


async def test_a_slot_that_finds_no_room_is_refused_at_once_and_for_good(scene: Scene, engine: Engine) -> None:
    chat = slot("chat", port=engine.port, run="on-demand", claim="6Gi")
    scene.declare(MODEL, HOST, slot("kept", claim="6Gi"), chat)
    await is_up(scene, "kept")
    async with (
        many_clients(scene) as client,
        awake(scene),
        client.post(CHAT, json={"model": "chat", "messages": []}) as answer,
    ):
        assert answer.status == 503
        assert answer.headers["x-should-retry"] == "false"
        said = await answer.json()
    assert error_of(said) == ("overloaded_error", "slot.no_room")
    assert "of which kept 6.0 GiB (stated) are taken; chat claims 6.0 GiB" in said["error"]["message"]
    assert not engine.asked


async def test_a_refused_slot_leaves_its_requests_to_its_fallback(scene: Scene, engine: Engine) -> None:
    asked = slot("asked", run="on-demand", claim="6Gi", fallback="[chat]")
    scene.declare(MODEL, HOST, slot("chat", port=engine.port, claim="6Gi"), asked)
    await is_up(scene, "chat")
    async with (
        many_clients(scene) as client,
        awake(scene),
        client.post(CHAT, json={"model": "asked", "messages": []}) as answer,
    ):
        assert (answer.status, answer.headers["X-Hal0-Slot"]) == (200, "chat")


async def test_images_beside_an_llm_that_stays_are_refused_for_good(scene: Scene, engine: Engine) -> None:
    pictures = slot("pictures", port=engine.port, run="on-demand", type="image", **GPU)
    scene.declare(MODEL, slot("llm", **GPU), pictures)
    await is_up(scene, "llm")
    async with (
        many_clients(scene) as client,
        awake(scene),
        client.post("/v1/images/generations", json=PICTURES) as answer,
    ):
        assert (answer.status, answer.headers["x-should-retry"]) == (503, "false")
        assert error_of(await answer.json()) == ("overloaded_error", "gpu.image_mode")


async def test_images_beside_an_llm_that_is_in_use_may_be_asked_for_again(scene: Scene, engine: Engine) -> None:
    pictures = slot("pictures", port=engine.port, run="on-demand", type="image", load_wait="200ms", **GPU)
    scene.declare(MODEL, slot("llm", run="on-demand", **GPU), pictures)
    await scene.settle()
    scene.demand("llm")
    await is_up(scene, "llm")
    scene.reconciler.demands.serve("llm")
    async with (
        many_clients(scene) as client,
        awake(scene),
        client.post("/v1/images/generations", json=PICTURES) as answer,
    ):
        assert (answer.status, "x-should-retry" in answer.headers) == (503, False)
        assert 1 <= int(answer.headers["Retry-After"]) <= 60
        said = await answer.json()
    assert error_of(said) == ("overloaded_error", "gpu.image_mode")
    assert "slot llm has the GPU" in said["error"]["message"]
