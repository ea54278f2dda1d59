"""The arbiter's word on single worlds: what is not seen, who comes first, and what is probed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from fakes import FakeHost
from worlds import MODEL, desired

from hal0.core.arbiter import overcommitted
from hal0.core.claims import claim_of
from hal0.core.facts import Fact, Known, Unknown
from hal0.core.modelfile import ModelFile
from hal0.core.observed import Observed, ProbeResult
from hal0.core.plan import plan
from hal0.core.pools import Pool
from hal0.core.schedule import Demand, Ground, Standing, Verdict
from hal0.core.steps import StepKind
from hal0.core.world import World

NO_FILE = ModelFile(Unknown("no file"), Unknown("no file"))
ASKED = Demand(5.0, waiting=1, since=5.0)
IDLE = Demand(5.0)


def world(up_now: str, slots: dict[str, dict[str, Any]], pool: Pool | None = None, **demand: Demand) -> World:
    """Return a world in which the slots of ``up_now`` are up, and all take their memory from ``ram``, of 10 bytes."""
    up = frozenset(up_now.split())
    text = MODEL + "".join(
        f"---\nkind: Slot\nname: {name}\nmodel: m\n" + "".join(f"{key}: {value}\n" for key, value in keys.items())
        for name, keys in slots.items()
    )
    wanted = desired(text)
    assert wanted.problems == ()
    host = FakeHost(images={next(iter(wanted.slots.values())).spec.image: "id"})
    ram: Fact[Pool] = Known(pool or Pool("ram", 10, None, stated=True))
    claims = {name: claim_of(slot.spec, NO_FILE, None) for name, slot in wanted.slots.items()}
    empty = World(wanted, Observed({name: host.observe(name, "") for name in slots}), now=100.0, claims=claims)
    asked = dict.fromkeys(slots, ASKED)
    host.carry_out(plan(replace(empty, demand=asked)).limited(up))
    seen = {name: host.observe(name, wanted.slots[name].spec.image) for name in slots}
    seen |= {name: replace(seen[name], probe=Known(ProbeResult.UP), active_since=1.0, up_since=2.0) for name in up}
    return replace(empty, observed=Observed(seen, pools={"ram": ram}), demand=demand, held=claims)


def lazy(claim: int, **keys: Any) -> dict[str, Any]:
    return {"run": "on-demand", "claim": claim, **keys}


def verdict(now: World, name: str) -> Verdict:
    return plan(now).placement.verdicts[name]


def test_what_cant_be_seen_holds_its_memory_and_does_not_go() -> None:
    now = world("a", {"a": lazy(6), "b": lazy(6)}, a=IDLE, b=ASKED)
    assert verdict(now, "a").standing is Standing.EVICTED
    lost = {**now.observed.slots, "a": replace(now.observed.slots["a"], service=Unknown("the bus is gone"))}
    blind = replace(now, observed=replace(now.observed, slots=lost))
    assert verdict(blind, "a").standing is Standing.ADMITTED
    assert verdict(blind, "b").standing is Standing.WAITS
    assert {step.kind for step in plan(blind).steps} <= {StepKind.WRITE, StepKind.RELOAD}


def test_a_slot_in_a_batch_holds_its_memory_until_it_was_looked_at() -> None:
    slots = {"a": lazy(6), "b": lazy(6)}
    assert plan(world("", slots, a=IDLE, b=ASKED)).placement.verdicts["b"].standing is Standing.ADMITTED
    busy = replace(world("", slots, a=ASKED, b=ASKED), busy=frozenset("a"))
    assert verdict(busy, "b").standing is Standing.WAITS
    leaving = replace(world("a", slots, a=IDLE, b=ASKED), busy=frozenset("a"), stopping=frozenset("a"))
    assert verdict(leaving, "b").standing is Standing.WAITS
    assert verdict(leaving, "a").standing is Standing.ADMITTED  # it goes already: nobody is asked a second time


def test_a_large_slot_that_waits_is_not_overtaken_by_a_small_one() -> None:
    slots = {"busy": lazy(6), "large": lazy(8), "small": lazy(3)}
    at_work, later = Demand(99.0, serving=1), Demand(99.0, waiting=1, since=99.0)
    alone = world("", slots, small=later)
    assert verdict(alone, "small").standing is Standing.ADMITTED
    found = world("busy", slots, busy=at_work, large=Demand(98.0, waiting=1, since=98.0), small=later)
    assert [verdict(found, name).standing for name in ("large", "small")] == [Standing.WAITS, Standing.WAITS]
    assert "large 8 B (stated)" in verdict(found, "small").why


def test_no_more_go_than_it_takes_and_the_least_recently_used_first() -> None:
    slots = {"a": lazy(1), "b": lazy(4), "c": lazy(4), "new": lazy(5)}
    a, b, c = (Demand(used) for used in (1.0, 3.0, 2.0))
    verdicts = plan(world("a b c", slots, a=a, b=b, c=c, new=ASKED)).placement.verdicts
    assert [name for name in slots if verdicts[name].standing is Standing.EVICTED] == ["c"]


def test_who_has_waited_longest_comes_first_of_equals() -> None:
    slots = {"a": lazy(6), "b": lazy(6)}
    earlier = Demand(5.0, waiting=1, since=4.0)
    starts = [
        change.slot for change in plan(world("", slots, a=ASKED, b=earlier)).changes if change.has(StepKind.START)
    ]
    assert starts == ["b"]


def test_ram_that_was_probed_keeps_a_slot_waiting_and_stops_none() -> None:
    probed = Pool("ram", 10, 7, stated=False)
    now = world("a", {"a": lazy(6), "b": lazy(3)}, probed, a=IDLE, b=ASKED)
    assert verdict(now, "b") == Verdict(
        up=True,
        why="pool ram has 2 B free; b claims 3 B (stated)",
        standing=Standing.WAITS,
        ground=Ground.MEMORY,
    )
    assert verdict(now, "a").standing is Standing.ADMITTED
    assert verdict(world("a", {"a": lazy(6), "b": lazy(2)}, probed, b=ASKED), "b").standing is Standing.ADMITTED


def test_a_slot_of_a_pool_that_is_not_known_is_held_to_none() -> None:
    now = world("a", {"a": lazy(6), "b": lazy(6)}, a=IDLE, b=ASKED)
    unknown = replace(now, observed=replace(now.observed, pools={"ram": Unknown("no /proc")}))
    assert verdict(unknown, "b").standing is Standing.ADMITTED
    assert plan(unknown).placement.pools == {}


def test_the_sets_that_do_not_fit_are_judged_without_what_comes_and_goes() -> None:
    slots = {"a": {"claim": 6}, "b": {"claim": 4}, "c": {"claim": 1}, "lazy": lazy(9)}
    assert list(overcommitted(world("", slots))) == ["c"]
    assert list(overcommitted(world("c", slots))) == ["b"]  # who is up stays
    assert overcommitted(world("", {"a": {"claim": 6}, "b": {"claim": 4}, "lazy": lazy(9)})) == {}
    higher = overcommitted(world("a", {"a": {"claim": 6}, "b": {"claim": 6, "priority": 1}}))
    assert higher == {"a": "makes room for b: memory"}
