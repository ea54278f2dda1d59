from __future__ import annotations

import asyncio
from dataclasses import replace

from fakes import FakeProber
from scenes import MODEL, Scene, slot, slots

from hal0.core.observed import ProbeResult
from hal0.core.state import SlotState
from hal0.errors import StepFailed
from hal0.host.ledger import Apply
from hal0.loop import operations
from hal0.loop.history import history_json
from hal0.loop.operations import ApplyRequest

READY = SlotState.READY
BROKEN = {"bad.yaml": "kind: Slot\nname: bad\nmodel: m\ncolour: red\n"}


def rows(scene: Scene) -> list[Apply]:
    """Return every apply, oldest first."""
    return scene.store.ledger.applies(limit=1000)[::-1]


def told(scene: Scene) -> list[tuple[str, int, str, int]]:
    return [(row.who, row.generation, row.result, row.changes) for row in rows(scene)]


async def applied(scene: Scene, who: str = "eve", note: str = "") -> None:
    async with asyncio.timeout(10):
        events = aiter(operations.apply(scene.reconciler, ApplyRequest(who=who, note=note)))
        await anext(events)
        async with scene.driven(flowing=True):
            assert [event["event"] async for event in events][-1] == "recap"


async def up(scene: Scene, *files: dict[str, str]) -> None:
    scene.declare(*files)
    await scene.until(lambda: set(scene.states().values()) == {READY})


async def test_files_that_hal0_takes_up_by_itself_are_a_row_that_ends_when_all_is_settled(scene: Scene) -> None:
    scene.prober = FakeProber({"chat": ProbeResult.LOADING})
    scene.reconciler = scene.make()
    scene.declare(slots("chat", "embed"))
    await scene.pass_(30)
    assert told(scene) == [("manifests", 1, "", 2)]
    scene.prober.answers.clear()
    await scene.pass_(1)
    assert told(scene) == [("manifests", 1, "converged", 2)]
    (row,) = rows(scene)
    assert row.revision == "abc"
    assert row.ended is not None
    assert 30 <= row.ended - row.at <= 31.5


async def test_what_heals_or_wakes_afterwards_is_no_apply(scene: Scene) -> None:
    await up(scene, slots("chat"))
    scene.host.stop("chat")
    scene.look("chat")
    await scene.pass_(600)
    assert told(scene) == [("manifests", 1, "converged", 1)]


async def test_an_apply_has_who_asked_for_it_whether_or_not_there_is_anything_to_do(scene: Scene) -> None:
    scene.declare(slots("chat"))
    await applied(scene, "eve", "a first try")
    await applied(scene, "bob")
    assert told(scene) == [("eve", 1, "converged", 1), ("bob", 1, "converged", 0)]
    assert [row.summary for row in rows(scene)] == ["a first try", ""]


async def test_an_apply_of_files_that_hal0_saw_first_is_one_row_and_the_persons(scene: Scene) -> None:
    scene.prober.answers["chat"] = ProbeResult.LOADING
    scene.declare(slots("chat"))
    await scene.settle()
    assert told(scene) == [("manifests", 1, "", 1)]
    scene.prober.answers.clear()
    await applied(scene)
    assert told(scene) == [("eve", 1, "converged", 1)]


async def test_a_newer_generation_supersedes_what_is_under_way(scene: Scene) -> None:
    scene.prober.answers["chat"] = ProbeResult.LOADING
    scene.declare(slots("chat"))
    await scene.settle()
    scene.declare(MODEL, slot("chat", context_size=9))
    await scene.settle()
    scene.prober.answers.clear()
    await scene.pass_(5)
    assert told(scene) == [("manifests", 1, "superseded", 1), ("manifests", 2, "converged", 1)]


async def test_a_slot_that_fails_is_named_with_its_error(scene: Scene) -> None:
    scene.runtime.faults["start bad"] = StepFailed("no such device", hint="plug it in")
    scene.declare(slots("bad", "good"))
    await scene.pass_(1)
    (row,) = rows(scene)
    assert (row.result, row.changes) == ("failed", 2)
    assert row.summary.startswith("bad: ")
    assert "no such device plug it in" in row.summary


async def test_a_new_spec_of_a_slot_in_error_has_not_failed_before_it_was_tried(scene: Scene) -> None:
    scene.host.doomed.add("chat")
    scene.declare(slots("chat"))
    await scene.pass_(1)
    assert [row.result for row in rows(scene)] == ["failed"]
    scene.host.doomed.clear()
    scene.declare(MODEL, slot("chat", context_size=9))
    await scene.pass_(5)
    assert scene.states() == {"chat": READY}
    assert [row.result for row in rows(scene)] == ["failed", "converged"]


async def test_parts_of_broken_manifests_are_taken_up_but_have_not_converged(scene: Scene) -> None:
    scene.declare(slots("chat"), BROKEN)
    await scene.pass_(5)
    (row,) = rows(scene)
    assert (row.result, row.summary) == ("failed", "1 problem in the manifests")


async def test_a_slot_that_cant_be_seen_leaves_the_row_open(scene: Scene) -> None:
    scene.runtime.blind = "the bus is gone"
    scene.declare(slots("chat"))
    await scene.pass_(100)
    assert told(scene) == [("manifests", 1, "", 0)]


async def test_the_row_of_a_killed_daemon_is_ended_by_the_next(scene: Scene) -> None:
    scene.prober.answers["chat"] = ProbeResult.LOADING
    scene.declare(slots("chat"))
    await scene.settle()
    scene.restart()
    assert told(scene) == [("manifests", 1, "", 1)]
    scene.prober.answers.clear()
    await scene.pass_(60)
    assert told(scene) == [("manifests", 1, "converged", 1)]


async def test_a_restart_of_hal0_is_no_apply(scene: Scene) -> None:
    await up(scene, slots("chat"))
    scene.restart()
    await scene.pass_(600)
    assert len(rows(scene)) == 1


async def test_history_is_told_newest_first(scene: Scene) -> None:
    scene.declare(slots("chat"))
    await applied(scene)
    await applied(scene, "bob")
    found = history_json(scene.store.ledger, limit=1)
    (row,) = found["applies"]
    assert (found["version"], row["who"], row["result"], row["generation"], row["revision"]) == (
        *(1, "bob", "converged"),
        *(1, "abc"),
    )
    assert row["seconds"] >= 0


# The archive.


def kept(scene: Scene, generation: int) -> dict[str, str] | None:
    found = scene.store.ledger.revision(generation)
    return dict(found.files) if found else None


async def test_sound_manifests_are_kept_with_their_generation(scene: Scene) -> None:
    first, second = slots("chat"), {**MODEL, **slot("chat", context_size=9)}
    await up(scene, first)
    await up(scene, second)
    assert (kept(scene, 1), kept(scene, 2), kept(scene, 3)) == (first, second, None)


async def test_a_comment_makes_no_generation_but_is_kept(scene: Scene) -> None:
    await up(scene, slots("chat"))
    noted = slots("chat") | {"chat.yaml": "# why\n" + slots("chat")["chat.yaml"]}
    await up(scene, noted)
    assert kept(scene, 1) == noted


async def test_broken_manifests_are_not_kept(scene: Scene) -> None:
    await up(scene, slots("chat"))
    scene.declare(slots("chat"), BROKEN)
    await scene.settle()
    assert kept(scene, 1) == slots("chat")
    assert len(scene.store.ledger.converged()) == 1


async def test_unchanged_manifests_are_kept_once_across_restarts(scene: Scene) -> None:
    await up(scene, slots("chat"))
    for _ in range(3):
        scene.restart()
        await scene.pass_(100)
    assert len(scene.store.ledger.converged()) == 1


def test_a_row_is_told_as_it_was_begun(scene: Scene) -> None:
    begun = Apply(0, 1.0, "eve", 7, "abc", atomic=True, summary="x")
    assert rows(scene) == []
    row = scene.store.ledger.open(begun)
    assert rows(scene) == [replace(begun, id=row.id)]
