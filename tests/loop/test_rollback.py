from __future__ import annotations

import asyncio
import subprocess
import threading
from typing import Any

import pytest
from scenes import MODEL, Scene, slot, slots

from hal0.core.lock import LOCK_NAME, lock_text
from hal0.core.pins import ImagePin, Lock
from hal0.core.state import SlotState
from hal0.errors import Conflict, NotFound, UsageError
from hal0.host import git
from hal0.host.manifests import ManifestRoot
from hal0.host.ports import MANIFESTS
from hal0.host.rewrite import rewrite
from hal0.loop import rollback as module
from hal0.loop.operations import InvalidManifests
from hal0.loop.rollback import RollbackRequest, rollback

FIRST = slots("a", "b", "c")
SECOND = {**slots("b", "c"), **slot("a", context_size=9), **slot("d")}
SLEEPY = {"a.yaml": "kind: Slot\nname: a\nmodel: gone\n"}


class Root:
    """A real folder of manifests, in a repository if it is told so."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.path = scene.folder / "root"
        self.path.mkdir()
        scene.reconciler.source.root = ManifestRoot(self.path)

    def put(self, files: dict[str, str]) -> None:
        """Make the folder's files these."""
        for path in self.path.glob("*.yaml"):
            path.unlink()
        for file, text in files.items():
            (self.path / file).write_bytes(text.encode())

    def texts(self) -> dict[str, str]:
        return {path.name: path.read_bytes().decode() for path in self.path.glob("*.yaml")}

    async def taken_up(self, files: dict[str, str]) -> None:
        self.put(files)
        self.scene.reconciler.queue.add(MANIFESTS)
        await self.scene.pass_(5)

    def git(self, *words: str) -> str:
        who = ("-c", "user.name=t", "-c", "user.email=t@t", "-c", "commit.gpgsign=false")
        done = subprocess.run(["git", "-C", self.path, *who, *words], check=True, capture_output=True, text=True)
        return done.stdout.strip()

    def commit(self) -> str:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", "x")
        return self.git("rev-parse", "HEAD")


@pytest.fixture
def root(scene: Scene) -> Root:
    return Root(scene)


async def back(scene: Scene, rev: str = "", **leave: bool) -> list[dict[str, Any]]:
    request = RollbackRequest(rev, who="eve", **leave)
    async with asyncio.timeout(10):
        events = aiter(rollback(scene.reconciler, request))
        told = [await anext(events), await anext(events)]
        async with scene.driven(flowing=True):
            return told + [event async for event in events]


async def test_the_last_manifests_that_converged_come_back_and_are_applied(scene: Scene, root: Root) -> None:
    await root.taken_up(FIRST)
    scene.host.doomed.add("d")
    await root.taken_up(SECOND)
    (root.path / "a.yaml").chmod(0o640)
    events = await back(scene)
    assert events[0] == {
        "event": "rollback",
        "to": "g1",
        "revision": "",
        "written": ["a.yaml"],
        "removed": ["d.yaml"],
    }
    assert events[-1]["converged"] is True
    assert root.texts() == FIRST
    assert (root.path / "a.yaml").stat().st_mode & 0o777 == 0o640
    assert scene.states() == dict.fromkeys("abc", SlotState.READY)
    (last, failed, first) = scene.store.ledger.applies()
    assert (first.result, failed.result) == ("converged", "failed")
    assert (last.who, last.generation, last.result, last.summary) == ("eve", 3, "converged", "rollback to g1")


async def test_an_atomic_rollback_has_its_specs_prove_themselves(scene: Scene, root: Root) -> None:
    await root.taken_up(FIRST)
    await root.taken_up({**FIRST, **slot("a", args="[--second]")})
    await root.taken_up({**FIRST, **slot("a", args="[--third]")})
    scene.host.doomed.add("--second")  # it worked, and does not any more
    recap = (await back(scene, "g2", atomic=True))[-1]
    assert recap["slots"]["a"]["message"].startswith("rolled back: spec ")
    (row,) = scene.store.ledger.applies(limit=1)
    assert (row.atomic, row.result) == (True, "rolled-back")
    assert "--third" in scene.host.instances["a"].command


async def test_a_rollback_can_be_rolled_back(scene: Scene, root: Root) -> None:
    await root.taken_up(FIRST)
    await root.taken_up(SECOND)
    await back(scene)
    events = await back(scene)
    assert events[0]["to"] == "g2"
    assert root.texts() == SECOND


async def test_a_generation_that_failed_is_gone_back_to_where_it_is_named(scene: Scene, root: Root) -> None:
    scene.host.doomed.add("a")
    await root.taken_up(FIRST)
    scene.host.doomed.clear()
    await root.taken_up(SECOND)
    with pytest.raises(NotFound, match="no earlier manifests that converged are kept"):
        await back(scene)
    assert (await back(scene, "g1"))[0]["to"] == "g1"
    assert root.texts() == FIRST


async def test_line_ends_and_other_letters_come_back_as_they_were(scene: Scene, root: Root) -> None:
    odd = FIRST | {"a.yaml": FIRST["a.yaml"].replace("\n", "\r\n") + "# é\r\n"}
    await root.taken_up(odd)
    assert set(scene.states()) == {"a", "b", "c"}
    await root.taken_up(SECOND)
    await back(scene)
    assert root.texts() == odd


async def test_edits_that_were_never_applied_are_not_lost_without_force(scene: Scene, root: Root) -> None:
    await root.taken_up(FIRST)
    await root.taken_up(SECOND)
    edited = SECOND | {"a.yaml": SECOND["a.yaml"] + "# mine\n"}
    root.put(edited)
    with pytest.raises(Conflict, match=r"would be lost: a\.yaml$") as caught:
        await back(scene)
    assert "--force" in caught.value.hint
    assert root.texts() == edited
    await back(scene, "g1", force=True)
    assert root.texts() == FIRST


async def test_files_that_were_removed_by_hand_come_back(scene: Scene, root: Root) -> None:
    await root.taken_up(FIRST)
    (root.path / "b.yaml").unlink()
    assert (await back(scene))[0]["written"] == ["b.yaml"]
    assert root.texts() == FIRST


async def test_broken_manifests_are_replaced_by_the_last_sound_ones(scene: Scene, root: Root) -> None:
    root.git("init", "--quiet")
    root.put(FIRST)
    root.commit()
    await root.taken_up(FIRST)
    broken = FIRST | {"a.yaml": "kind: Slot\nname: {\n"}
    await root.taken_up(broken)
    with pytest.raises(Conflict, match=r"would be lost: a\.yaml"):
        await back(scene)
    root.commit()
    assert (await back(scene))[0]["to"] == "g1"
    assert root.texts() == FIRST


async def test_a_git_revision_is_gone_back_to_and_gits_own_state_stays(scene: Scene, root: Root) -> None:
    root.git("init", "--quiet")
    root.put(FIRST)
    (root.path / ".hidden.yaml").write_text("not: ours\n")
    (root.path / "README.md").write_text("as it was\n")
    old = root.commit()
    await root.taken_up(SECOND)
    (root.path / "README.md").write_text("as it is\n")
    head = root.commit()
    for rev in ("HEAD~1", old[:10]):
        await root.taken_up(SECOND)
        events = await back(scene, rev)
        assert (events[0]["to"], events[0]["written"], events[0]["removed"]) == (rev, ["a.yaml"], ["d.yaml"])
        assert root.texts() == FIRST
        assert root.git("rev-parse", "HEAD") == head
        assert root.git("diff", "--cached", "--name-only") == ""
        assert (root.path / "README.md").read_text() == "as it is\n"
    assert scene.store.ledger.applies()[0].summary == f"rollback to {old[:10]}"


async def test_a_root_below_its_repository_is_restored_from_its_part_of_it(scene: Scene, root: Root) -> None:
    root.git("-C", "..", "init", "--quiet")
    (scene.folder / "other.yaml").write_text("kind: none of ours\n")
    root.put(FIRST)
    root.commit()
    await root.taken_up(SECOND)
    await back(scene, "HEAD", force=True)
    assert root.texts() == FIRST


@pytest.mark.parametrize("rev", ["nothing", "--all", "g7", "HEAD:a.yaml"])
async def test_a_revision_that_nobody_knows_changes_nothing(scene: Scene, root: Root, rev: str) -> None:
    root.git("init", "--quiet")
    root.put(FIRST)
    root.commit()
    await root.taken_up(FIRST)
    scene.runtime.calls.clear()
    with pytest.raises(NotFound):
        await back(scene, rev)
    assert (root.texts(), scene.runtime.calls) == (FIRST, [])


async def test_a_revision_without_manifests_and_one_with_links_are_refused(scene: Scene, root: Root) -> None:
    root.git("init", "--quiet")
    root.put({})
    (root.path / "README.md").touch()
    root.commit()
    root.put(MODEL)
    (root.path / "l.yaml").symlink_to("model.yaml")
    root.commit()
    (root.path / "l.yaml").unlink()
    await root.taken_up(FIRST)
    with pytest.raises(Conflict, match="revision HEAD~1 has no manifests"):
        await back(scene, "HEAD~1")
    with pytest.raises(UsageError, match=r"HEAD:l\.yaml is a link"):
        await back(scene, "HEAD")
    assert root.texts() == FIRST


async def test_what_git_cant_read_is_not_taken_for_an_empty_file(
    scene: Scene, root: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    root.git("init", "--quiet")
    root.put(FIRST | {"empty.yaml": ""})
    root.commit()
    await root.taken_up(SECOND)
    real = git.read
    monkeypatch.setattr(git, "read", lambda *words: None if "cat-file" in words else real(*words))
    with pytest.raises(UsageError, match=r"git can't read HEAD:a\.yaml"):
        await back(scene, "HEAD")
    assert root.texts() == SECOND
    monkeypatch.setattr(git, "read", real)
    await back(scene, "HEAD")
    assert root.texts() == FIRST | {"empty.yaml": ""}


async def test_a_client_that_goes_away_leaves_no_half_of_the_files(
    scene: Scene, root: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    await root.taken_up(FIRST)
    await root.taken_up(SECOND)
    begun, going_on = threading.Event(), threading.Event()

    def slow(*args: Any) -> None:
        begun.set()
        going_on.wait(10)
        rewrite(*args)

    monkeypatch.setattr(module, "rewrite", slow)
    task = asyncio.create_task(back(scene))
    assert await asyncio.to_thread(begun.wait, 10)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    pass_ = asyncio.create_task(scene.reconciler.run(frozenset({MANIFESTS})))
    await asyncio.sleep(0.1)
    assert not pass_.done()
    going_on.set()
    await pass_
    assert root.texts() == FIRST


async def test_manifests_that_would_be_wrong_are_refused(scene: Scene, root: Root) -> None:
    root.git("init", "--quiet")
    root.put(FIRST | SLEEPY)
    root.commit()
    await root.taken_up(FIRST)
    with pytest.raises(InvalidManifests, match="no Model 'gone'") as caught:
        await back(scene, "HEAD")
    assert "HEAD" in caught.value.hint
    assert root.texts() == FIRST


async def test_what_is_there_already_is_said(scene: Scene, root: Root) -> None:
    await root.taken_up(FIRST)
    with pytest.raises(Conflict, match="the manifests are those of g1 already"):
        await back(scene, "g1")


async def test_a_rollback_that_removes_most_slots_needs_leave(scene: Scene, root: Root) -> None:
    await root.taken_up(slots("a"))
    await root.taken_up(FIRST)
    events = await back(scene)
    assert events[-1]["converged"] is False
    assert set(scene.host.files) == {"a", "b", "c"}
    await root.taken_up(FIRST)
    events = await back(scene, prune_all=True)
    assert events[-1]["converged"] is True
    assert set(scene.host.files) == {"a"}


async def test_no_pass_sees_the_files_half_way(scene: Scene, root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    await root.taken_up(FIRST)
    await root.taken_up(SECOND)
    scene.runtime.calls.clear()
    real, done, half_way = rewrite, asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def slow(*args: Any) -> None:
        half = root.path / "a.yaml"
        text = half.read_text()
        half.unlink()
        half_way.set()
        waited = asyncio.run_coroutine_threadsafe(done.wait(), loop)
        waited.result(10)
        half.write_text(text)
        real(*args)

    monkeypatch.setattr(module, "rewrite", slow)
    going = asyncio.create_task(back(scene))
    assert await asyncio.to_thread(half_way.wait, 10)
    pass_ = asyncio.create_task(scene.reconciler.run(frozenset({MANIFESTS})))
    await asyncio.sleep(0.2)
    assert not pass_.done()
    done.set()
    await going
    await pass_
    assert root.texts() == FIRST
    assert scene.states() == dict.fromkeys("abc", SlotState.READY)


async def test_a_root_that_is_one_file_gets_its_own_text_back(scene: Scene, root: Root) -> None:
    one = "---\n".join(FIRST.values())
    (root.path / "all.yaml").write_text(one)
    (root.path / "other.yaml").write_text("kind: none of ours\n")
    scene.reconciler.source.root = ManifestRoot(root.path / "all.yaml")
    scene.reconciler.queue.add(MANIFESTS)
    await scene.pass_(5)
    (root.path / "all.yaml").write_text(one + "context_size: 9\n")
    scene.reconciler.queue.add(MANIFESTS)
    await scene.pass_(5)
    assert (await back(scene))[0]["written"] == ["all.yaml"]
    assert root.texts() == {"all.yaml": one, "other.yaml": "kind: none of ours\n"}


async def test_a_rollback_brings_the_lock_back_that_was_in_force(scene: Scene) -> None:
    root = Root(scene)
    lock = root.path / LOCK_NAME
    old, new = (lock_text(Lock({}, {"ggml-org/llama.cpp:server": ImagePin(f"sha256:{at * 64}")})) for at in "01")
    lock.write_text(old)
    await root.taken_up(FIRST)
    await scene.pass_(60)
    assert scene.states()["a"] is SlotState.READY
    lock.write_text(new)
    await root.taken_up(SECOND)
    await scene.pass_(60)
    assert scene.reconciler.desired.slots["a"].spec.image.endswith("1" * 64)
    events = [event async for event in rollback(scene.reconciler, RollbackRequest(timeout=0))]
    assert LOCK_NAME in events[0]["written"]
    assert lock.read_text() == old
    assert scene.reconciler.desired.slots["a"].spec.image.endswith("0" * 64)


async def test_a_rollback_to_a_time_without_a_lock_takes_it_away(scene: Scene) -> None:
    root = Root(scene)
    root.put(FIRST)
    root.git("init", "--quiet")
    before = root.commit()
    lock = root.path / LOCK_NAME
    lock.write_text(lock_text(Lock()))
    root.commit()
    await root.taken_up(FIRST)
    events = [event async for event in rollback(scene.reconciler, RollbackRequest(rev=before, timeout=0))]
    assert (events[0]["written"], events[0]["removed"]) == ([], [LOCK_NAME])
    assert not lock.exists()


async def test_a_rollback_to_a_commit_with_a_lock_brings_it_back(scene: Scene) -> None:
    root = Root(scene)
    root.put(FIRST)
    lock = root.path / LOCK_NAME
    lock.write_text(lock_text(Lock()))
    root.git("init", "--quiet")
    before = root.commit()
    lock.unlink()
    root.commit()
    await root.taken_up(FIRST)
    events = [event async for event in rollback(scene.reconciler, RollbackRequest(rev=before, timeout=0))]
    assert (events[0]["written"], events[0]["removed"]) == ([LOCK_NAME], [])
    assert lock.read_text() == lock_text(Lock())
