"""hal0 lock: what is asked of the hub, of files and of podman, and what is written."""

from __future__ import annotations

import asyncio
import hashlib
import subprocess
from typing import Any

import pytest
from scenes import MODEL, Scene, calm, slot, slots

from hal0.core.lock import LOCK_NAME, parse_lock
from hal0.core.model import Version
from hal0.core.pins import FilePin, ImagePin, Lock, ModelPin
from hal0.core.state import SlotState
from hal0.errors import Conflict, NotFound, StepFailed, UsageError
from hal0.host.manifests import ManifestRoot
from hal0.host.ports import MANIFESTS
from hal0.loop.lock import LockRequest, lock, locked
from hal0.loop.operations import InvalidManifests

IMAGE = "ggml-org/llama.cpp:server"
OLD, NEW = f"sha256:{'0' * 64}", f"sha256:{'1' * 64}"
EMPTY = hashlib.sha256(b"").hexdigest()
HUB = {"hub.yaml": "kind: Model\nname: hub\nsource: {repo: org/repo, file: big.gguf}\n"}
SPLIT = {"hub.yaml": "kind: Model\nname: hub\nsource: {repo: o/r, file: x-00001-of-00002.gguf}\nmmproj: eye.gguf\n"}
FAR = {"far.yaml": "kind: Model\nname: far\nsource: {url: 'https://x.example/far.gguf'}\n"}
UPGRADE = LockRequest(upgrade=True)


class Root:
    """A real folder of manifests."""

    def __init__(self, scene: Scene, *files: dict[str, str]) -> None:
        self.scene = scene
        self.path = scene.folder / "root"
        self.path.mkdir()
        scene.reconciler.source.root = ManifestRoot(self.path)
        scene.host.images[IMAGE], scene.host.digests[IMAGE] = "one", OLD
        self.put(*files)

    def put(self, *files: dict[str, str]) -> None:
        for part in files:
            for name, text in part.items():
                (self.path / name).write_text(text)
        self.scene.reconciler.queue.add(MANIFESTS)

    def git(self, *words: str) -> str:
        who = ("-c", "user.name=t", "-c", "user.email=t@t", "-c", "commit.gpgsign=false")
        return subprocess.run(["git", "-C", self.path, *who, *words], check=True, capture_output=True, text=True).stdout

    @property
    def text(self) -> str | None:
        path = self.path / LOCK_NAME
        return path.read_text() if path.exists() else None

    @property
    def lock(self) -> Lock:
        found = parse_lock(LOCK_NAME, self.text or "")
        assert isinstance(found, Lock)
        return found

    async def locked(self, request: LockRequest = LockRequest()) -> dict[str, Any]:  # noqa: B008  (a frozen value)
        return (await self.events(request))[-1]

    async def events(self, request: LockRequest = LockRequest()) -> list[dict[str, Any]]:  # noqa: B008
        return [event async for event in lock(self.scene.reconciler, request)]


def changed(end: dict[str, Any]) -> list[tuple[str, str | None, str | None]]:
    return [(change["name"], change["before"], change["after"]) for change in end["changes"]]


async def test_files_that_are_here_and_images_are_locked_as_they_are(scene: Scene) -> None:
    root = Root(scene, slots("chat"))
    end = await root.locked()
    assert root.lock == Lock({"m": ModelPin("", (FilePin("m.gguf", EMPTY, 0),))}, {IMAGE: ImagePin(OLD)})
    assert changed(end) == [("m", None, f"sha256:{EMPTY[:12]}"), (IMAGE, None, OLD[:19])]
    assert (end["written"], end["open"], end["models"], end["images"]) == (True, [], 1, 1)
    assert "pull" not in " ".join(scene.runtime.calls)


async def test_what_is_locked_is_asked_nothing_about_and_the_file_stays(scene: Scene) -> None:
    root = Root(scene, slots("chat"))
    await root.locked()
    text = root.text
    scene.host.digests[IMAGE] = NEW
    scene.runtime.calls.clear()
    end = await root.locked()
    assert (end["changes"], end["written"], root.text) == ([], False, text)
    assert scene.runtime.calls == []


async def test_the_daemon_takes_the_lock_up_and_an_upgrade_is_an_update(scene: Scene) -> None:
    root = Root(scene, slots("chat"))
    await scene.pass_(60)
    await root.locked()
    await scene.pass_(120)
    assert scene.reconciler.desired.slots["chat"].spec.image == f"ggml-org/llama.cpp@{OLD}"
    scene.host.digests[IMAGE] = NEW
    end = await root.locked(UPGRADE)
    assert f"pull {IMAGE}" in scene.runtime.calls
    assert changed(end) == [(IMAGE, OLD[:19], NEW[:19])]
    change = (await scene.plan()).change("chat")
    assert change
    assert str(change.reasons[0]) == f"image: {OLD[:19]} -> {NEW[:19]} (lock)"
    await scene.until(lambda: scene.reconciler.desired.slots["chat"].spec.image.endswith(NEW))
    await scene.until(lambda: scene.states() == {"chat": SlotState.READY})
    assert (await scene.plan()).is_empty


async def test_a_hubs_model_is_locked_at_its_commit_without_being_fetched(scene: Scene) -> None:
    root = Root(scene, slots("chat"), HUB)
    scene.fetcher.versions["big.gguf"] = Version("c0ffee", "a" * 64, 5)
    await root.locked()
    assert root.lock.models["hub"] == ModelPin("org/repo/big.gguf@main", (FilePin("big.gguf", "a" * 64, 5),), "c0ffee")
    assert scene.fetcher.begun == []


async def test_all_files_of_a_model_are_looked_up_at_one_commit(scene: Scene) -> None:
    root = Root(scene, SPLIT)
    for at, name in enumerate(("x-00001-of-00002.gguf", "x-00002-of-00002.gguf", "eye.gguf")):
        scene.fetcher.versions[name] = Version("c0ffee" if not at else "beef", str(at) * 64, at)
    await root.locked()
    assert [source.revision for source in scene.fetcher.looked] == ["main", "c0ffee", "c0ffee"]
    pin = root.lock.models["hub"]
    assert (pin.commit, [file.size for file in pin.files]) == ("c0ffee", [0, 1, 2])


async def test_a_file_here_that_is_not_the_hubs_is_told_and_is_known_to_differ(scene: Scene) -> None:
    root = Root(scene, HUB)
    path = scene.folder / "models" / "org" / "repo" / "big.gguf"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"old")
    scene.fetcher.versions["big.gguf"] = Version("c0ffee", "a" * 64, 3)
    events = await root.events()
    assert [event["event"] for event in events][:2] == ["begin", "look"]
    assert events[-1]["changes"][0]["is_other"] is True
    seen = path.stat()
    assert scene.store.digests.of(str(path), 3, seen.st_mtime_ns) == hashlib.sha256(b"old").hexdigest()


async def test_an_upgrade_asks_the_branch_anew_and_not_the_locked_commit(scene: Scene) -> None:
    root = Root(scene, HUB)
    scene.fetcher.versions["big.gguf"] = Version("c0ffee", "a" * 64, 5)
    await root.locked()
    scene.fetcher.versions["big.gguf"] = Version("beef", "b" * 64, 6)
    assert (await root.locked())["changes"] == []
    end = await root.locked(LockRequest(upgrade=True, names=("hub",)))
    assert [source.revision for source in scene.fetcher.looked] == ["main", "main"]
    assert changed(end) == [("hub", "sha256:aaaaaaaaaaaa (commit c0ffee)", "sha256:bbbbbbbbbbbb (commit beef)")]


@pytest.mark.parametrize(
    ("names", "asked"),
    [(("hub",), ["hub"]), (("chat",), [IMAGE, "m"]), ((IMAGE,), [IMAGE]), (("chat", "hub"), [IMAGE, "hub", "m"])],
)
async def test_names_are_models_images_and_slots(scene: Scene, names: tuple[str, ...], asked: list[str]) -> None:
    root = Root(scene, slots("chat"), HUB)
    scene.fetcher.versions["big.gguf"] = Version("c0ffee", "a" * 64, 5)
    await root.locked()
    events = await root.events(LockRequest(upgrade=True, names=names))
    assert sorted(event["name"] for event in events if event["event"] in {"look", "pull"}) == asked


async def test_a_name_of_nobody_and_names_without_upgrade_are_refused(scene: Scene) -> None:
    root = Root(scene, slots("chat"))
    with pytest.raises(NotFound, match="'chta'") as caught:
        await root.locked(LockRequest(upgrade=True, names=("chta",)))
    assert "'chat'" in caught.value.hint
    with pytest.raises(UsageError, match="--upgrade"):
        await root.locked(LockRequest(names=("chat",)))
    assert root.text is None


async def test_what_cannot_be_locked_is_named_and_the_rest_is_locked(scene: Scene) -> None:
    root = Root(scene, slots("chat"), HUB, FAR, {"gone.yaml": "kind: Model\nname: gone\npath: gone.gguf\n"})
    scene.fetcher.versions["big.gguf"] = StepFailed("the hub is away", hint="Try again.")
    end = await root.locked()
    why = {each["name"]: each["why"] for each in end["open"]}
    assert why["hub"] == "the hub is away (Try again.)"
    assert why["far"].endswith("and nobody says its sha256 (hal0 model pull far, then lock it)")
    assert why["gone"].endswith("(put it there, then lock it)")
    assert root.lock.models.keys() == {"m"}
    assert root.lock.images.keys() == {IMAGE}


async def test_a_folder_is_locked_by_the_commit_that_it_names(scene: Scene) -> None:
    texts = {
        "at": "source: {repo: org/at, revision: " + "c0" * 20 + "}",
        "of": "source: {repo: org/of}",
        "own": "path: own",
    }
    (scene.folder / "models" / "own").mkdir()
    root = Root(scene, {f"{name}.yaml": f"kind: Model\nname: {name}\n{key}\n" for name, key in texts.items()})
    end = await root.locked(UPGRADE)
    assert {each["name"]: each["why"] for each in end["open"]} == {
        "of": "a whole repository is locked by its commit (give it to `revision` of the Model)",
        "own": f"{scene.folder}/models/own is a folder, and only files are locked (give the Model a `source`)",
    }
    assert [each["name"] for each in (await locked(scene.reconciler))["unpinned"]] == ["of", "own"]


async def test_a_pin_survives_a_hub_that_is_away(scene: Scene) -> None:
    root = Root(scene, HUB)
    scene.fetcher.versions["big.gguf"] = Version("c0ffee", "a" * 64, 5)
    await root.locked()
    text = root.text
    scene.fetcher.versions["big.gguf"] = StepFailed("the hub is away")
    end = await root.locked(UPGRADE)
    assert ([each["name"] for each in end["open"]], end["changes"], root.text) == (["hub"], [], text)


async def test_an_images_pull_that_fails_leaves_its_pin(scene: Scene) -> None:
    root = Root(scene, slots("chat"))
    await root.locked()
    scene.runtime.faults[f"pull {IMAGE}"] = StepFailed("no route to the registry")
    end = await root.locked(UPGRADE)
    assert [each["why"] for each in end["open"]] == ["no route to the registry"]
    assert root.lock.images == {IMAGE: ImagePin(OLD)}


async def test_an_image_that_is_not_here_is_pulled_and_one_that_is_built_is_not(scene: Scene) -> None:
    own = {"own.yaml": "kind: Profile\nname: own\nimage: localhost/own:1\n"}
    root = Root(scene, slots("chat"), slot("built", profile="own"), own)
    del scene.host.images[IMAGE]
    end = await root.locked()
    assert [call for call in scene.runtime.calls if call.startswith("pull ")] == [f"pull {IMAGE}"]
    assert [(each["name"], each["why"]) for each in end["open"]] == [
        ("localhost/own:1", "there is no image localhost/own:1 (build it)")
    ]
    scene.host.images["localhost/own:1"] = "built"
    await root.locked(UPGRADE)
    assert root.lock.images["localhost/own:1"] == ImagePin(id=hashlib.sha256(b"built").hexdigest())
    assert "pull localhost/own:1" not in scene.runtime.calls


async def test_a_manifests_sha256_that_the_file_has_not_is_no_pin(scene: Scene) -> None:
    root = Root(scene, {"m.yaml": MODEL["model.yaml"] + f"sha256: {'a' * 64}\n"})
    end = await root.locked()
    assert end["open"][0]["why"].startswith(f"its manifest says the sha256 aaaaaaaaaaaa, and it has {EMPTY[:12]}")
    assert root.text is None


async def test_a_sha256_of_the_manifest_is_enough_for_a_file_that_is_not_here(scene: Scene) -> None:
    root = Root(scene, {"far.yaml": FAR["far.yaml"] + f"sha256: {'a' * 64}\n"})
    await root.locked()
    assert root.lock.models["far"].files == (FilePin("far.gguf", "a" * 64, None),)


async def test_a_check_writes_asks_and_pulls_nothing(scene: Scene) -> None:
    root = Root(scene, slots("chat"), HUB)
    end = await root.locked(LockRequest(check=True))
    assert [(each["name"], each["is_due"]) for each in end["changes"]] == [("hub", True), ("m", True), (IMAGE, True)]
    assert (root.text, scene.runtime.calls, scene.fetcher.looked, end["written"]) == (None, [], [], False)
    upgrade = await root.locked(LockRequest(upgrade=True, names=(IMAGE,), check=True))
    assert [call for call in scene.runtime.calls if call.startswith("pull ")] == []
    assert (upgrade["written"], root.text) == (False, None)


async def test_a_checked_upgrade_tells_what_it_would_bring(scene: Scene) -> None:
    root = Root(scene, slots("chat"))
    await root.locked()
    text = root.text
    scene.host.digests[IMAGE] = NEW
    end = await root.locked(LockRequest(upgrade=True, check=True))
    assert (changed(end), root.text) == ([(IMAGE, OLD[:19], NEW[:19])], text)


async def test_pins_that_nobody_declares_any_more_go(scene: Scene) -> None:
    root = Root(scene, slots("chat"), HUB)
    scene.fetcher.versions["big.gguf"] = Version("c0ffee", "a" * 64, 5)
    await root.locked()
    (root.path / "hub.yaml").unlink()
    (root.path / "chat.yaml").unlink()
    end = await root.locked()
    assert [(name, after) for name, _, after in changed(end)] == [("hub", None), (IMAGE, None)]


async def test_a_host_without_images_leaves_their_pins(scene: Scene) -> None:
    root = Root(scene, slots("chat"))
    await root.locked()
    object.__setattr__(scene.reconciler.source.facts, "runtime", "process")
    (root.path / "chat.yaml").unlink()
    assert (await root.locked())["changes"] == []
    assert root.lock.images == {IMAGE: ImagePin(OLD)}


async def test_a_lock_that_was_changed_meanwhile_is_not_overwritten(scene: Scene) -> None:
    root = Root(scene, slots("chat"))
    events = lock(scene.reconciler, LockRequest())
    await anext(events)
    (root.path / LOCK_NAME).write_text("version = 1\n")
    with pytest.raises(Conflict, match="meanwhile"):
        [event async for event in events]
    assert root.text == "version = 1\n"


async def test_broken_manifests_and_a_broken_lock_are_not_locked(scene: Scene) -> None:
    root = Root(scene, slots("chat"), {LOCK_NAME: ">>>>>>> theirs\n"})
    with pytest.raises(InvalidManifests, match=r"hal0\.lock:1: .*bring it back from git"):
        await root.locked()
    assert root.text == ">>>>>>> theirs\n"


async def test_a_host_that_commits_commits_its_lock(scene: Scene) -> None:
    root = Root(scene, slots("chat"), {"host.yaml": "kind: Host\ncommit: true\n"})
    root.git("init", "--quiet")
    root.git("add", "--all")
    root.git("commit", "--quiet", "--message", "x")
    await scene.pass_(1)
    end = await root.locked(LockRequest(who="ann"))
    log = root.git("log", "-1", "--format=%s", "--stat")
    assert end["commit"]
    assert "lock: m, ggml-org/llama.cpp:server (ann)" in log
    assert LOCK_NAME in log


async def test_the_lock_beside_a_root_of_one_file_is_its_own(scene: Scene) -> None:
    root = Root(scene, {"one.yaml": MODEL["model.yaml"]})
    scene.reconciler.source.root = ManifestRoot(root.path / "one.yaml")
    await root.locked()
    assert root.lock.models.keys() == {"m"}
    assert (await locked(scene.reconciler))["path"] == str(root.path / LOCK_NAME)


async def test_what_is_locked_is_shown_with_what_is_not(scene: Scene) -> None:
    root = Root(scene, slots("chat"))
    found = await locked(scene.reconciler)
    assert (found["exists"], found["pins"], found["stale"]) == (False, {"models": [], "images": []}, [])
    assert [each["name"] for each in found["unpinned"]] == ["m", IMAGE]
    await root.locked()
    root.put({"model.yaml": MODEL["model.yaml"] + "source: {repo: org/repo, file: m.gguf}\n"})
    found = await locked(scene.reconciler)
    assert found["exists"] is True
    assert found["pins"]["images"] == [{"reference": IMAGE, "digest": OLD, "id": ""}]
    assert [each["why"] for each in found["stale"]] == ["it was locked as put there by hand"]
    assert [each["name"] for each in found["unpinned"]] == ["m"]


async def test_who_leaves_while_an_image_is_pulled_ends_no_pull_of_others(scene: Scene) -> None:
    root = Root(scene, slots("chat"))
    del scene.host.images[IMAGE]
    scene.runtime.pulls = asyncio.Event()
    going = asyncio.create_task(root.locked())
    while f"pull {IMAGE}" not in scene.runtime.calls:
        await calm()
    others = scene.reconciler.actor.transfers.join(IMAGE)
    going.cancel()
    await asyncio.wait({going})
    scene.runtime.pulls.set()
    await others
    assert IMAGE in scene.host.images
