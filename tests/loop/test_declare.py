"""Models that hal0 declares: what was found, and what is fetched by where it comes from."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from headers import gguf
from scenes import MODEL, Scene

from hal0.core.documents import parse_file
from hal0.core.edit import EditRefused
from hal0.core.model import ListedFile
from hal0.core.validate import validate
from hal0.errors import Conflict, NotFound, StepFailed, UsageError
from hal0.loop import authoring, declare, models
from hal0.loop.operations import InvalidManifests

from .test_authoring import done, git, put, root

__all__ = ["root"]
REF = "org/repo/Big-Q4_K_M.gguf"
BIG = "kind: Model\nname: big-q4_k_m\nsource: {repo: org/repo, file: Big-Q4_K_M.gguf}\n"


def lie(scene: Scene, path: str) -> None:
    file = scene.folder / "models" / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(gguf())


async def all_of(events: AsyncIterator[dict[str, Any]]) -> list[dict[str, Any]]:
    return [event async for event in events]


async def pulled(scene: Scene, wanted: str, name: str = "") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = await done(
        scene, all_of(declare.pull(scene.reconciler, wanted, name=name, who="eve"))
    )
    return found


# What was found.


async def test_what_was_found_is_declared_in_one_file_below_what_is_there(scene: Scene, root: Path) -> None:
    lie(scene, "v/Seen.gguf")
    lie(scene, "v/mmproj-F16.gguf")
    lie(scene, "half-00001-of-00002.gguf")
    before = "# ours\nkind: Model\nname: m # the first\npath: m.gguf"
    await put(scene, root, {"models.yaml": before})
    found = await done(scene, declare.scan(scene.reconciler, who="eve"))
    assert (root / "models.yaml").read_text() == (
        before + "\n---\nkind: Model\nname: seen\npath: v/Seen.gguf\nmmproj: v/mmproj-F16.gguf\n"
    )
    assert [manifest["name"] for manifest in found["manifests"]] == ["seen"]
    assert found["file"] == str(root / "models.yaml")
    assert (await models.model(scene.reconciler, "seen"))["declared"] is True
    again = await done(scene, declare.scan(scene.reconciler, who="eve"))
    assert (again["manifests"], again["file"]) == ([], "")


async def test_what_was_found_is_committed_where_the_host_wants_that(scene: Scene, root: Path) -> None:
    git(root, "init", "--quiet")
    lie(scene, "seen.gguf")
    await put(scene, root, MODEL, {"host.yaml": "kind: Host\ncommit: true\n"})
    found = await done(scene, declare.scan(scene.reconciler, who="eve"))
    assert found["commit"]
    assert git(root, "log", "-1", "--format=%s") == "declared: seen (eve)"


@pytest.mark.parametrize("text", ["kind: Modle\nname: x\n", "a: [\n"])
async def test_a_file_that_is_wrong_is_not_added_to_where_it_cant_be_read(scene: Scene, root: Path, text: str) -> None:
    lie(scene, "seen.gguf")
    await put(scene, root, MODEL, {"models.yaml": text})
    if "[" in text:
        with pytest.raises(EditRefused):
            await done(scene, declare.scan(scene.reconciler, who="eve"))
        assert (root / "models.yaml").read_text() == text
    else:  # its own mistake is told as ever, and is no reason not to add to it
        await done(scene, declare.scan(scene.reconciler, who="eve"))
        assert (root / "models.yaml").read_text().startswith(text)


async def test_a_slot_of_a_found_model_declares_it_too(scene: Scene, root: Path) -> None:
    lie(scene, "Seen.gguf")
    await put(scene, root, MODEL)
    found = await done(scene, authoring.create(scene.reconciler, "chat", {"model": "seen"}, who="eve"))
    assert found["declared"] == {"model": "seen", "file": str(root / "models.yaml")}
    assert (root / "models.yaml").read_text() == "kind: Model\nname: seen\npath: Seen.gguf\n"
    assert 'model = "seen"' in (root / "chat.toml").read_text()
    assert scene.reconciler.desired.slots["chat"].spec.model_path.endswith("/Seen.gguf")
    other = await done(scene, authoring.create(scene.reconciler, "other", {"model": "m"}, who="eve"))
    assert other["declared"] is None


async def test_a_slot_that_cant_be_leaves_its_found_model_undeclared(scene: Scene, root: Path) -> None:
    lie(scene, "Seen.gguf")
    await put(scene, root, MODEL)
    for keys in ({"model": "seen", "profile": "nope"}, {"model": "sene"}):
        with pytest.raises(InvalidManifests):
            await done(scene, authoring.create(scene.reconciler, "chat", keys, who="eve"))
    assert sorted(path.name for path in root.iterdir()) == ["model.yaml"]


# What is fetched.


async def test_a_file_of_the_hub_is_declared_and_fetched(scene: Scene, root: Path) -> None:
    await put(scene, root, MODEL)
    found = await pulled(scene, REF)
    assert [event["event"] for event in found] == ["asked", "declared", "begin", "transfer", "end"]
    assert (found[1]["model"], found[1]["file"]) == ("big-q4_k_m", str(root / "models.yaml"))
    assert (root / "models.yaml").read_text() == BIG
    assert (scene.folder / "models" / REF).exists()
    again = await pulled(scene, REF)
    assert [event["event"] for event in again] == ["begin", "end"]
    assert (root / "models.yaml").read_text() == BIG


async def test_an_address_and_a_revision_are_declared_as_they_are_said(scene: Scene, root: Path) -> None:
    await put(scene, root, MODEL)
    found = await pulled(scene, "https://x.example/a/b.gguf?key=s3cret", name="theirs")
    assert "s3cret" not in str(found)
    await pulled(scene, "org/repo/x.gguf@v1.0")
    documents, errors = parse_file("models.yaml", (root / "models.yaml").read_text())
    assert (errors, validate(documents)[1]) == ([], [])
    assert [document.data["source"] for document in documents] == [
        {"url": "https://x.example/a/b.gguf?key=s3cret"},
        {"repo": "org/repo", "file": "x.gguf", "revision": "v1.0"},
    ]
    assert [document.data["name"] for document in documents] == ["theirs", "x"]


async def test_what_its_source_does_not_have_is_not_declared(scene: Scene, root: Path) -> None:
    await put(scene, root, MODEL)
    scene.fetcher.said = StepFailed("org/repo at main has no file", hint="There are: x.gguf")
    with pytest.raises(StepFailed, match="has no file"):
        await pulled(scene, REF)
    assert not (root / "models.yaml").exists()


async def test_a_name_is_not_taken_from_another_model(scene: Scene, root: Path) -> None:
    await put(scene, root, MODEL, {"big.yaml": BIG + "aliases: [big]\n"})
    with pytest.raises(Conflict, match="another model 'm'") as caught:
        await pulled(scene, "other/repo/m.gguf")
    assert "--name" in caught.value.hint
    with pytest.raises(Conflict, match=r"declared as big-q4_k_m, in .*big\.yaml:1"):
        await pulled(scene, REF, name="other")
    assert (await pulled(scene, REF, name="big"))[-1]["model"] == "big-q4_k_m"


async def test_a_repository_alone_is_listed_and_a_quantisation_picks_from_it(scene: Scene, root: Path) -> None:
    await put(scene, root, MODEL)
    listed = [ListedFile(f"Big-{quant}.gguf", size) for quant, size in (("Q4_K_M", 4), ("Q8_0", 8))]
    scene.fetcher.repositories = {"org/repo": (*listed, ListedFile("config.json", 1)), "org/none": ()}
    _, found = await pulled(scene, "org/repo@v1")
    assert (found["event"], found["repo"], found["revision"]) == ("offers", "org/repo", "v1")
    assert found["files"][1] == {"file": "Big-Q8_0.gguf", "size_bytes": 8, "pull": "org/repo/Big-Q8_0.gguf@v1"}
    assert not (root / "models.yaml").exists()
    assert (await pulled(scene, "hf.co/org/repo:q4_k_m"))[1]["model"] == "big-q4_k_m"
    for wanted in ("org/none", "org/repo:Q5_0"):
        with pytest.raises(StepFailed, match="has no GGUF file"):
            await pulled(scene, wanted)


async def test_what_says_nothing_of_where_it_comes_from_is_not_fetched(scene: Scene, root: Path) -> None:
    await put(scene, root, MODEL)
    with pytest.raises(NotFound, match="no model 'big'") as caught:
        await pulled(scene, "big")
    assert "OWNER/REPO/FILE" in caught.value.hint
    with pytest.raises(UsageError, match="ends without the name of a file"):
        await pulled(scene, "https://x.example/")
    with pytest.raises(InvalidManifests, match="repo"):
        await pulled(scene, "org/-repo/x.gguf")
    assert not (root / "models.yaml").exists()


# Folders.


async def test_a_repository_without_gguf_is_a_folder_and_is_fetched_whole(scene: Scene, root: Path) -> None:
    await put(scene, root, MODEL)
    names = ("config.json", "model.safetensors", "pytorch_model.bin")
    scene.fetcher.repositories = {"org/Tiny2.5-1B": tuple(ListedFile(name, 1) for name in names)}
    found = await pulled(scene, "org/Tiny2.5-1B")
    folder = scene.folder / "models/org/Tiny2.5-1B"
    assert (found[1]["model"], found[-1]["path"]) == ("tiny2.5-1b", str(folder))
    assert (root / "models.yaml").read_text() == (
        "kind: Model\nname: tiny2.5-1b\n"
        'source: {repo: org/Tiny2.5-1B, include: ["*.safetensors", "*.json", "*.txt", "*.model", "*.jinja"]}\n'
    )
    shown = await models.model(scene.reconciler, "tiny2.5-1b")
    assert (shown["state"], shown["size_bytes"], shown["source"]) == (
        "present",
        102,
        {"repo": "org/Tiny2.5-1B", "revision": "main"},
    )
    assert [event["event"] for event in await pulled(scene, "org/Tiny2.5-1B")] == ["begin", "end"]
    hashed = await all_of(models.verify(scene.reconciler, "tiny2.5-1b"))
    assert [Path(file["path"]).name for file in hashed[-1]["files"]] == ["config.json", "model.safetensors"]
    half = folder.with_name("Tiny2.5-1B.part")
    half.mkdir()
    (half / "x").write_bytes(b"12")
    assert (await models.remove(scene.reconciler, "tiny2.5-1b"))["freed_bytes"] == 104
    assert [path.name for path in (scene.folder / "models/org").iterdir()] == []


async def test_a_folder_that_was_found_is_declared_by_its_name(scene: Scene, root: Path) -> None:
    await put(scene, root, MODEL)
    for folder in ("org/Tiny2.5-1B", "models--org--Cached/snapshots/0123abcd"):
        path = scene.folder / "models" / folder
        path.mkdir(parents=True)
        (path / "config.json").write_text("{}")
        (path / "model.safetensors").touch()
    found = await done(scene, declare.scan(scene.reconciler, who="eve"))
    assert [(each["name"], each["path"]) for each in found["manifests"]] == [
        ("cached", "models--org--Cached/snapshots/0123abcd"),
        ("tiny2.5-1b", "org/Tiny2.5-1B"),
    ]
    assert (await models.model(scene.reconciler, "cached"))["state"] == "present"


async def test_what_else_is_in_a_folder_is_never_removed(scene: Scene, root: Path) -> None:
    await put(scene, root, {"m.yaml": "kind: Model\nname: m\npath: home\n"})
    home = scene.folder / "models" / "home"
    home.mkdir()
    (home / "letters").touch()
    with pytest.raises(UsageError, match="can't remove"):
        await models.remove(scene.reconciler, "m")
    assert (home / "letters").exists()
