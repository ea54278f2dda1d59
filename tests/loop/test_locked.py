"""A host whose manifests have a lock beside them."""

from __future__ import annotations

import hashlib

import pytest
from scenes import MODEL, Scene, slot, slots

from hal0.cli.show import status_text
from hal0.core.conditions import ConditionType
from hal0.core.lock import LOCK_NAME, lock_text
from hal0.core.pins import FilePin, ImagePin, Lock, ModelPin
from hal0.core.state import SlotState
from hal0.errors import StepFailed
from hal0.loop.locked import NotLocked
from hal0.loop.operations import ApplyRequest, apply, overview, preview
from hal0.loop.reconcile import Leave

IMAGE = "ggml-org/llama.cpp:server"
REPO = "ggml-org/llama.cpp"
MEND = "put the file there that was locked, or hal0 lock --upgrade m"
OLD, NEW = f"sha256:{'0' * 64}", f"sha256:{'1' * 64}"
EMPTY = hashlib.sha256(b"").hexdigest()
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


# --locked.


def note(scene: Scene, sha256: str) -> None:
    """Have the model's file hashed."""
    path = scene.folder / "models" / "m.gguf"
    seen = path.stat()
    scene.store.digests.note(str(path), seen.st_size, seen.st_mtime_ns, sha256)


def both(sha256: str = EMPTY, image: ImagePin = ImagePin(OLD), source: str = "") -> dict[str, str]:  # noqa: B008
    pin = ModelPin(source, (FilePin("m.gguf", sha256, 0),))
    return {LOCK_NAME: lock_text(Lock({"m": pin}, {IMAGE: image}))}


async def refused(scene: Scene, limit: frozenset[str] | None = None) -> list[str]:
    """Return what an apply of what is locked refuses; empty where it refuses nothing."""
    calls = [call for call in scene.runtime.calls if not call.startswith("pin_of")]
    request = ApplyRequest(limit, timeout=0, locked=True)
    try:
        events = [event async for event in apply(scene.reconciler, request)]
    except NotLocked as error:
        found = error
    else:
        return [event["event"] for event in events if event["event"] not in {"plan", "step", "state", "recap"}]
    assert (scene.runtime.calls, scene.host.files, found.hint) == (calls, {}, "hal0 lock")
    with pytest.raises(NotLocked):
        await preview(scene.reconciler, Leave(limit), locked=True)
    return [str(fault) for fault in found.faults]


async def test_what_is_locked_and_hashed_is_applied(scene: Scene) -> None:
    scene.declare(slots("chat"), both())
    note(scene, EMPTY)
    assert await refused(scene) == []
    await scene.pass_(60)
    assert scene.states() == {"chat": SlotState.READY}


@pytest.mark.parametrize(
    ("lock", "faults"),
    [
        ({}, ["model m: it is not locked", f"image {IMAGE}: it is not locked"]),
        (pinned(), ["model m: it is not locked"]),
        (model(EMPTY, 0), [f"image {IMAGE}: it is not locked"]),
        (both(source="org/repo/x@main"), ["model m: it was locked as org/repo/x@main"]),
        (
            both(image=ImagePin(id="f" * 64)),
            [f"image {IMAGE}: it is not here as it was locked: build it as it was, or hal0 lock --upgrade {IMAGE}"],
        ),
        (
            both("9" * 64),
            [f"model m: it is not here as it was locked: {MEND}"],
        ),
    ],
)
async def test_locked_refuses_before_anything_is_done_and_names_each(
    scene: Scene, lock: dict[str, str], faults: list[str]
) -> None:
    scene.declare(slots("chat", "twin"), lock)
    note(scene, EMPTY)
    assert await refused(scene) == faults


async def test_a_file_that_nobody_has_hashed_is_not_known_to_be_the_locked_one(scene: Scene) -> None:
    scene.declare(slots("chat"), both())
    assert await refused(scene) == ["model m: nobody has hashed its file: hal0 model verify m"]


async def test_what_is_not_here_and_will_be_fetched_as_it_was_locked_is_no_fault(scene: Scene) -> None:
    (scene.folder / "models" / "m.gguf").unlink()
    pin = ModelPin("org/repo/big.gguf@main", (FilePin("m.gguf", SUM, 100),), "c0ffee")
    scene.declare(slots("chat") | HUB, {LOCK_NAME: lock_text(Lock({"m": pin}, {IMAGE: ImagePin(OLD)}))})
    assert await refused(scene) == []
    await scene.pass_(60)
    assert scene.states() == {"chat": SlotState.READY}
    assert [source.revision for source in scene.fetcher.sources] == ["c0ffee"]


async def test_locked_judges_the_slots_of_its_limit_alone(scene: Scene) -> None:
    own = {"own.yaml": "kind: Profile\nname: own\nimage: localhost/own:1\n"}
    scene.declare(slots("chat"), slot("other", profile="own"), own, both())
    note(scene, EMPTY)
    assert await refused(scene) == ["image localhost/own:1: it is not locked"]
    assert await refused(scene, frozenset({"chat"})) == []


async def test_an_image_that_names_its_digest_is_locked_by_that(scene: Scene) -> None:
    own = {"own.yaml": f"kind: Profile\nname: own\nimage: x/y@{NEW}\n"}
    scene.declare(slots(), slot("chat", profile="own") | MODEL, own, both())
    note(scene, EMPTY)
    assert await refused(scene) == []


async def test_a_repository_that_names_its_commit_is_locked_by_that(scene: Scene) -> None:
    own = {"own.yaml": "kind: Profile\nname: own\nengine: vllm\nimage: x/y@" + NEW + "\n"}
    text = "kind: Model\nname: w\nfetch: manual\nsource: {repo: org/w, revision: " + "c0" * 20 + "}\n"
    served = {"chat.yaml": "kind: Slot\nname: chat\nmodel: w\nprofile: own\n"}
    scene.declare(served, {"w.yaml": text}, own)
    assert await refused(scene) == []
    scene.declare({"w.yaml": text.replace("c0" * 20, "main")}, served, own)
    assert await refused(scene) == ["model w: it is not locked"]


async def test_without_locked_what_has_no_pin_is_applied(scene: Scene) -> None:
    scene.declare(slots("chat"))
    events = [event async for event in apply(scene.reconciler, ApplyRequest(timeout=0))]
    assert events[0]["event"] == "plan"


# What status says.


async def test_a_slot_that_runs_something_older_than_the_lock_is_named(scene: Scene) -> None:
    scene.declare(slots("chat", "other"), both())
    note(scene, EMPTY)
    await scene.pass_(60)
    assert scene.slot("chat").behind_lock == ()
    scene.runtime.faults[f"pull {REPO}@{NEW}"] = StepFailed("no route to the registry")
    scene.declare(slots("chat", "other"), both(image=ImagePin(NEW)))
    await scene.pass_(60)
    told = f"image: {OLD[:19]} -> {NEW[:19]} (lock)"
    assert scene.slot("chat").behind_lock == scene.slot("other").behind_lock == (told,)
    picture = overview(scene.reconciler)
    assert picture["slots"][0]["behind_lock"] == [told]
    assert f"  chat runs something older: {told}" in [*status_text(picture)]
    scene.runtime.faults.clear()
    await scene.until(lambda: not (scene.slot("chat").behind_lock or scene.slot("other").behind_lock))
    assert "not as hal0.lock has it:" not in "\n".join(status_text(overview(scene.reconciler)))


async def test_a_suspended_slot_is_left_as_it_is_and_named(scene: Scene) -> None:
    scene.declare(slots("chat"), both())
    await scene.pass_(60)
    scene.declare(MODEL, slot("chat", suspend="true"), both(image=ImagePin(NEW)))
    await scene.pass_(60)
    assert scene.slot("chat").behind_lock == (f"image: {OLD[:19]} -> {NEW[:19]} (lock)",)


async def test_an_upgrade_that_was_rejected_is_told_and_is_not_as_locked(scene: Scene) -> None:
    scene.declare(slots("chat"), both())
    note(scene, EMPTY)
    await scene.pass_(120)
    scene.host.doomed.add(f"{REPO}@{NEW}")
    scene.declare(slots("chat"), both(image=ImagePin(NEW)))
    request = ApplyRequest(timeout=0, atomic=True)
    assert [event async for event in apply(scene.reconciler, request)]
    await scene.until(lambda: scene.slot("chat").rejected and scene.slot("chat").is_ready)
    assert scene.slot("chat").behind_lock == (f"image: {OLD[:19]} -> {NEW[:19]} (lock)",)
    with pytest.raises(NotLocked, match="slot chat keeps an older one"):
        await preview(scene.reconciler, Leave(), locked=True)


async def test_a_slot_that_is_down_runs_nothing_older(scene: Scene) -> None:
    scene.declare(slots("chat"), both())
    await scene.pass_(60)
    scene.declare(MODEL, slot("chat", run="never"), both())
    await scene.pass_(60)
    scene.declare(MODEL, slot("chat", run="never"), both(image=ImagePin(NEW)))
    await scene.pass_(60)
    assert scene.slot("chat").behind_lock == ()


async def test_void_pins_are_told_with_the_status(scene: Scene) -> None:
    scene.declare(slots("chat"), both(source="org/repo/x@main"))
    await scene.pass_(60)
    picture = overview(scene.reconciler)
    assert picture["stale_pins"] == ["model m: it was locked as org/repo/x@main"]
    assert "  void: model m: it was locked as org/repo/x@main (hal0 lock)" in [*status_text(picture)]


async def test_a_pin_that_is_void_is_as_none(scene: Scene) -> None:
    scene.declare(slots("chat"), model("8" * 64, 5, "org/repo/other.gguf@main"))
    await scene.pass_(60)
    assert scene.states() == {"chat": SlotState.READY}
    assert scene.reconciler.desired.slots["chat"].spec.model_pins == ()
