from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from fakes import FakeHost
from headers import gguf
from scenes import Scene, slot, slots
from worlds import FACTS, desired

from hal0.core.facts import Fact, Known, Unknown
from hal0.core.observed import Activity, Observed, ProbeResult
from hal0.core.plan import plan
from hal0.core.pools import Claim, ClaimSource, Pool
from hal0.core.spec import Desired
from hal0.core.world import World
from hal0.host.measured import SCHEMA, Measured
from hal0.loop.lessons import Lessons

GIB = 2**30
GPU_SLOTS = "kind: Model\nname: m\npath: m.gguf\n" + "".join(
    f"---\nkind: Slot\nname: {name}\nmodel: m\ndevice: gpu-cuda\n" for name in ("a", "b")
)


@pytest.fixture
def measured() -> Iterator[Measured]:
    with closing(sqlite3.connect(":memory:")) as db:
        db.executescript(SCHEMA)
        yield Measured(db)


@dataclass
class Machine:
    """A host in memory whose GPU is used by whoever, and lessons that look at it."""

    lessons: Lessons
    wanted: Desired
    host: FakeHost = field(default_factory=FakeHost)
    used: int | None = 0
    probes: dict[str, ProbeResult] = field(default_factory=dict)
    blind: set[str] = field(default_factory=set)

    def start(self, *names: str) -> None:
        current = plan(World(self.wanted, self.observed()))
        self.host.carry_out(current.limited(frozenset(names)))

    def observed(self) -> Observed:
        found = {}
        for name, wanted in self.wanted.slots.items():
            seen = self.host.observe(name, wanted.spec.image)
            seen = replace(seen, probe=Known(self.probes.get(name, ProbeResult.UP)))
            found[name] = replace(seen, service=Unknown("gone")) if name in self.blind else seen
        pool: Fact[Pool] = Known(Pool("gpu", 16 * GIB, self.used, stated=False))
        return Observed(found, pools={"gpu": pool, "ram": Known(Pool("ram", 64 * GIB, 0, stated=False))})

    async def look(self, *only: str) -> None:
        seen = self.observed()
        await self.lessons.learn(self.wanted, {}, replace(seen, fresh=frozenset(only)) if only else seen)

    def claim(self, name: str = "a") -> Claim:
        return self.lessons.claims({name: slot.spec for name, slot in self.wanted.slots.items()})[name]


@pytest.fixture
def gpu(measured: Measured) -> Machine:
    return Machine(Lessons(measured), desired(GPU_SLOTS))


async def loaded(gpu: Machine, name: str = "a", takes: int = 5 * GIB) -> None:
    """Have a slot start, load for some looks, and be ready."""
    await gpu.look()
    gpu.start(name)
    gpu.probes[name] = ProbeResult.LOADING
    gpu.used = (gpu.used or 0) + takes // 2
    await gpu.look()
    gpu.used += takes - takes // 2
    gpu.probes[name] = ProbeResult.UP
    await gpu.look()


async def test_a_gpu_slot_holds_what_its_pool_has_in_use_more_than_before(gpu: Machine) -> None:
    gpu.used = 3 * GIB
    await loaded(gpu)
    assert gpu.claim().source is ClaimSource.MEASURED
    assert gpu.claim().bytes == 5 * GIB


async def test_what_others_take_later_is_not_its(gpu: Machine) -> None:
    await loaded(gpu)
    gpu.used = 15 * GIB
    await gpu.look()
    assert gpu.claim().bytes == 5 * GIB


async def test_each_start_is_measured_and_the_most_counts(gpu: Machine) -> None:
    for takes in (5 * GIB, 6 * GIB, 4 * GIB):
        await loaded(gpu, takes=takes)
        gpu.host.stop("a")
        gpu.used = 0
    assert gpu.claim().bytes == 6 * GIB


@pytest.mark.parametrize(
    "when", ["it begins to load", "it has loaded", "it goes", "it is lost sight of", "it can't be seen"]
)
async def test_a_start_beside_another_one_that_moves_teaches_nothing(gpu: Machine, when: str) -> None:
    if when == "it goes":
        gpu.start("b")
    if when == "it can't be seen":
        gpu.blind.add("b")
    await gpu.look()
    gpu.start("a")
    gpu.probes["b"] = ProbeResult.LOADING
    match when:
        case "it begins to load":
            gpu.start("b")
        case "it has loaded":
            gpu.start("b")
            gpu.probes.clear()
        case "it goes":
            gpu.host.stop("b")
        case _:
            gpu.blind.add("b")
    gpu.used = 5 * GIB
    await gpu.look()
    assert gpu.claim().source is ClaimSource.UNKNOWN


async def test_a_pool_that_does_not_say_its_use_teaches_nothing(gpu: Machine) -> None:
    await gpu.look()
    gpu.start("a")
    gpu.used = None
    await gpu.look()
    gpu.used = 5 * GIB
    await gpu.look()
    assert gpu.claim().source is ClaimSource.UNKNOWN


async def test_what_was_in_use_is_taken_only_while_the_slot_is_down(gpu: Machine) -> None:
    gpu.start("a")
    await gpu.look()
    gpu.used = 5 * GIB
    await gpu.look()
    gpu.host.activity["a"] = Activity.DEACTIVATING
    await gpu.look()
    gpu.host.start("a")
    gpu.used = 6 * GIB
    await gpu.look()
    assert gpu.claim().source is ClaimSource.UNKNOWN


async def test_a_look_at_others_teaches_nothing_of_a_slot(gpu: Machine) -> None:
    await loaded(gpu)
    gpu.host.stop("a")
    gpu.used = 0
    await gpu.look("b")
    gpu.start("a")
    gpu.used = 9 * GIB
    await gpu.look("a")
    assert gpu.claim().bytes == 5 * GIB


async def test_a_slot_in_ram_holds_the_most_that_its_service_did_while_it_was_ready(measured: Measured) -> None:
    ram = Machine(Lessons(measured), desired(GPU_SLOTS.replace("device: gpu-cuda\n", "")))
    ram.start("a")
    for probe, memory in ((ProbeResult.LOADING, 9), (ProbeResult.UP, 3), (ProbeResult.UP, 5), (ProbeResult.UP, 4)):
        ram.probes["a"], ram.host.memory["a"] = probe, memory * GIB
        await ram.look()
    assert ram.claim().bytes == 5 * GIB


async def test_a_slot_that_runs_something_else_than_declared_teaches_nothing(measured: Measured) -> None:
    ram = Machine(Lessons(measured), desired(GPU_SLOTS.replace("device: gpu-cuda\n", "")))
    ram.start("a")
    ram.host.memory["a"] = 5 * GIB
    ram.wanted = desired(GPU_SLOTS.replace("device: gpu-cuda\n", "context_size: 99\n"))
    await ram.look()
    assert ram.claim().source is ClaimSource.UNKNOWN


async def test_small_growth_is_not_written_at_each_look(measured: Measured) -> None:
    ram = Machine(Lessons(measured), desired(GPU_SLOTS.replace("device: gpu-cuda\n", "")))
    ram.start("a")
    for held in (1000, 1009, 1011):
        ram.host.memory["a"] = held
        await ram.look()
        assert ram.claim().bytes == (1011 if held == 1011 else 1000)


async def test_before_a_run_a_claim_is_estimated_from_the_models_header(tmp_path: Path, measured: Measured) -> None:
    facts = replace(FACTS, model_dir=str(tmp_path))
    ram = Machine(Lessons(measured), desired(GPU_SLOTS, facts=facts))
    (tmp_path / "m.gguf").write_bytes(gguf())
    await ram.look()
    assert ram.claim().source is ClaimSource.ESTIMATED
    (tmp_path / "m.gguf").write_bytes(b"something else")
    await ram.look()
    assert (ram.claim().source, ram.claim().bytes) == (ClaimSource.FILE, len(b"something else"))


async def test_what_was_applied_last_is_looked_at_too(tmp_path: Path, measured: Measured) -> None:
    (tmp_path / "m.gguf").write_bytes(gguf())
    owned = {"gone": desired(GPU_SLOTS, facts=replace(FACTS, model_dir=str(tmp_path))).slots["a"].spec}
    lessons = Lessons(measured)
    await lessons.learn(desired(""), owned, Observed({}))
    assert lessons.claims(owned)["gone"].source is ClaimSource.ESTIMATED


async def test_what_was_learnt_outlives_hal0(scene: Scene) -> None:
    scene.declare(slots("a"))
    await scene.settle()
    scene.host.memory["a"] = 5 * GIB
    scene.look("a")
    await scene.settle()
    scene.restart()
    await scene.settle()
    specs = {name: wanted.spec for name, wanted in scene.reconciler.desired.slots.items()}
    claim = scene.reconciler.lessons.claims(specs)["a"]
    assert (claim.source, claim.bytes) == (ClaimSource.MEASURED, 5 * GIB)


async def test_the_pools_are_observed_and_a_slot_that_moves_wants_them_fresh(scene: Scene) -> None:
    pool: Fact[Pool] = Known(Pool("ram", 64 * GIB, GIB, stated=False))
    scene.hardware.table["ram"] = pool
    scene.declare(slots("a"))
    await scene.settle()
    observer = scene.reconciler.observer
    assert observer.again(5.0) == Observed(observer.seen, 5.0, frozenset(), {"ram": pool})
    for change, is_fresh in ((None, False), ("stop", True), (None, False), ("start", True), (None, False)):
        if change:
            getattr(scene.host, change)("a")
        scene.hardware.asked.clear()
        await observer.look(scene.reconciler.desired, {}, {}, only=frozenset({"a"}), now=1.0)
        assert scene.hardware.asked == [is_fresh]
    scene.prober.answers["a"] = ProbeResult.FAILING
    await observer.look(scene.reconciler.desired, {}, {}, only=frozenset({"a"}), now=1.0)
    assert scene.hardware.asked == [False, True]


async def test_a_request_alone_asks_the_machine_nothing(scene: Scene) -> None:
    scene.declare(slot("a", run="on-demand"), slots())
    await scene.settle()
    scene.demand("a")
    await scene.settle()
    scene.hardware.asked.clear()
    await scene.reconciler.run(frozenset({"@use"}))
    assert scene.hardware.asked == []
