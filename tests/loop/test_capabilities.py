from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from scenes import MODEL, Scene, slot, slots

from hal0.cli.capabilities import switched_text
from hal0.core.edit import EditRefused
from hal0.core.facts import Known
from hal0.core.hardware import Gpu, GpuMemory, Vendor
from hal0.core.routes import Listing, routes
from hal0.core.state import SlotState
from hal0.errors import Conflict, NotFound, UsageError
from hal0.host.manifests import ManifestRoot
from hal0.loop import authoring, capabilities, profiles
from hal0.loop.acts import ActRequest, Verb, act
from hal0.loop.capabilities import Switch
from hal0.loop.operations import InvalidManifests

TOML = """\
# what we search with
kind = "Capability"
name = "embed"

embed = {model = "m", context_size = 512} # small
rerank = true   # both
"""
YAML = """\
# what we search with
kind: Capability
name: embed
embed: {model: m, context_size: 512} # small
rerank: true   # both
"""


@pytest.fixture
def root(scene: Scene) -> Path:
    """A manifest root on the disk, in the place of the scene's own."""
    folder = scene.folder / "manifests"
    folder.mkdir()
    scene.reconciler.source.root = ManifestRoot(folder)
    return folder


async def put(scene: Scene, root: Path, files: dict[str, str]) -> None:
    """Write manifests, and have the host follow."""
    for name, text in files.items():
        (root / name).write_text(text)
    await scene.make_pass()
    await scene.pass_(5)


async def done(scene: Scene, act: Awaitable[Any]) -> Any:
    """Carry out one act with the loop running."""
    async with asyncio.timeout(20), scene.driven():
        return await act


async def children(scene: Scene, catalogue: dict[str, Listing] | None = None) -> dict[str, Any]:
    found = await capabilities.capabilities(scene.reconciler, routes(scene.reconciler.snapshot, catalogue))
    assert [own["name"] for own in found["capabilities"]] == ["embed", "voice", "img", "vision"]
    return {child["name"]: child for own in found["capabilities"] for child in own["children"]}


async def enabled(scene: Scene, name: str, *names: str, **keys: str) -> Any:
    return await done(scene, capabilities.enable(scene.reconciler, Switch(name, names, **keys, who="eve")))


async def disabled(scene: Scene, name: str, *names: str) -> Any:
    return await done(scene, capabilities.disable(scene.reconciler, Switch(name, names, who="eve")))


# Enable.


async def test_one_command_declares_slots_that_wait_for_their_models(scene: Scene, root: Path) -> None:
    await put(scene, root, MODEL)
    found = await enabled(scene, "embed")
    assert (root / "embed.toml").read_text() == 'kind = "Capability"\nname = "embed"\nembed = true\nrerank = true\n'
    assert found["changes"] == [
        {"key": "embed", "before": None, "after": True},
        {"key": "rerank", "before": None, "after": True},
    ]
    assert (found["file"], found["settled"], found["warning"]) == (str(root / "embed.toml"), True, "")
    assert found["slots"][0] == {
        "slot": "embed",
        "effect": {"when": "next-start", "message": "when it next starts"},
        "model": "nomic-embed-text-v1.5",
        "model_present": False,
        "size_bytes": None,
        "mend": "hal0 model pull nomic-embed-text-v1.5",
    }
    assert set(scene.host.files) == {"embed", "rerank"}
    assert scene.host.starts == {}
    assert scene.fetcher.begun == []


async def test_a_slot_that_should_be_up_and_lacks_its_model_is_not_waited_for(scene: Scene, root: Path) -> None:
    await put(scene, root, MODEL | {"e.yaml": "kind: Capability\nname: embed\nembed: {run: always}\nrerank: false\n"})
    found = await enabled(scene, "embed", "embed")
    assert found["settled"] is True
    assert "ModelMissing" in found["slots"][0]["effect"]["message"]
    assert found["slots"][0]["mend"] == "hal0 model pull nomic-embed-text-v1.5"


async def test_a_child_gets_the_model_and_the_device_that_are_said(scene: Scene, root: Path) -> None:
    await put(scene, root, MODEL)
    found = await enabled(scene, "embed", "embed", model="m", device="gpu-vulkan")
    text = (root / "embed.toml").read_text()
    assert text == 'kind = "Capability"\nname = "embed"\nembed = {model = "m", device = "gpu-vulkan"}\n'
    assert (found["slots"][0]["model_present"], found["slots"][0]["mend"]) == (True, "")
    assert scene.slot("embed").spec.device == "gpu-vulkan"


@pytest.fixture
def on_a_gpu(scene: Scene) -> Scene:
    memory = Known(GpuMemory(16 * 2**30, 0))
    radeon = Gpu(Vendor.AMD, "Radeon", "amdgpu", node="/dev/dri/renderD128", gid=44, memory=memory)
    scene.hardware.last = replace(scene.hardware.last, gpus=(radeon,))
    return scene


async def test_a_child_that_was_off_gets_the_best_device_that_it_has_a_profile_for(on_a_gpu: Scene, root: Path) -> None:
    await put(on_a_gpu, root, MODEL)
    found = await enabled(on_a_gpu, "voice")
    assert (root / "voice.toml").read_text().endswith('\nstt = {device = "gpu-vulkan"}\ntts = true\n')
    assert found["default"] == {"device": "gpu-vulkan", "why": "Radeon at /dev/dri/renderD128"}
    assert [on_a_gpu.slot(name).spec.device.value for name in ("stt", "tts")] == ["gpu-vulkan", "cpu"]
    assert list(switched_text(found))[1] == "  device gpu-vulkan: Radeon at /dev/dri/renderD128"


async def test_a_child_that_is_on_keeps_its_device(on_a_gpu: Scene, root: Path) -> None:
    await put(on_a_gpu, root, MODEL | {"e.yaml": "kind: Capability\nname: embed\nembed: true\nrerank: false\n"})
    found = await enabled(on_a_gpu, "embed", "embed", model="m")
    assert "embed: {model: m}\n" in (root / "e.yaml").read_text()
    assert not [line for line in switched_text(found) if "device" in line]
    found = await enabled(on_a_gpu, "embed", "rerank", device="cpu")
    assert "rerank: {device: cpu}\n" in (root / "e.yaml").read_text()
    assert found["default"] is None


@pytest.mark.parametrize(("file", "text"), [("e.toml", TOML), ("e.yaml", YAML)])
async def test_a_manifest_is_turned_off_and_on_again_and_the_rest_of_it_stays(
    scene: Scene, root: Path, file: str, text: str
) -> None:
    await put(scene, root, MODEL | {file: text})
    assert set(scene.host.files) == {"embed", "rerank"}
    found = await disabled(scene, "embed", "rerank")
    assert (root / file).read_text() == text.replace("true   # both", "false   # both")
    assert (set(scene.host.files), found["settled"]) == ({"embed"}, True)
    await enabled(scene, "embed", "rerank")
    assert (root / file).read_text() == text
    assert set(scene.host.files) == {"embed", "rerank"}


@pytest.mark.parametrize(("file", "text"), [("e.toml", TOML), ("e.yaml", YAML)])
async def test_another_model_leaves_a_childs_other_keys(scene: Scene, root: Path, file: str, text: str) -> None:
    await put(scene, root, MODEL | {"n.yaml": "kind: Model\nname: n\npath: m.gguf\n", file: text})
    await enabled(scene, "embed", "embed", model="n")
    after = text.replace('model = "m"', 'model = "n"').replace("model: m", "model: n")
    assert (root / file).read_text() == after
    assert (scene.slot("embed").spec.model, scene.slot("embed").spec.context_size) == ("n", 512)


async def test_what_is_on_already_is_left_as_it_is_written(scene: Scene, root: Path) -> None:
    await put(scene, root, MODEL | {"e.yaml": YAML})
    found = await enabled(scene, "embed")
    assert ((root / "e.yaml").read_text(), found["changes"]) == (YAML, [])
    assert [slot["model_present"] for slot in found["slots"]] == [True, False]


async def test_a_child_is_added_to_the_manifest_that_is_there(scene: Scene, root: Path) -> None:
    await put(scene, root, MODEL | {"e.toml": 'kind = "Capability"\nname = "embed"\nembed = true\n'})
    await enabled(scene, "embed", "rerank", model="m")
    assert (root / "e.toml").read_text().endswith('embed = true\nrerank = {model = "m"}\n')
    assert not (root / "embed.toml").exists()


async def test_a_block_is_not_rewritten_and_the_line_to_write_is_said(scene: Scene, root: Path) -> None:
    text = "kind: Capability\nname: embed\nembed:\n  # ours\n  model: m\n"
    await put(scene, root, MODEL | {"e.yaml": text})
    with pytest.raises(EditRefused) as caught:
        await disabled(scene, "embed", "embed")
    assert caught.value.hint == "make it embed: false, by hand"
    assert (root / "e.yaml").read_text() == text


async def test_what_does_not_fit_is_refused_before_anything_is_written(scene: Scene, root: Path) -> None:
    await put(scene, root, slots("embed") | {"voice.toml": "# an idea\n"})
    refusals: list[tuple[type[Exception], Switch, str]] = [
        (NotFound, Switch("embedd"), "'embedd' is no capability"),
        (UsageError, Switch("embed", ("stt",)), "'stt' is no part of capability embed"),
        (UsageError, Switch("embed", model="m"), "a model is for one of embed, rerank"),
        (InvalidManifests, Switch("embed", ("rerank",), model="lost"), "rerank.model: no Model 'lost'"),
        (InvalidManifests, Switch("embed", ("rerank",), device="gpu"), "rerank.device: 'gpu' is not one of"),
        (InvalidManifests, Switch("embed", ("embed",)), "Slot 'embed' is declared twice"),
        (InvalidManifests, Switch("vision", model="m"), "Model 'm' has no vision part"),
        (Conflict, Switch("voice"), "voice.toml is there already"),
    ]
    before = {file: file.read_text() for file in root.iterdir()}
    for kind, switch, message in refusals:
        with pytest.raises(kind, match=message):
            await capabilities.enable(scene.reconciler, switch)
    assert {file: file.read_text() for file in root.iterdir()} == before


async def test_a_manifest_that_is_wrong_is_to_be_mended_by_hand(scene: Scene, root: Path) -> None:
    await put(scene, root, MODEL | {"e.yaml": "kind: Capability\nname: embed\nembed: maybe\n"})
    for verb in (capabilities.enable, capabilities.disable):
        with pytest.raises(Conflict, match=r"e.yaml:3: embed: write true, false"):
            await verb(scene.reconciler, Switch("embed"))
    assert "write true, false" in (await children(scene))["embed"]["problem"]


async def test_what_was_wrong_with_a_child_and_still_is_refuses_it(scene: Scene, root: Path) -> None:
    text = "kind: Capability\nname: embed\nembed: {model: lost}\nrerank: false\n"
    await put(scene, root, MODEL | {"e.yaml": text})
    with pytest.raises(InvalidManifests, match=r"e.yaml:3: embed.model: no Model 'lost'"):
        await capabilities.enable(scene.reconciler, Switch("embed", ("embed",)))
    await enabled(scene, "embed", "rerank")
    await enabled(scene, "embed", "embed", model="m")
    assert set(scene.host.files) == {"embed", "rerank"}


# Disable.


async def test_a_whole_capability_is_turned_off_however_few_slots_there_are(scene: Scene, root: Path) -> None:
    await put(scene, root, MODEL | {"e.yaml": YAML})
    found = await disabled(scene, "embed")
    assert found["changes"][0] == {"key": "embed", "before": {"model": "m", "context_size": 512}, "after": False}
    assert (scene.host.files, scene.store.specs, scene.store.deletions) == ({}, {}, frozenset())
    again = await disabled(scene, "embed")
    assert (again["changes"], again["slots"], again["settled"]) == ([], [], True)


async def test_what_no_manifest_turns_on_is_off_already(scene: Scene, root: Path) -> None:
    await put(scene, root, slots("embed"))
    found = await disabled(scene, "embed")
    assert (found["file"], found["changes"]) == ("", [])
    assert set(scene.host.files) == {"embed"}


async def test_a_child_that_is_taken_out_of_its_manifest_is_pruned_as_any_slot(scene: Scene) -> None:
    both = {
        "e.yaml": "kind: Capability\nname: embed\nembed: {model: m, run: always}\nrerank: {model: m, run: always}\n"
    }
    scene.declare(MODEL | both, slot("chat"))
    await scene.until(lambda: set(scene.states().values()) == {SlotState.READY})
    scene.declare(
        MODEL | {"e.yaml": both["e.yaml"].replace("rerank: {model: m, run: always}", "rerank: false")}, slot("chat")
    )
    await scene.pass_(60)
    assert set(scene.host.files) == {"chat", "embed"}
    assert scene.host.starts == {"chat": 1, "embed": 1, "rerank": 1}


# A capability's slot is not edited as a slot.


async def test_a_capabilitys_slot_is_not_created_edited_or_deleted_as_a_slot(scene: Scene, root: Path) -> None:
    await put(scene, root, MODEL | {"e.yaml": YAML})
    acts = [
        authoring.create(scene.reconciler, "rerank", {"model": "m"}, who="eve"),
        authoring.edit(scene.reconciler, "rerank", {"model": "m"}, who="eve"),
        authoring.delete(scene.reconciler, "rerank", who="eve"),
    ]
    for each in acts:
        with pytest.raises(Conflict, match=f"declared by capability embed at {root}/e.yaml:5") as caught:
            await each
        assert "hal0 capability disable embed rerank" in caught.value.hint
    assert (root / "e.yaml").read_text() == YAML
    assert set(scene.host.files) == {"embed", "rerank"}


async def test_a_swap_is_written_into_the_childs_value(scene: Scene, root: Path) -> None:
    text = YAML.replace("context_size: 512", "run: always")
    await put(scene, root, MODEL | {"n.yaml": "kind: Model\nname: n\npath: m.gguf\n", "e.yaml": text})
    async with asyncio.timeout(20), scene.driven(flowing=True):
        events = [event async for event in act(scene.reconciler, ActRequest("embed", Verb.SWAP, model="n", who="eve"))]
    (swap,) = [event for event in events if event["event"] == "swap"]
    assert (swap["swapped"], swap["warning"]) == (True, "")
    assert (root / "e.yaml").read_text() == text.replace("model: m", "model: n")


async def test_the_origin_of_a_childs_flag_is_its_line(scene: Scene, root: Path) -> None:
    text = "kind: Capability\nname: embed\nembed:\n  model: m\n  context_size: 512\n  env: {LEVEL: high}\n"
    await put(scene, root, MODEL | {"e.yaml": text})
    found = await profiles.resolved(scene.reconciler, "embed")
    origins = {part["words"][0]: part["origin"] for part in found["parts"]}
    assert origins["--ctx-size"]["text"] == f"slot embed ({root}/e.yaml:5)"
    assert origins["--ctx-size"]["key"] == "embed.context_size"
    assert origins["--env=LEVEL=high"]["key"] == "embed.env.LEVEL"


# What serves it.


async def test_nothing_is_on_and_nothing_serves(scene: Scene) -> None:
    scene.declare(slots("chat"))
    await scene.settle()
    found = await children(scene)
    assert {name: (child["on"], child["served_by"]) for name, child in found.items()} == dict.fromkeys(
        ["embed", "rerank", "stt", "tts", "img", "vision"], (False, None)
    )
    assert found["stt"] == {
        "name": "stt",
        "on": False,
        "slot": "",
        "type": "transcription",
        "model": "whisper-base",
        "model_present": None,
        "size_bytes": None,
        "mend": "",
        "state": "",
        "served_by": None,
        "problem": "",
    }


async def test_a_child_that_is_on_is_served_by_its_slot(scene: Scene) -> None:
    scene.declare(MODEL | {"e.yaml": YAML})
    await scene.settle()
    found = await children(scene)
    assert (found["embed"]["slot"], found["embed"]["state"], found["embed"]["model_present"]) == (
        "embed",
        "offline",
        True,
    )
    assert found["embed"]["served_by"] == {"kind": "slot", "name": "embed", "model": "m"}
    assert (found["rerank"]["model_present"], found["rerank"]["mend"]) == (False, "hal0 model pull bge-reranker-v2-m3")


async def test_an_operators_own_slot_and_an_upstreams_model_serve_as_well(scene: Scene) -> None:
    upstream = {"up.yaml": "kind: Upstream\nname: cloud\nbase_url: https://api.example/v1\n"}
    scene.declare(slots("chat"), slot("mine", type="embedding"), upstream)
    await scene.settle()
    found = await children(scene, {"cloud": Listing(("bge-reranker-v2-m3", "nomic-embed-text-v1.5"))})
    assert found["embed"]["served_by"] == {"kind": "slot", "name": "mine", "model": "m"}
    assert found["rerank"]["served_by"] == {"kind": "upstream", "name": "cloud", "model": "bge-reranker-v2-m3"}
    assert found["embed"]["on"] is found["rerank"]["on"] is False


async def test_only_a_slot_whose_model_sees_serves_vision(scene: Scene) -> None:
    seeing = {"s.yaml": "kind: Model\nname: s\npath: m.gguf\nmmproj: m.gguf\n"}
    scene.declare(slots("a"), seeing, {"b.yaml": "kind: Slot\nname: b\nmodel: s\n"})
    await scene.settle()
    assert (await children(scene))["vision"]["served_by"] == {"kind": "slot", "name": "b", "model": "s"}


async def test_what_is_wrong_with_a_child_is_told(scene: Scene) -> None:
    scene.declare(MODEL | {"e.yaml": "kind: Capability\nname: embed\nembed: {model: mm}\nrerank: true\n"})
    await scene.settle()
    found = await children(scene)
    assert "e.yaml:3: embed.model: no Model 'mm'" in found["embed"]["problem"]
    assert (found["embed"]["on"], found["embed"]["state"], found["rerank"]["problem"]) == (True, "", "")
