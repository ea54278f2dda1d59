"""The acts on models: list, show, pull, verify, remove."""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from headers import gguf
from scenes import MODEL, Scene, calm, slot

from hal0.core.state import SlotState
from hal0.errors import Conflict, NotFound, StepFailed, UsageError
from hal0.loop import models

BIG = {"big.yaml": "kind: Model\nname: big\naliases: [large]\nsource: {repo: org/repo, file: big.gguf}\n"}
MANUAL = {"big.yaml": BIG["big.yaml"] + "fetch: manual\n"}
EMPTY = hashlib.sha256(b"").hexdigest()


def put(scene: Scene, path: str, content: bytes = b"12345") -> Path:
    file = scene.folder / "models" / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    return file


async def listed(scene: Scene) -> dict[str, dict[str, Any]]:
    return {each["name"]: each for each in (await models.models(scene.reconciler))["models"]}


async def events(of: AsyncIterator[dict[str, Any]]) -> list[dict[str, Any]]:
    return [event async for event in of]


def using_big(name: str) -> dict[str, str]:
    return {file: text.replace("model: m", "model: big") for file, text in slot(name).items()}


# The list.


async def test_what_is_declared_and_what_is_found_are_listed(scene: Scene) -> None:
    put(scene, "Found-Q8_0.gguf", gguf())
    put(scene, "org/repo/big.gguf.part")
    scene.declare(MODEL, MANUAL, slot("chat"))
    await scene.settle()
    found = await listed(scene)
    said = {name: (each["declared"], each["state"], each["slots"]) for name, each in found.items()}
    assert said == {
        "big": (True, "partial", []),
        "m": (True, "present", ["chat"]),
        "found-q8_0": (False, "present", []),
    }
    assert found["big"]["source"] == {"repo": "org/repo", "file": "big.gguf", "revision": "main"}
    assert (found["big"]["partial_bytes"], found["big"]["fetch"], found["big"]["aliases"]) == (5, "manual", ["large"])
    assert found["found-q8_0"]["architecture"] == "llama"
    assert found["found-q8_0"]["manifest"] == {"kind": "Model", "name": "found-q8_0", "path": "Found-Q8_0.gguf"}
    assert found["m"]["unread"].endswith("it ends within its header")
    assert "chat_template" not in found["m"]


async def test_a_model_on_its_way_says_how_far_it_is(scene: Scene) -> None:
    scene.fetcher.go, scene.fetcher.block = asyncio.Semaphore(1), 10
    scene.declare(BIG, using_big("chat"))
    await scene.settle()
    big = (await listed(scene))["big"]
    assert big["state"] == "fetching"
    assert (big["transfer"]["done_bytes"], big["transfer"]["total_bytes"]) == (10, 100)


async def test_a_model_is_shown_by_any_of_its_names(scene: Scene) -> None:
    scene.declare(BIG)
    await scene.settle()
    shown = await models.model(scene.reconciler, "large")
    assert (shown["name"], shown["state"], shown["chat_template"]) == ("big", "missing", "")
    with pytest.raises(NotFound, match="there is no model 'bgi'") as caught:
        await models.model(scene.reconciler, "bgi")
    assert caught.value.hint == "did you mean 'big'?"


# Pulling.


async def test_a_pull_tells_how_far_it_is_and_has_the_slots_looked_at(scene: Scene) -> None:
    scene.declare(MANUAL, using_big("chat"))
    await scene.settle()
    assert scene.slot("chat").message.startswith("ModelMissing")
    found = await events(models.pull(scene.reconciler, "large"))
    assert [event["event"] for event in found] == ["begin", "transfer", "end"]
    assert found[1]["message"] == "fetching big: 100 of 100 B"
    assert found[2]["was_here"] is False
    await scene.until(lambda: scene.states() == {"chat": SlotState.READY}, within=1)
    assert [event["event"] for event in await events(models.pull(scene.reconciler, "big"))] == ["begin", "end"]
    assert len(scene.fetcher.begun) == 1


async def test_a_pull_joins_the_download_that_a_slot_waits_for(scene: Scene) -> None:
    scene.fetcher.go, scene.fetcher.block = asyncio.Semaphore(1), 50
    scene.declare(BIG, using_big("chat"))
    await scene.settle()
    pulling = asyncio.create_task(events(models.pull(scene.reconciler, "big")))
    await calm()
    scene.fetcher.go.release()
    assert (await pulling)[-1]["event"] == "end"
    assert len(scene.fetcher.begun) == 1


async def test_a_pull_goes_on_when_nobody_listens_any_more(scene: Scene) -> None:
    scene.fetcher.go = asyncio.Semaphore(0)
    scene.declare(MANUAL)
    await scene.settle()
    pulling = asyncio.create_task(events(models.pull(scene.reconciler, "big")))
    await calm()
    pulling.cancel()
    await calm()
    scene.fetcher.go.release()
    await calm()
    assert (scene.folder / "models/org/repo/big.gguf").exists()


async def test_a_pull_that_fails_says_why(scene: Scene) -> None:
    path = str(scene.folder / "models/org/repo/big.gguf")
    scene.fetcher.faults[path] = [StepFailed("ModelGated: it wants a token", hint="set HF_TOKEN")]
    scene.declare(MANUAL)
    await scene.settle()
    with pytest.raises(StepFailed, match="ModelGated") as caught:
        await events(models.pull(scene.reconciler, "big"))
    assert caught.value.hint == "set HF_TOKEN"
    await events(models.pull(scene.reconciler, "big"))


async def test_a_pull_of_what_is_taken_out_of_the_manifests_is_given_up(scene: Scene) -> None:
    scene.fetcher.go = asyncio.Semaphore(0)
    scene.declare(MODEL, MANUAL)
    await scene.settle()
    pulling = asyncio.create_task(events(models.pull(scene.reconciler, "big")))
    await calm()
    scene.declare(MODEL)
    await scene.settle()
    with pytest.raises(Conflict, match="download of big was given up"):
        await pulling


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [("m", UsageError, "nobody says where m comes from"), ("x", NotFound, "there is no model 'x'")],
)
async def test_what_can_not_be_pulled_is_told(scene: Scene, name: str, error: type[Exception], message: str) -> None:
    scene.declare(MODEL)
    await scene.settle()
    with pytest.raises(error, match=message):
        await events(models.pull(scene.reconciler, name))


# Verifying.


@pytest.mark.parametrize(("sha256", "right"), [("", None), (EMPTY, True), ("0a" * 32, False)])
async def test_a_hash_is_compared_and_remembered(scene: Scene, sha256: str, right: bool | None) -> None:
    scene.declare({"m.yaml": MODEL["model.yaml"] + (f"sha256: {sha256}\n" if sha256 else "")})
    await scene.settle()
    assert (await listed(scene))["m"]["verified"] is None
    end = (await events(models.verify(scene.reconciler, "m")))[-1]
    path = str(scene.folder / "models/m.gguf")
    assert (end["verified"], end["files"]) == (right, [{"path": path, "sha256": EMPTY}])
    found = (await listed(scene))["m"]
    assert (found["verified"], found["found_sha256"]) == (right, EMPTY)
    assert found["state"] == ("differs" if right is False else "present")
    put(scene, "m.gguf", b"another")
    assert (await listed(scene))["m"]["found_sha256"] is None


async def test_what_was_fetched_with_a_checksum_is_verified(scene: Scene) -> None:
    scene.declare({"big.yaml": BIG["big.yaml"] + f"sha256: {EMPTY}\n"})
    await scene.settle()
    await events(models.pull(scene.reconciler, "big"))
    assert (await listed(scene))["big"]["verified"] is True


async def test_every_file_of_a_model_is_hashed(scene: Scene) -> None:
    for name in ("a-00001-of-00002.gguf", "a-00002-of-00002.gguf"):
        put(scene, name)
    await scene.settle()
    found = await events(models.verify(scene.reconciler, "a"))
    assert [Path(file["path"]).name for file in found[-1]["files"]] == [
        "a-00001-of-00002.gguf",
        "a-00002-of-00002.gguf",
    ]
    assert {(event["done_bytes"], event["total_bytes"]) for event in found if event["event"] == "verify"} == {(5, 5)}


async def test_what_is_not_there_can_not_be_verified(scene: Scene) -> None:
    scene.declare(MANUAL)
    await scene.settle()
    with pytest.raises(UsageError, match=r"there is no .*big\.gguf"):
        await events(models.verify(scene.reconciler, "big"))


# Removing.


async def test_a_model_that_a_slot_has_stays(scene: Scene) -> None:
    scene.declare(MODEL, slot("chat"), slot("idle", run="never"))
    await scene.settle()
    with pytest.raises(Conflict, match="m is the model of chat, idle"):
        await models.remove(scene.reconciler, "m")
    assert (scene.folder / "models/m.gguf").exists()


async def test_a_model_that_still_runs_stays(scene: Scene) -> None:
    scene.declare(MODEL, slot("chat"))
    await scene.settle()
    other = {"model.yaml": "kind: Model\nname: m\npath: other.gguf\n"}
    scene.declare(other, slot("chat"))
    await scene.settle()
    assert scene.slot("chat").is_ready
    with pytest.raises(Conflict, match="m-2 is the model of chat"):
        await models.remove(scene.reconciler, "m-2")
    assert (scene.folder / "models/m.gguf").exists()


async def test_all_of_a_model_is_removed_but_for_its_vision_part(scene: Scene) -> None:
    parts = [put(scene, f"v/a-0000{number}-of-00002.gguf") for number in (1, 2)]
    vision = put(scene, "v/mmproj.gguf")
    half = put(scene, "v/a-00001-of-00002.gguf.part")
    await scene.settle()
    await events(models.verify(scene.reconciler, "a"))
    done = await models.remove(scene.reconciler, "a")
    assert (done["model"], done["freed_bytes"]) == ("a", 15)
    assert not any(path.exists() for path in (*parts, half))
    assert vision.exists()


async def test_a_download_is_given_up_before_its_half_is_removed(scene: Scene) -> None:
    scene.fetcher.go = asyncio.Semaphore(0)
    scene.declare(MANUAL)
    await scene.settle()
    pulling = asyncio.create_task(events(models.pull(scene.reconciler, "big")))
    await calm()
    half = put(scene, "org/repo/big.gguf.part")
    assert (await models.remove(scene.reconciler, "big"))["freed_bytes"] == 5
    assert not half.exists()
    with pytest.raises(Conflict, match="given up"):
        await pulling


async def test_a_model_that_another_process_fetches_is_not_removed(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "_LET_GO_S", 0.0)
    scene.declare(MANUAL)
    await scene.settle()
    there, half = put(scene, "org/repo/big.gguf"), put(scene, "org/repo/big.gguf.part")
    with half.open("rb") as theirs:
        fcntl.flock(theirs, fcntl.LOCK_EX)
        with pytest.raises(Conflict, match=r"big\.gguf is being fetched"):
            await models.remove(scene.reconciler, "big")
    assert (there.exists(), half.exists()) == (True, True)
    await models.remove(scene.reconciler, "big")
    assert (there.exists(), half.exists()) == (False, False)


async def test_a_pull_does_not_call_another_file_the_model(scene: Scene) -> None:
    scene.declare({"big.yaml": MANUAL["big.yaml"] + f"sha256: {'a' * 64}\n"})
    await scene.settle()
    put(scene, "org/repo/big.gguf")
    assert (await events(models.pull(scene.reconciler, "big")))[-1]["was_here"] is True  # nobody has hashed it
    await events(models.verify(scene.reconciler, "big"))
    with pytest.raises(Conflict, match="is not what its manifest says") as caught:
        await events(models.pull(scene.reconciler, "big"))
    assert "hal0 model rm big" in caught.value.hint


async def test_half_a_folder_is_removed_once_no_other_process_fills_it(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "_LET_GO_S", 0.0)
    scene.declare({"all.yaml": "kind: Model\nname: all\nfetch: manual\nsource: {repo: org/whole}\n"})
    await scene.settle()
    half = put(scene, "org/whole.part/config.json").parent
    descriptor = os.open(half, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    with pytest.raises(Conflict, match=r"org/whole is being fetched"):
        await models.remove(scene.reconciler, "all")
    assert half.exists()
    os.close(descriptor)
    assert (await models.remove(scene.reconciler, "all"))["freed_bytes"] == 5
    assert not half.exists()


# Further folders.


async def test_models_in_further_folders_are_found_and_stay_what_they_are(scene: Scene) -> None:
    far = scene.folder / "hf" / "snapshots"
    far.mkdir(parents=True)
    for name in ("seen.gguf", "told.gguf"):
        (far / name).write_bytes(gguf())
    told = {"told.yaml": f"kind: Model\nname: told\npath: {far}/told.gguf\n"}
    scene.declare(MODEL, told, {"host.yaml": f"kind: Host\nmodel_dirs: [{scene.folder}/hf/]\n"})
    await scene.settle()
    found = await listed(scene)
    assert {name: each["state"] for name, each in found.items()} == dict.fromkeys(("m", "seen", "told"), "present")
    assert found["seen"]["manifest"]["path"] == f"{far}/seen.gguf"
    assert (await models.models(scene.reconciler))["model_dirs"] == [f"{scene.folder}/hf"]
    for name in ("seen", "told"):
        with pytest.raises(Conflict, match=f"{name}.gguf is in {scene.folder}/hf, where hal0 writes nothing"):
            await models.remove(scene.reconciler, name)
        assert (far / f"{name}.gguf").exists()


async def test_half_a_file_and_what_is_known_of_it_go_with_their_model(scene: Scene) -> None:
    text = (
        "kind: Model\nname: cut\nmmproj: eye.gguf\nfetch: manual\nsource: {repo: o/r, file: cut-00001-of-00002.gguf}\n"
    )
    halves = [f"{name}.gguf.part{end}" for name in ("cut-00002-of-00002", "eye") for end in ("", ".json")]
    for name in ("cut-00001-of-00002.gguf", *halves, "other.gguf.part"):
        put(scene, f"o/r/{name}")
    scene.declare(MODEL, {"cut.yaml": text})
    await scene.settle()
    assert (await models.remove(scene.reconciler, "cut"))["freed_bytes"] == 15
    assert [path.name for path in (scene.folder / "models/o/r").iterdir()] == ["other.gguf.part"]
    put(scene, "o/r/eye.gguf.part")
    scene.declare(MODEL, {"cut.yaml": text, "too.yaml": text.replace("cut", "too")})
    await scene.settle()
    await models.remove(scene.reconciler, "cut")
    assert (scene.folder / "models/o/r/eye.gguf.part").exists()
