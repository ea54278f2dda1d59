from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import pytest
from scenes import MODEL, Scene, slot, slots

from hal0.core.edit import EditRefused, Scalar
from hal0.core.override import Aspect, Override
from hal0.core.state import SlotState
from hal0.errors import Conflict, NotFound, UsageError
from hal0.host.manifests import ManifestRoot
from hal0.loop import authoring, drafts
from hal0.loop.operations import InvalidManifests

HOST = {"host.yaml": "kind: Host\ncommit: true\n"}


@pytest.fixture
def root(scene: Scene) -> Path:
    """A manifest root on the disk, in the place of the scene's own."""
    folder = scene.folder / "manifests"
    folder.mkdir()
    scene.reconciler.source.root = ManifestRoot(folder)
    return folder


async def put(scene: Scene, root: Path, *parts: dict[str, str]) -> None:
    """Write manifests, and have the host follow."""
    for part in parts:
        for name, text in part.items():
            (root / name).write_text(text)
    await scene.make_pass()
    await scene.pass_(5)


async def done(scene: Scene, act: Awaitable[Any]) -> Any:
    """Carry out one act with the loop running."""
    async with asyncio.timeout(20), scene.driven():
        return await act


def git(folder: Path, *words: str) -> str:
    options = ("-c", "user.name=eve", "-c", "user.email=eve@here")
    argv = ["git", "-C", str(folder), *options, *words]
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()


# Create.


async def test_a_created_slot_has_a_manifest_and_a_definition_and_is_not_started(scene: Scene, root: Path) -> None:
    await put(scene, root, MODEL)
    keys: dict[str, Scalar] = {"model": "m", "type": "embedding", "port": 8090, "context_size": 512}
    found = await done(scene, authoring.create(scene.reconciler, "embed", keys, who="eve"))
    assert (root / "embed.toml").read_text() == (
        'kind = "Slot"\nname = "embed"\nrun = "on-demand"\nmodel = "m"\ntype = "embedding"\n'
        "port = 8090\ncontext_size = 512\n"
    )
    assert found["effect"] == {"when": "next-start", "message": "when it next starts"}
    assert (found["file"], found["settled"], found["warning"]) == (str(root / "embed.toml"), True, "")
    assert set(scene.host.files) == {"embed"}
    assert scene.host.starts == {}


async def test_a_slot_that_is_created_to_run_always_is_started(scene: Scene, root: Path) -> None:
    await put(scene, root, MODEL)
    found = await done(scene, authoring.create(scene.reconciler, "chat", {"model": "m", "run": "always"}, who="eve"))
    assert found["effect"]["message"] == "now: it is started"
    await scene.until(lambda: scene.states() == {"chat": SlotState.READY})


@pytest.mark.parametrize("file", ["chat.toml", "deep.yaml"])
async def test_a_name_that_is_taken_is_refused_with_where(scene: Scene, root: Path, file: str) -> None:
    syntax = {"chat.toml": 'kind = "Slot"\nname = "chat"\nmodel = "m"\n', "deep.yaml": slot("chat")["chat.yaml"]}
    await put(scene, root, MODEL, {file: syntax[file]})
    with pytest.raises(Conflict, match=f"declared in {root}/{file}:1"):
        await authoring.create(scene.reconciler, "chat", {"model": "m"}, who="eve")


async def test_a_file_of_that_name_is_not_overwritten(scene: Scene, root: Path) -> None:
    await put(scene, root, MODEL, {"chat.toml": "# an idea\n"})
    with pytest.raises(Conflict, match="is there already"):
        await authoring.create(scene.reconciler, "chat", {"model": "m"}, who="eve")
    assert (root / "chat.toml").read_text() == "# an idea\n"


@pytest.mark.parametrize("name", ["../chat", "Chat", "", "a" * 41, "a/b"])
async def test_what_is_no_name_is_refused(scene: Scene, root: Path, name: str) -> None:
    await put(scene, root, MODEL)
    with pytest.raises(UsageError, match="is no name"):
        await authoring.create(scene.reconciler, name, {"model": "m"}, who="eve")
    assert sorted(path.name for path in scene.folder.rglob("*.toml")) == []


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"model": "n"}, "model: no Model 'n'"),
        ({"model": "m", "device": "gpu"}, "device: 'gpu' is not one of"),
        ({"model": "m", "port": 8081}, "port 8081 is claimed twice"),
    ],
)
async def test_keys_that_dont_fit_are_refused_before_anything_is_written(
    scene: Scene, root: Path, keys: dict[str, Any], message: str
) -> None:
    await put(scene, root, MODEL, slot("other", port=8081))
    with pytest.raises(InvalidManifests, match=message):
        await authoring.create(scene.reconciler, "chat", keys, who="eve")
    assert not (root / "chat.toml").exists()


# Edit.


async def test_an_edit_of_a_running_slot_restarts_it_and_says_so(scene: Scene, root: Path) -> None:
    await put(scene, root, slots("chat"))
    found = await done(scene, authoring.edit(scene.reconciler, "chat", {"context_size": 4096}, who="eve"))
    assert found["effect"] == {"when": "now", "message": "now: it is restarted, and its requests wait"}
    assert found["changes"] == [{"key": "context_size", "before": None, "after": 4096}]
    assert "context_size: 4096\n" in (root / "chat.yaml").read_text()
    await scene.until(lambda: scene.slot("chat").spec.context_size == 4096 and scene.slot("chat").is_ready)
    assert scene.host.starts == {"chat": 2}


async def test_an_edit_of_a_slot_that_is_down_is_for_its_next_start(scene: Scene, root: Path) -> None:
    await put(scene, root, MODEL, slot("chat", run="on-demand", port=8090))
    found = await done(scene, authoring.edit(scene.reconciler, "chat", {"port": 8091}, who="eve"))
    assert found["effect"]["when"] == "next-start"
    assert scene.host.starts == {}


async def test_an_edit_to_what_is_written_already_writes_nothing(scene: Scene, root: Path) -> None:
    await put(scene, root, MODEL, slot("chat", port=8090))
    before = (root / "chat.yaml").stat()
    found = await done(scene, authoring.edit(scene.reconciler, "chat", {"port": 8090, "profile": None}, who="eve"))
    assert found["changes"] == []
    assert (root / "chat.yaml").stat() == before


async def test_a_bad_value_is_refused_and_the_file_is_as_it_was(scene: Scene, root: Path) -> None:
    await put(scene, root, slots("chat"))
    before = (root / "chat.yaml").read_text()
    with pytest.raises(InvalidManifests, match=r"no Model 'mm' \(did you mean 'm'\?\)"):
        await authoring.edit(scene.reconciler, "chat", {"model": "mm"}, who="eve")
    assert (root / "chat.yaml").read_text() == before


async def test_an_error_elsewhere_does_not_stand_in_the_way(scene: Scene, root: Path) -> None:
    await put(scene, root, slots("chat"), {"bad.yaml": "kind: Slot\nname: bad\n"})
    found = await done(scene, authoring.edit(scene.reconciler, "chat", {"context_size": 9}, who="eve"))
    assert found["effect"]["when"] == "now"


async def test_an_edit_may_mend_what_is_wrong(scene: Scene, root: Path) -> None:
    await put(scene, root, MODEL, {"chat.yaml": "kind: Slot\nname: chat\nmodel: lost\n"})
    await done(scene, authoring.edit(scene.reconciler, "chat", {"model": "m"}, who="eve"))
    await scene.until(lambda: scene.states() == {"chat": SlotState.READY})


async def test_a_slot_that_is_not_there_or_not_declared_soundly_is_not_edited(scene: Scene, root: Path) -> None:
    await put(scene, root, slots("chat"), {"bad.yaml": "kind: Slot\nname: bad\nmodel: m\ncolour: red\n"})
    with pytest.raises(NotFound, match="no slot 'caht'"):
        await authoring.edit(scene.reconciler, "caht", {"port": 1}, who="eve")
    with pytest.raises(Conflict, match=r"bad.yaml:4: colour: "):
        await authoring.edit(scene.reconciler, "bad", {"port": 1}, who="eve")
    with pytest.raises(UsageError, match="nothing is to be changed"):
        await authoring.edit(scene.reconciler, "chat", {}, who="eve")


async def test_a_file_that_changes_during_an_edit_keeps_the_change(
    scene: Scene, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await put(scene, root, slots("chat"))
    said = drafts.effect_of

    async def slowly(*words: Any) -> Any:
        (root / "chat.yaml").write_text("kind: Slot\nname: chat\nmodel: m\nport: 8099\n")
        return await said(*words)

    monkeypatch.setattr(authoring, "effect_of", slowly)
    with pytest.raises(Conflict, match="changed meanwhile"):
        await authoring.edit(scene.reconciler, "chat", {"port": 8090}, who="eve")
    assert "8099" in (root / "chat.yaml").read_text()


async def test_what_cant_be_edited_is_refused_and_nothing_is_written(scene: Scene, root: Path) -> None:
    text = "kind: Slot\nname: &n chat\nmodel: |-\n  m\n"
    await put(scene, root, MODEL, {"chat.yaml": text})
    with pytest.raises(EditRefused):
        await authoring.edit(scene.reconciler, "chat", {"model": "n"}, who="eve")
    assert (root / "chat.yaml").read_text() == text


# Delete.


async def test_a_deleted_slot_is_removed_however_few_there_are(scene: Scene, root: Path) -> None:
    await put(scene, root, slots("chat"))
    found = await done(scene, authoring.delete(scene.reconciler, "chat", who="eve"))
    assert (found["settled"], found["effect"]["message"]) == (True, "now: it is stopped and removed")
    assert not (root / "chat.yaml").exists()
    assert (scene.host.files, scene.store.specs, scene.store.deletions) == ({}, {}, frozenset())


async def test_whoever_deleted_a_slot_is_not_shown_it_again(scene: Scene, root: Path) -> None:
    async def deleted() -> set[str]:
        await authoring.delete(scene.reconciler, "chat", who="eve")
        return set(scene.reconciler.snapshot.slots)

    await put(scene, root, slots("chat", "embed"))
    assert await done(scene, deleted()) == {"embed"}


async def test_the_other_manifests_of_its_file_stay(scene: Scene, root: Path) -> None:
    both = f"{slot('chat')['chat.yaml']}---\n{slot('embed')['embed.yaml']}"
    await put(scene, root, MODEL, {"all.yaml": both})
    await done(scene, authoring.delete(scene.reconciler, "chat", who="eve"))
    assert (root / "all.yaml").read_text() == f"---\n{slot('embed')['embed.yaml']}"
    assert set(scene.host.files) == {"embed"}


async def test_a_slot_that_others_fall_back_on_is_not_deleted(scene: Scene, root: Path) -> None:
    await put(scene, root, slots("chat"), slot("big", fallback="[chat]"))
    with pytest.raises(InvalidManifests, match="nothing is called 'chat'"):
        await authoring.delete(scene.reconciler, "chat", who="eve")
    assert (root / "chat.yaml").exists()


async def test_a_deletion_goes_on_after_a_restart_of_hal0_and_spares_the_limit_for_no_other(
    scene: Scene, root: Path
) -> None:
    await put(scene, root, slots("a", "b", "c", "d"))
    for name in "abc":
        (root / f"{name}.yaml").unlink()
    scene.store.note_deletion("a")
    scene.restart()
    scene.reconciler.source.root = ManifestRoot(root)
    await scene.pass_(60)
    assert set(scene.host.files) == {"b", "c", "d"}


async def test_a_slot_that_no_manifest_declares_any_more_can_be_deleted(scene: Scene, root: Path) -> None:
    await put(scene, root, slots("chat"))
    (root / "chat.yaml").unlink()
    await scene.pass_(60)
    assert set(scene.host.files) == {"chat"}
    found = await done(scene, authoring.delete(scene.reconciler, "chat", who="eve"))
    assert (found["settled"], found["file"]) == (True, "")
    assert scene.host.files == {}
    with pytest.raises(NotFound):
        await authoring.delete(scene.reconciler, "chat", who="eve")


async def test_a_deletion_that_has_to_wait_says_so_and_is_dropped_when_the_slot_comes_back(
    scene: Scene, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drafts, "_PATIENCE", 0.0)
    await put(scene, root, slots("chat"), {"bad.yaml": "kind: Slot\nname: bad\n"})
    found = await done(scene, authoring.delete(scene.reconciler, "chat", who="eve"))
    assert found["settled"] is False
    assert found["effect"]["when"] == "waits"
    assert "bad.yaml:1: model: is required" in found["effect"]["message"]
    await scene.pass_(60)
    assert set(scene.host.files) == scene.store.deletions == {"chat"}
    await put(scene, root, slot("chat"), {"bad.yaml": slot("bad")["bad.yaml"]})
    assert scene.store.deletions == frozenset()
    assert set(scene.host.files) == {"chat", "bad"}


# Git.


@pytest.fixture
def repository(root: Path) -> Path:
    for name, text in {**slots("chat"), **HOST}.items():
        (root / name).write_text(text)
    git(root, "init", "-q")
    git(root, "add", ".")
    git(root, "commit", "-qm", "first")
    return root


async def test_each_act_is_a_commit_that_says_what_and_who(scene: Scene, repository: Path) -> None:
    reconciler = scene.reconciler
    await scene.make_pass()
    await done(scene, authoring.create(reconciler, "embed", {"model": "m"}, who="eve"))
    found = await done(scene, authoring.edit(reconciler, "chat", {"port": 8090, "context_size": 9}, who="frank"))
    await done(scene, authoring.delete(reconciler, "embed", who="eve"))
    assert git(repository, "log", "--format=%s").splitlines() == [
        "slot embed: deleted (eve)",
        "slot chat: port none -> 8090, context_size none -> 9 (frank)",
        "slot embed: created (eve)",
        "first",
    ]
    assert git(repository, "rev-parse", "HEAD~1").startswith(found["commit"])
    assert git(repository, "status", "--porcelain") == ""


async def test_a_file_with_changes_of_the_operators_is_edited_and_not_committed(scene: Scene, repository: Path) -> None:
    await scene.make_pass()
    (repository / "chat.yaml").write_text("kind: Slot\nname: chat\nmodel: m\nrun: always\n")
    found = await done(scene, authoring.edit(scene.reconciler, "chat", {"port": 8090}, who="eve"))
    assert (found["commit"], found["warning"]) == ("", "not committed: the file had changes that git does not have")
    assert git(repository, "log", "--format=%s") == "first"
    assert "port: 8090" in (repository / "chat.yaml").read_text()


async def test_a_commit_that_fails_is_told_and_the_edit_holds(scene: Scene, repository: Path) -> None:
    await scene.make_pass()
    (repository / ".git" / "index.lock").touch()
    persisted = await authoring.persist(scene.reconciler, "chat", {"port": 8090}, who="eve")
    assert persisted.commit == ""
    assert persisted.warning.startswith("not committed: git: ")
    assert "port: 8090" in (repository / "chat.yaml").read_text()


async def test_a_root_without_git_is_told_where_commits_are_asked_for(scene: Scene, root: Path) -> None:
    await put(scene, root, slots("chat"), HOST)
    persisted = await authoring.persist(scene.reconciler, "chat", {"port": 8090}, who="eve")
    assert persisted.warning == f"not committed: {root} is in no git repository"


async def test_nothing_is_committed_unless_the_host_says_so(scene: Scene, repository: Path) -> None:
    (repository / "host.yaml").write_text("kind: Host\n")
    persisted = await authoring.persist(scene.reconciler, "chat", {"port": 8090}, who="eve")
    assert (persisted.file, persisted.commit, persisted.warning) == (str(repository / "chat.yaml"), "", "")
    assert git(repository, "log", "--format=%s") == "first"


async def test_an_edit_leaves_the_model_that_was_asked_for_by_hand(scene: Scene, root: Path) -> None:
    (scene.folder / "models" / "big.gguf").touch()
    big = {"big.yaml": "kind: Model\nname: big\npath: big.gguf\n"}
    await put(scene, root, MODEL, big, slot("chat"))
    scene.store.overrides.change([Override("chat", Aspect.MODEL, "big", "eve", 0.0)])
    await put(scene, root)
    await scene.until(lambda: scene.slot("chat").is_settled)
    found = await done(scene, authoring.edit(scene.reconciler, "chat", {"idle_timeout": "7s"}, who="eve"))
    assert found["effect"]["when"] == "now"
    assert found["effect"]["message"] == "at once: nothing of its engine changes"
    assert scene.slot("chat").spec.model == "big"
