"""A host whose manifests have a lock beside them."""

from __future__ import annotations

import hashlib

import pytest
from scenes import Scene, slots

from hal0.core.conditions import ConditionType
from hal0.core.lock import LOCK_NAME, lock_text
from hal0.core.pins import FilePin, ImagePin, Lock, ModelPin
from hal0.core.state import SlotState

IMAGE = "ggml-org/llama.cpp:server"
REPO = "ggml-org/llama.cpp"
OLD, NEW = f"sha256:{'0' * 64}", f"sha256:{'1' * 64}"
SUM = hashlib.sha256(bytes(100)).hexdigest()
HUB = {"model.yaml": "kind: Model\nname: m\npath: m.gguf\nsource: {repo: org/repo, file: big.gguf}\n"}


def pinned(digest: str = OLD) -> dict[str, str]:
    return {LOCK_NAME: lock_text(Lock({}, {IMAGE: ImagePin(digest)}))}


def model(sha256: str, size: int | None, source: str = "", commit: str = "") -> dict[str, str]:
    return {LOCK_NAME: lock_text(Lock({"m": ModelPin(source, (FilePin("m.gguf", sha256, size),), commit)}))}


def reasons(scene: Scene, name: str = "chat") -> str:
    return scene.slot(name).condition(ConditionType.SYNCED).message


async def test_a_tag_that_moves_touches_no_slot(scene: Scene) -> None:
    scene.declare(slots("chat"), pinned())
    await scene.pass_(60)
    assert f"pull {REPO}@{OLD}" in scene.runtime.calls
    assert f"pull {IMAGE}" not in scene.runtime.calls
    starts = dict(scene.host.starts)
    scene.host.images[IMAGE] = "id-of-another"
    assert (await scene.plan()).is_empty
    await scene.pass_(600)
    assert scene.host.starts == starts


async def test_a_newer_lock_is_an_ordinary_update(scene: Scene) -> None:
    scene.declare(slots("chat"), pinned())
    await scene.pass_(60)
    scene.declare(slots("chat"), pinned(NEW))
    change = (await scene.plan()).change("chat")
    assert change
    assert str(change.reasons[0]) == f"image: {OLD[:19]} -> {NEW[:19]} (lock)"
    await scene.pass_(60)
    assert f"pull {REPO}@{NEW}" in scene.runtime.calls
    assert scene.states() == {"chat": SlotState.READY}
    assert (await scene.plan()).is_empty


async def test_a_broken_lock_leaves_slots_as_they_are_and_blocks_pruning(scene: Scene) -> None:
    scene.declare(slots("chat", "other"), pinned())
    await scene.pass_(60)
    starts, files = dict(scene.host.starts), dict(scene.host.files)
    scene.declare(slots("chat"), {LOCK_NAME: "<<<<<<< HEAD\n"})
    await scene.pass_(60)
    assert (scene.host.starts, scene.host.files) == (starts, files)
    assert [problem.file for problem in scene.reconciler.snapshot.problems] == ["/manifests/hal0.lock"]
    assert scene.slot("chat").condition(ConditionType.ACCEPTED).reason == "InvalidManifest"
    scene.declare(slots("chat"), pinned())
    await scene.pass_(60)
    assert scene.states() == {"chat": SlotState.READY}


async def test_a_lock_that_changes_is_read_though_no_manifest_did(scene: Scene) -> None:
    scene.declare(slots("chat"))
    await scene.pass_(60)
    before = scene.reconciler.desired
    scene.declare(slots("chat"), pinned())
    await scene.pass_(60)
    assert scene.reconciler.desired.generation == before.generation + 1
    assert scene.reconciler.desired.slots["chat"].spec.image == f"{REPO}@{OLD}"


async def test_an_image_that_was_built_here_and_is_gone_is_refused_and_what_runs_is_left_alone(scene: Scene) -> None:
    scene.host.images["e" * 64] = "e" * 64
    scene.declare(slots("chat"), {LOCK_NAME: lock_text(Lock({}, {IMAGE: ImagePin(id="e" * 64)}))})
    await scene.pass_(60)
    assert scene.states() == {"chat": SlotState.READY}
    del scene.host.images["e" * 64]
    await scene.pass_(60)
    assert (await scene.plan()).is_empty
    calls = len(scene.runtime.calls)
    scene.declare(slots("chat"), {LOCK_NAME: lock_text(Lock({}, {IMAGE: ImagePin(id="f" * 64)}))})
    await scene.pass_(60)
    assert not [call for call in scene.runtime.calls[calls:] if call.startswith(("pull", "stop"))]
    assert reasons(scene).startswith(f"ImageMissing: {IMAGE} is locked to the image ffffffffffff, which is not here")
    assert scene.slot("chat").condition(ConditionType.STALLED).reason == "ImageMissing"


async def test_a_file_of_another_size_than_the_locks_is_fetched_at_the_commit(scene: Scene) -> None:
    scene.declare(slots("chat") | HUB, model(SUM, 100, "org/repo/big.gguf@main", "c0ffee"))
    await scene.pass_(60)
    assert [source.revision for source in scene.fetcher.sources] == ["c0ffee"]
    assert (scene.folder / "models" / "m.gguf").stat().st_size == 100
    assert scene.states() == {"chat": SlotState.READY}
    assert (await scene.plan()).is_empty


async def test_a_newer_model_is_fetched_in_the_place_of_the_old_one_and_its_slot_is_replaced(scene: Scene) -> None:
    scene.declare(slots("chat") | HUB, model(SUM, 100, "org/repo/big.gguf@main", "c0ffee"))
    await scene.pass_(60)
    scene.fetcher.size = 50
    newer = hashlib.sha256(bytes(50)).hexdigest()
    scene.declare(slots("chat") | HUB, model(newer, 50, "org/repo/big.gguf@main", "beef"))
    change = (await scene.plan()).change("chat")
    assert change
    assert str(change.reasons[0]) == f"model: sha256:{SUM[:12]} -> sha256:{newer[:12]} (lock)"
    starts = sum(scene.host.starts.values())
    await scene.pass_(120)
    assert [source.revision for source in scene.fetcher.sources] == ["c0ffee", "beef"]
    assert scene.states() == {"chat": SlotState.READY}
    assert sum(scene.host.starts.values()) > starts
    assert (await scene.plan()).is_empty


async def test_a_file_with_another_known_sum_starts_nothing_that_was_put_there_by_hand(scene: Scene) -> None:
    path = scene.folder / "models" / "m.gguf"
    seen = path.stat()
    scene.store.digests.note(str(path), seen.st_size, seen.st_mtime_ns, "9" * 64)
    scene.declare(slots("chat"), model("8" * 64, 0))
    await scene.pass_(60)
    assert "start chat" not in scene.runtime.calls
    assert reasons(scene) == (
        f"ModelMissing: there is no file as the lock has it at {path} "
        "(put the file there that was locked, or hal0 lock --upgrade m)"
    )
    scene.store.digests.note(str(path), seen.st_size, seen.st_mtime_ns, "8" * 64)
    await scene.pass_(60)
    await scene.until(lambda: scene.states() == {"chat": SlotState.READY})


@pytest.mark.parametrize("size", [None, 0])
async def test_a_file_that_nobody_has_hashed_is_run(scene: Scene, size: int | None) -> None:
    scene.declare(slots("chat"), model("8" * 64, size))
    await scene.pass_(60)
    assert scene.states() == {"chat": SlotState.READY}


async def test_a_pin_that_is_void_is_as_none(scene: Scene) -> None:
    scene.declare(slots("chat"), model("8" * 64, 5, "org/repo/other.gguf@main"))
    await scene.pass_(60)
    assert scene.states() == {"chat": SlotState.READY}
    assert scene.reconciler.desired.slots["chat"].spec.model_pins == ()
