"""Engines that are replaced beside those that serve: the whole of it, on a host in memory and with a fake clock."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import pytest
from fakes import SILENT
from scenes import MODEL, Scene, calm, slot

from hal0.core.conditions import ConditionType
from hal0.core.engines import stand_in_of
from hal0.core.facts import Known
from hal0.core.observed import ProbeResult
from hal0.core.pools import RAM, Pool
from hal0.core.steps import Action, Change, Plan
from hal0.errors import StepFailed
from hal0.host.ports import MANIFESTS
from hal0.loop.acts import ActRequest, Verb, act
from hal0.loop.reconcile import Leave

IMAGE = "ggml-org/llama.cpp:server"
NEXT = "chat.next"
PORT, SPARE = 8081, 8099
SIZE, ROOM = 200 * 2**20, 8 * 2**30
RECONCILING, STALLED, SYNCED = ConditionType.RECONCILING, ConditionType.STALLED, ConditionType.SYNCED
OLD, NEW = 512, 1024
Story = list[tuple[str, dict[str, int]]]


def pool(total: int = ROOM, used: int | None = 0) -> dict[str, Known[Pool]]:
    return {RAM: Known(Pool(RAM, total, used, stated=True))}


def chat(size: int, **settings: object) -> dict[str, str]:
    return slot("chat", context_size=size, **settings)


@pytest.fixture
async def ready(scene: Scene) -> Scene:
    """A slot that is ready, on a host with memory for another engine of 200 MiB."""
    with (scene.folder / "models" / "m.gguf").open("wb") as file:
        file.truncate(SIZE)
    scene.host.images[IMAGE] = "id"
    scene.hardware.table.update(pool())
    scene.declare(MODEL, chat(OLD))
    await scene.until(lambda: scene.slot("chat").is_settled)
    return scene


def edit(scene: Scene, **settings: object) -> None:
    scene.declare(MODEL, chat(NEW, **settings))


def sizes(scene: Scene) -> dict[str, int]:
    """Return the context size of each engine that runs, by its key."""
    commands = {name: list(found.command) for name, found in scene.host.instances.items()}
    return {name: int(words[words.index("--ctx-size") + 1]) for name, words in commands.items()}


def told(scene: Scene, kind: ConditionType, name: str = "chat") -> tuple[bool | None, str, str]:
    found = scene.slot(name).condition(kind)
    return found.status, found.reason, found.message


def action(plan: Plan, engine: str) -> tuple[Action, list[str]]:
    change = plan.change(engine)
    assert change
    return change.action, [str(reason) for reason in change.reasons]


async def passes(scene: Scene, seconds: float = 120.0) -> AsyncIterator[int]:
    """Make passes one by one, as time goes by; yield after each of them."""
    end, count = scene.clock.now() + seconds, 0
    while (due := scene.reconciler.queue.next_due()) is not None and due <= end:
        scene.clock.time = max(due, scene.clock.time)
        if keys := scene.reconciler.queue.take(scene.clock.now()):
            await scene.reconciler.run(keys)
            count += 1
            yield count
        await calm()


async def story(scene: Scene, seconds: float = 120.0) -> Story:
    """Return, each time that it changed, whom requests went to and who ran. Somebody serves at every moment."""
    moments: Story = []
    async for _ in passes(scene, seconds):
        found = scene.slot("chat")
        assert found.is_ready
        assert found.engine in scene.host.instances
        assert scene.reconciler.demands.is_open(found.engine)
        now = (found.engine, sizes(scene))
        if not moments or moments[-1] != now:
            moments.append(now)
    return moments


def nothing_is_left(scene: Scene) -> bool:
    """Return whether no trace of a stand-in is left on the host or in the store."""
    left = {*scene.host.files, *scene.host.instances, *scene.store.stand_ins, *scene.store.started}
    return NEXT not in left


async def flipped(scene: Scene) -> None:
    """Make passes until requests go to the stand-in."""
    async for _ in passes(scene):
        if scene.slot("chat").engine == NEXT:
            return
    raise AssertionError("nobody flipped")


BESIDE = [
    ("chat", {"chat": OLD}),
    ("chat", {"chat": OLD, NEXT: NEW}),
    (NEXT, {"chat": OLD, NEXT: NEW}),
    (NEXT, {"chat": NEW, NEXT: NEW}),
    ("chat", {"chat": NEW, NEXT: NEW}),
    ("chat", {"chat": NEW}),
]


# Beside.


async def test_an_edit_is_loaded_beside_the_engine_that_serves_and_is_never_without_one(ready: Scene) -> None:
    edit(ready)
    assert await story(ready) == BESIDE
    assert nothing_is_left(ready)
    assert (await ready.plan()).is_empty
    assert ready.slot("chat").is_settled
    assert ready.completer.asked == [SPARE, PORT]
    assert [change.before for change in ready.store.ledger.transitions("chat")][:1] == ["warming"]


async def test_the_plan_says_how_and_why_and_what_is_done_first(ready: Scene) -> None:
    edit(ready)
    current = await ready.plan()
    why = "beside: pool ram has 7.8 GiB left, it claims 200.0 MiB"
    assert action(current, "chat") == (Action.UPDATE, ["context_size: 512 -> 1024", why])
    first, then = action(current, NEXT)
    assert (first, then[0]) == (Action.CREATE, why)
    assert len(current.changes) == 2
    assert current.summary() == "Plan: 0 to create, 1 to change, 0 to delete."


async def test_the_status_says_who_serves_and_how_far_it_is(ready: Scene) -> None:
    edit(ready)
    ready.prober.answers[NEXT] = ProbeResult.LOADING
    await story(ready, 5)
    assert told(ready, RECONCILING) == (True, "Replacing", "its stand-in loads")
    assert told(ready, SYNCED)[:2] == (False, "ChangePending")
    ready.prober.answers = {"chat": ProbeResult.LOADING}
    await flipped(ready)
    found = ready.slot("chat")
    assert (found.spec.port, found.serves.port, found.serves.key, found.serves.name) == (PORT, SPARE, NEXT, "chat")
    assert told(ready, RECONCILING) == (True, "Replacing", "its stand-in serves on port 8099")
    assert found.service
    assert found.service.invocation == "chat.next-1"


async def test_the_stand_in_serves_on_while_the_slots_own_engine_does_not_get_ready(ready: Scene) -> None:
    edit(ready)
    await flipped(ready)
    ready.prober.answers["chat"] = ProbeResult.LOADING
    await story(ready, 3600)
    assert ready.slot("chat").engine == NEXT
    ready.prober.answers.clear()
    ready.look("chat")
    await ready.until(lambda: ready.slot("chat").engine == "chat")
    await ready.until(lambda: nothing_is_left(ready))


async def test_the_old_engine_drains_while_new_requests_go_to_the_stand_in(ready: Scene) -> None:
    ready.demand("chat")
    ready.reconciler.demands.serve("chat")
    edit(ready)
    await flipped(ready)
    assert sizes(ready) == {"chat": OLD, NEXT: NEW}
    assert not ready.reconciler.demands.is_open("chat")
    ready.reconciler.demands.end("chat", served=True)
    await story(ready)
    assert sizes(ready) == {"chat": NEW}


async def test_an_image_is_pulled_while_the_old_engine_serves(ready: Scene) -> None:
    profile = {"p.yaml": "kind: Profile\nname: p\nimage: other:1\n"}
    ready.declare(MODEL, profile, chat(NEW, profile="p"))
    moments = await story(ready)
    assert ready.runtime.calls.count("pull other:1") == 1
    assert moments == BESIDE


async def test_a_stand_in_has_a_port_of_its_own_and_keeps_it(scene: Scene) -> None:
    scene.host.images[IMAGE] = "id"
    scene.hardware.table.update(pool())
    names = ["a", "b", "c"]
    scene.declare(MODEL, *(slot(name, context_size=OLD) for name in names))
    await scene.until(lambda: all(scene.slot(name).is_settled for name in names))
    for name in names:
        scene.prober.answers[stand_in_of(name)] = ProbeResult.LOADING
    scene.declare(MODEL, *(slot(name, context_size=NEW) for name in names), slot("d", port=SPARE), slot("e"))
    await scene.pass_(30)
    ports = {engine: spec.port for engine, spec in scene.store.stand_ins.items()}
    assert ports == {"a.next": 8098, "b.next": 8097, "c.next": 8096}
    assert [scene.slot(name).spec.port for name in "abcde"] == [8081, 8082, 8083, SPARE, 8084]
    scene.prober.answers.clear()
    await scene.until(lambda: all(scene.slot(name).is_settled for name in names))
    assert not scene.store.stand_ins


async def test_memory_is_promised_to_one_stand_in_at_a_time(scene: Scene) -> None:
    with (scene.folder / "models" / "m.gguf").open("wb") as file:
        file.truncate(SIZE)
    scene.host.images[IMAGE] = "id"
    scene.hardware.table.update(pool(3 * SIZE))
    scene.declare(MODEL, slot("a", context_size=OLD), slot("b", context_size=OLD))
    await scene.until(lambda: all(found.is_settled for found in scene.reconciler.snapshot.slots.values()))
    scene.declare(MODEL, slot("a", context_size=NEW), slot("b", context_size=NEW))
    current = await scene.plan()
    assert action(current, "a")[1][-1] == "beside: pool ram has 200.0 MiB left, it claims 200.0 MiB"
    done, reasons = action(current, "b")
    assert done is Action.WAIT
    assert "in place: pool ram has 0 B left, and it claims 200.0 MiB" in reasons
    await scene.pass_(60)
    assert scene.host.starts == {"a": 2, "a.next": 1, "b": 2}


# In place.


@pytest.mark.parametrize(
    ("table", "settings", "why"),
    [
        ({}, {}, "what of memory it would take is not known"),
        (pool(3 * SIZE // 2), {}, "pool ram has 100.0 MiB left, and it claims 200.0 MiB"),
        (pool(ROOM, ROOM - SIZE // 2), {}, "pool ram has 100.0 MiB left, and it claims 200.0 MiB"),
        (pool(), {"replace": "in-place"}, "replace: in-place"),
    ],
)
async def test_without_room_or_leave_the_engine_is_replaced_in_place(
    ready: Scene, table: dict[str, Known[Pool]], settings: dict[str, str], why: str
) -> None:
    ready.hardware.table.clear()
    ready.hardware.table.update(table)
    edit(ready, **settings)
    done, reasons = action(await ready.plan(), "chat")
    assert (done, reasons[0], reasons[-1]) == (Action.UPDATE, "context_size: 512 -> 1024", f"in place: {why}")
    await ready.pass_(60)
    assert sizes(ready) == {"chat": NEW}
    assert NEXT not in ready.host.starts
    assert ready.slot("chat").is_settled


async def test_drop_ins_of_the_operators_keep_a_slot_from_having_a_stand_in(ready: Scene) -> None:
    ready.host.operator_dropins["chat"] = ("/etc/mine.conf",)
    edit(ready)
    assert action(await ready.plan(), "chat")[1][-1] == "in place: drop-ins of yours would not hold for a second unit"


async def test_drift_a_restart_and_a_crash_are_mended_in_place(ready: Scene) -> None:
    instance = ready.host.instances["chat"]
    ready.host.instances["chat"] = replace(instance, command=(*instance.command, "--mine"))
    ready.look("chat")
    await ready.pass_(60)
    async with ready.driven():
        _ = [event async for event in act(ready.reconciler, ActRequest("chat", Verb.RESTART, "eve"))]
    ready.host.die("chat")
    ready.look("chat")
    await ready.pass_(600)
    assert ready.host.starts == {"chat": 4}


async def test_a_slot_that_is_not_ready_is_replaced_in_place_and_nothing_is_said_of_it(ready: Scene) -> None:
    ready.host.die("chat")
    ready.look("chat")
    edit(ready)
    assert "in place" not in str((await ready.plan()).changes)
    await ready.pass_(60)
    assert ready.host.starts == {"chat": 2}


# A spec that does not work.


def crashes(scene: Scene) -> None:
    scene.host.doomed.add(NEXT)


def is_silent(scene: Scene) -> None:
    scene.completer.replies[SPARE] = SILENT


def is_late(scene: Scene) -> None:
    scene.prober.answers[NEXT] = ProbeResult.LOADING


def does_not_start(scene: Scene) -> None:
    scene.runtime.faults[f"start {NEXT}"] = StepFailed("no such device")


@pytest.mark.parametrize(
    ("breaks", "why"),
    [
        (crashes, "the service failed: start-limit-hit; last lines: out of memory"),
        (is_silent, "the engine does not answer a real request: no answer in 45 s"),
        (is_late, "not ready within 10m, or its probe fails"),
        (does_not_start, "no such device"),
    ],
)
async def test_the_old_engine_never_leaves_where_the_new_one_does_not_work(
    ready: Scene, breaks: Callable[[Scene], None], why: str
) -> None:
    breaks(ready)
    ready.runtime.last_lines = ["out of memory"]
    edit(ready)
    async for _ in passes(ready, 900):
        assert ready.slot("chat").is_ready
        assert ready.slot("chat").engine == "chat"
        if told(ready, STALLED)[0] and NEXT not in ready.host.instances:
            break
    status, reason, message = told(ready, STALLED)
    assert (status, reason) == (True, "ReplacementFailed")
    assert message.startswith(f"its stand-in failed: {why}; the old engine stays, and the next try is in ")
    assert ready.slot("chat").failure == message
    assert ready.host.starts["chat"] == 1
    assert sizes(ready)["chat"] == OLD


async def test_a_spec_that_does_not_work_is_tried_again_ever_less_often(ready: Scene) -> None:
    crashes(ready)
    edit(ready)
    await story(ready, 24 * 3600)
    assert 24 * 3600 / 360 <= ready.host.starts[NEXT] <= 24 * 3600 / 300 + 10
    assert ready.host.starts["chat"] == 1
    ready.host.doomed.clear()
    await ready.until(lambda: ready.slot("chat").is_settled and not ready.slot("chat").failure)
    assert sizes(ready) == {"chat": NEW}
    assert not ready.reconciler.attempts


async def test_another_edit_is_tried_at_once_and_the_old_spec_ends_it(ready: Scene) -> None:
    crashes(ready)
    edit(ready)
    await ready.until(lambda: told(ready, STALLED)[0] and nothing_is_left(ready))
    ready.declare(MODEL, chat(2048))
    await ready.settle()
    assert ready.host.starts[NEXT] == 2
    ready.declare(MODEL, chat(OLD))
    assert await story(ready) == [("chat", {"chat": OLD})]
    assert ready.slot("chat").is_settled
    assert not ready.slot("chat").failure
    assert nothing_is_left(ready)
    assert not ready.reconciler.attempts


async def test_a_retry_tries_at_once(ready: Scene) -> None:
    crashes(ready)
    edit(ready)
    await ready.until(lambda: told(ready, STALLED)[0] and nothing_is_left(ready))
    ready.host.doomed.clear()
    async with ready.driven(flowing=True):
        events = [event async for event in act(ready.reconciler, ActRequest("chat", Verb.RETRY, "eve"))]
    assert events[-1]["converged"] is True
    assert sizes(ready) == {"chat": NEW}


async def test_a_model_that_is_missing_is_told_and_nothing_is_stopped(ready: Scene) -> None:
    ready.declare(MODEL, {"big.yaml": "kind: Model\nname: big\npath: big.gguf\n"}, slot("chat", context_size=OLD))
    ready.manifests.files["chat.yaml"] = ready.manifests.files["chat.yaml"].replace("model: m", "model: big")
    await ready.pass_(60)
    assert sizes(ready) == {"chat": OLD}
    assert ready.slot("chat").is_ready
    status, reason, message = told(ready, STALLED)
    assert (status, reason) == (True, "ModelMissing")
    assert "big.gguf (put the file there" in message


# Whatever comes between.

AT = range(1, 14)


async def upto(scene: Scene, count: int) -> None:
    """Make some passes of a replacement."""
    if count:
        async for done in passes(scene):
            if done == count:
                return


@pytest.mark.parametrize("count", AT)
async def test_a_hal0_that_is_killed_at_any_moment_is_followed_by_one_that_goes_on(ready: Scene, count: int) -> None:
    edit(ready)
    await upto(ready, count)
    ready.restart()
    await story(ready)
    assert sizes(ready) == {"chat": NEW}
    assert nothing_is_left(ready)
    assert ready.slot("chat").is_settled


@pytest.mark.parametrize("count", AT)
async def test_a_lost_store_loses_no_engine(ready: Scene, count: int) -> None:
    edit(ready)
    await upto(ready, count)
    (ready.folder / "hal0.db").write_bytes(b"garbage")
    ready.restart()
    await story(ready)
    before = sizes(ready)
    if ready.store.overrides.rows:  # nobody knows why it runs what it runs: it is held until somebody says
        await story(ready, 600)
        assert sizes(ready) == before
        async with ready.driven():
            _ = [event async for event in act(ready.reconciler, ActRequest("chat", Verb.RESET, "eve", wait=False))]
        await story(ready)
    assert sizes(ready) == {"chat": NEW}
    assert nothing_is_left(ready)


@pytest.mark.parametrize("count", AT)
async def test_manifests_that_break_meanwhile_leave_one_engine(ready: Scene, count: int) -> None:
    edit(ready)
    await upto(ready, count)
    ready.declare(MODEL, {"chat.yaml": "kind: Slot\nname: chat\nmodel: m\ncontext_size: many\n"})
    await story(ready)
    assert list(sizes(ready)) == ["chat"]
    assert nothing_is_left(ready)
    assert list(ready.reconciler.snapshot.slots) == ["chat"]
    edit(ready)
    await story(ready)
    assert sizes(ready) == {"chat": NEW}


@pytest.mark.parametrize("count", AT)
async def test_an_edit_that_is_taken_back_ends_where_it_began(ready: Scene, count: int) -> None:
    edit(ready)
    await upto(ready, count)
    ready.declare(MODEL, chat(OLD))
    await story(ready)
    assert sizes(ready) == {"chat": OLD}
    assert nothing_is_left(ready)


@pytest.mark.parametrize("count", AT)
async def test_another_edit_on_the_way_ends_with_the_last_one(ready: Scene, count: int) -> None:
    edit(ready)
    await upto(ready, count)
    ready.declare(MODEL, chat(2048))
    await story(ready)
    assert sizes(ready) == {"chat": 2048}
    assert nothing_is_left(ready)


@pytest.mark.parametrize("count", AT)
@pytest.mark.parametrize("files", [MODEL, MODEL | chat(NEW, run="never")], ids=["undeclared", "never"])
async def test_a_slot_that_is_not_wanted_any_more_takes_its_stand_in_with_it(
    ready: Scene, count: int, files: dict[str, str]
) -> None:
    edit(ready)
    await upto(ready, count)
    ready.declare(files)
    ready.reconciler.leave = Leave(prune_all=True)
    await ready.pass_(60)
    assert sizes(ready) == {}
    assert nothing_is_left(ready)
    assert (await ready.plan()).is_empty


@pytest.mark.parametrize("count", AT)
async def test_nothing_is_dropped_while_nobody_can_look(ready: Scene, count: int) -> None:
    edit(ready)
    await upto(ready, count)
    await ready.reconciler.batches.settle()
    before, ready.runtime.blind = sizes(ready), "D-Bus is gone"
    await ready.pass_(60)
    assert set(before) <= set(sizes(ready))
    ready.runtime.blind = ""
    ready.look("chat")
    await ready.pass_(120)
    assert sizes(ready) == {"chat": NEW}
    assert nothing_is_left(ready)


@pytest.mark.parametrize("count", AT)
async def test_a_reboot_on_the_way_ends_with_the_slots_own_engine(ready: Scene, count: int) -> None:
    edit(ready)
    await upto(ready, count)
    for name in [*ready.host.instances]:
        ready.host.stop(name)
    ready.restart()
    await ready.pass_(120)
    assert sizes(ready) == {"chat": NEW}
    assert nothing_is_left(ready)


async def test_a_suspended_slot_and_its_stand_in_are_left_as_they_are(ready: Scene) -> None:
    edit(ready)
    await flipped(ready)
    await ready.reconciler.batches.settle()
    before = sizes(ready)
    ready.declare(MODEL, chat(NEW, suspend="true"))
    await ready.pass_(600)
    assert sizes(ready) == before
    ready.declare(MODEL, chat(NEW))
    await ready.pass_(60)
    assert sizes(ready) == {"chat": NEW}


# A stand-in is no slot.


async def test_a_stand_in_counts_as_no_slot_where_more_than_half_would_be_removed(scene: Scene) -> None:
    scene.host.images[IMAGE] = "id"
    scene.hardware.table.update(pool())
    scene.declare(MODEL, slot("a"), slot("b", context_size=OLD))
    await scene.until(lambda: all(found.is_settled for found in scene.reconciler.snapshot.slots.values()))
    scene.prober.answers["b.next"] = ProbeResult.LOADING
    scene.declare(MODEL, slot("a"), slot("b", context_size=NEW))
    await scene.pass_(5)
    assert "b.next" in scene.host.instances
    scene.declare(MODEL, slot("a"))
    await scene.pass_(60)
    assert list(scene.host.instances) == ["a"]
    assert not scene.store.stand_ins


async def test_a_stand_in_is_kept_with_a_slot_whose_removal_is_refused(ready: Scene) -> None:
    edit(ready)
    await flipped(ready)
    ready.declare(MODEL)
    current = await ready.plan()
    assert [(change.slot, change.action) for change in current.changes] == [("chat", Action.REFUSE)]


async def test_an_apply_that_is_limited_to_a_slot_is_so_to_its_stand_in_too(ready: Scene) -> None:
    ready.reconciler.leave = Leave(frozenset({"other"}))
    edit(ready)
    await ready.pass_(60)
    assert sizes(ready) == {"chat": OLD}
    ready.reconciler.leave = Leave(frozenset({"chat"}))
    ready.reconciler.queue.add(MANIFESTS)
    assert await story(ready) == BESIDE


async def test_the_views_know_of_slots_alone(ready: Scene) -> None:
    edit(ready)
    async for _ in passes(ready):
        assert list(ready.reconciler.snapshot.slots) == list(ready.store.specs) == ["chat"]
    assert {name for name, _ in ready.reconciler.counts.restarts} == {"chat"}
    acts = ready.store.ledger.acts("chat")
    assert [(found.action, found.why.split(":")[0]) for found in reversed(acts)][1:] == [
        ("create", "its stand-in"),
        ("update", "context_size"),
        ("delete", "its stand-in"),
    ]
    assert not ready.store.ledger.acts(NEXT)


def test_a_change_names_its_engine_and_a_plan_is_limited_by_slots() -> None:
    own, other = Change("chat", Action.WAIT, ()), Change(NEXT, Action.CREATE, ())
    plan = Plan((own, other, Change("embed", Action.CREATE, ())))
    assert plan.limited(frozenset({"chat"})).changes == (own, other)
    assert plan.part(frozenset({"chat"})).changes == (own,)
