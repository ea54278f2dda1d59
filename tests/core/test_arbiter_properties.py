"""The arbiter over generated lives: manifests, requests, blind looks, and plans carried out in any order of steps."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace
from itertools import permutations
from typing import Any

from fakes import FakeHost
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from worlds import MODEL, desired

from hal0.core.claims import claim_of
from hal0.core.exclusion import exclusion
from hal0.core.facts import Known, Unknown
from hal0.core.modelfile import ModelFile
from hal0.core.observed import Activity, Observed, ProbeResult, SlotObservation
from hal0.core.override import DOWN, UP, Aspect, Override
from hal0.core.plan import plan
from hal0.core.pools import pool_of
from hal0.core.schedule import Demand, Standing
from hal0.core.spec import Desired, SlotSpec
from hal0.core.steps import Action, Change, Plan, Step, StepKind, faults
from hal0.core.world import World

NAMES = ["a", "b", "c", "d"]
SIZE = 8
NO_FILE = ModelFile(Unknown("no file"), Unknown("no file"))
MOST_PASSES = 300
IMAGE = "ggml-org/llama.cpp:server"


@st.composite
def manifests(draw: st.DrawFn, name: str) -> dict[str, Any]:
    others = [other for other in NAMES if other != name]
    return {
        "run": draw(st.sampled_from(["always", "on-demand", "on-demand", "never"])),
        "type": draw(st.sampled_from(["llm", "llm", "image"])),
        "device": draw(st.sampled_from(["cpu", "gpu-vulkan"])),
        "profile": "llama-server-cpu",
        "priority": draw(st.sampled_from([0, 0, 1])),
        "pinned": draw(st.sampled_from(["false", "false", "false", "true"])),
        "exclusive_with": draw(st.sampled_from([[], [], [], others[:1]])),
        "claim": draw(st.integers(1, SIZE + 1)),
        "suspend": draw(st.sampled_from(["false", "false", "false", "true"])),
        "context_size": draw(st.sampled_from([512, 1024])),
        "idle_timeout": 60,
    }


@dataclass
class Life:
    """One hal0 on one host: passes that look and plan, and steps that are carried out one by one beside them."""

    wanted: Desired
    host: FakeHost = field(default_factory=lambda: FakeHost(images={IMAGE: "id"}))
    owned: dict[str, SlotSpec] = field(default_factory=dict)
    demand: dict[str, Demand] = field(default_factory=dict)
    blind: set[str] = field(default_factory=set)
    loading: set[str] = field(default_factory=set)
    up_since: dict[str, float] = field(default_factory=dict)
    batches: dict[str, deque[Step]] = field(default_factory=dict)
    stopping: set[str] = field(default_factory=set)
    overrides: dict[str, Override] = field(default_factory=dict)
    now: float = 1000.0

    def world(self) -> World:
        claims = {name: claim_of(slot.spec, NO_FILE, None) for name, slot in self.wanted.slots.items()}
        return World(
            desired=self.wanted,
            observed=Observed({name: self._observe(name) for name in NAMES}, self.now),
            owned=dict(self.owned),
            started=frozenset(self.host.starts),
            demand=dict(self.demand),
            overrides=tuple(self.overrides.values()),
            now=self.now,
            claims=claims,
            held={name: claim_of(spec, NO_FILE, None) for name, spec in self.owned.items()},
            busy=frozenset(self.batches),
            stopping=frozenset(self.stopping),
        )

    def _observe(self, name: str) -> SlotObservation:
        seen = self.host.observe(name, IMAGE)
        if name in self.blind:
            return replace(seen, service=Unknown("the bus is gone"))
        if not self.is_up(name):
            return seen
        answer = ProbeResult.LOADING if name in self.loading else ProbeResult.UP
        return replace(seen, probe=Known(answer), active_since=self.now, up_since=self.up_since.get(name))

    def is_up(self, name: str) -> bool:
        return self.host.activity.get(name, Activity.INACTIVE).is_up

    def serving(self, name: str) -> int:
        return self.demand[name].serving if name in self.demand else 0

    def waiting(self, name: str) -> int:
        return self.demand[name].waiting if name in self.demand else 0

    def begin(self) -> Plan:
        """Make a pass, as the loop does."""
        current = plan(self.world())
        assert list(faults(current)) == []
        for change in current.changes:
            if change.steps and change.slot not in self.batches:
                self._check_stop(current, change.slot, stops=change.stops)
                self.batches[change.slot] = deque(change.steps)
                if change.stops and not change.has(StepKind.START):
                    self.stopping.add(change.slot)
        return current

    def _check_stop(self, current: Plan, name: str, *, stops: bool) -> None:
        standing = current.placement.verdicts[name].standing
        assert not (stops and name in self.blind), "stopped while it can't be seen"
        if standing is Standing.EVICTED:
            spec = self.wanted.slots[name].spec
            is_fixed = spec.placing.pinned or spec.suspend
            assert not is_fixed, "what may not be moved was evicted"
            assert not self.serving(name), "evicted with requests at its engine"

    def step(self, name: str) -> None:
        """Carry out the next step of a batch."""
        step = self.batches[name].popleft()
        if step.kind is StepKind.DRAIN:
            self.answer(name)
        if step.kind is StepKind.WRITE:
            self.owned[name] = self.wanted.slots[name].spec
        if step.kind is StepKind.START:
            self._check_start(name)
            self.loading.add(name)
            self.up_since.pop(name, None)
        if step.kind is StepKind.STOP:
            self.loading.discard(name)
        self.host.carry_out(Plan((Change(name, Action.UPDATE, (), (step,)),)))
        if not self.batches[name]:
            del self.batches[name]
            self.stopping.discard(name)

    def _check_start(self, name: str) -> None:
        own = self.owned[name]
        up = [self.owned[other] for other in NAMES if other != name and self.is_up(other)]
        pools = set(self.wanted.host.pools)
        same = [spec for spec in up if pool_of(spec, pools) == pool_of(own, pools)]
        taken = sum(spec.placing.claim or 0 for spec in [own, *same])
        assert taken <= SIZE, f"over-committed by {name}: {taken} of {SIZE}"
        assert not [spec.name for spec in same if spec.name in self.loading], "two load at once"
        for spec in up:
            assert not exclusion(own, spec, self.wanted.host, one_pool=spec in same), f"{name} beside {spec.name}"

    def loaded(self, name: str) -> None:
        self.loading.discard(name)
        self.up_since[name] = self.now

    def ask(self, name: str) -> None:
        before = self.demand.get(name, Demand(self.now))
        since = self.now if before.since is None else before.since
        self.demand[name] = replace(before, waiting=before.waiting + 1, since=since, last_used=self.now)

    def admit(self, name: str) -> None:
        """Let those who wait go to an engine that is up."""
        before = self.demand[name]
        self.demand[name] = replace(before, serving=before.in_flight, waiting=0, since=None)

    def answer(self, name: str) -> None:
        self.demand[name] = replace(self.demand[name], serving=0, last_used=self.now)

    def can_serve(self, name: str, current: Plan) -> bool:
        verdict = current.placement.verdicts[name]
        is_open = name not in self.batches and verdict.standing not in {Standing.DRAINS, Standing.EVICTED}
        return self.is_up(name) and name not in self.loading and is_open


def _declared(slots: dict[str, dict[str, Any]]) -> Desired:
    text = MODEL + f"---\nkind: Host\npools: {{ram: {SIZE}, gpu: {SIZE}}}\n"
    for name, keys in slots.items():
        text += f"---\nkind: Slot\nname: {name}\nmodel: m\n" + "".join(f"{key}: {keys[key]}\n" for key in keys)
    found = desired(text)
    assert found.problems == ()
    return found


class Lives(RuleBasedStateMachine):
    """Everything that may happen to a host, in any order."""

    @initialize(slots=st.fixed_dictionaries({name: manifests(name) for name in NAMES}))
    def begin(self, slots: dict[str, dict[str, Any]]) -> None:
        self.slots = slots
        self.life = Life(_declared(slots))
        self.last = self.life.begin()

    @rule()
    def look_and_plan(self) -> None:
        self.last = self.life.begin()

    @precondition(lambda self: self.life.batches)
    @rule(data=st.data())
    def carry_out_a_step(self, data: st.DataObject) -> None:
        self.life.step(data.draw(st.sampled_from(sorted(self.life.batches))))

    @precondition(lambda self: self.life.loading)
    @rule(data=st.data())
    def a_model_is_loaded(self, data: st.DataObject) -> None:
        self.life.loaded(data.draw(st.sampled_from(sorted(self.life.loading))))

    @rule(name=st.sampled_from(NAMES))
    def a_request_comes(self, name: str) -> None:
        self.life.ask(name)

    @rule(name=st.sampled_from(NAMES))
    def requests_go_to_the_engine(self, name: str) -> None:
        if self.life.waiting(name) and self.life.can_serve(name, self.last):
            self.life.admit(name)

    @rule(name=st.sampled_from(NAMES))
    def requests_are_answered(self, name: str) -> None:
        if self.life.serving(name):
            self.life.answer(name)

    @rule(name=st.sampled_from(NAMES))
    def a_service_is_lost_sight_of(self, name: str) -> None:
        self.life.blind.symmetric_difference_update({name})

    @rule(name=st.sampled_from(NAMES))
    def an_engine_dies(self, name: str) -> None:
        if self.life.is_up(name) and name not in self.life.batches:
            self.life.host.die(name)
            self.life.loading.discard(name)

    @rule(name=st.sampled_from(NAMES), value=st.sampled_from([UP, DOWN, ""]))
    def a_person_loads_unloads_or_resets(self, name: str, value: str) -> None:
        self.life.overrides.pop(name, None)
        if value:
            self.life.overrides[name] = Override(name, Aspect.RUN, value, "eve", 0.0)

    @rule(seconds=st.sampled_from([1.0, 11.0, 61.0]))
    def time_passes(self, seconds: float) -> None:
        self.life.now += seconds

    @rule(data=st.data())
    def a_manifest_changes(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(NAMES))
        keys = data.draw(manifests(name))
        if self.life.batches or (self.slots[name]["claim"] != keys["claim"] and self.life.is_up(name)):
            return  # a claim that is stated anew for what runs is not the planner's doing
        self.slots = {**self.slots, name: keys}
        self.life.wanted = _declared(self.slots)

    @invariant()
    def the_same_world_gives_the_same_placement(self) -> None:
        world = self.life.world()
        turned = replace(world.desired, slots=dict(reversed([*world.desired.slots.items()])))
        assert plan(replace(world, desired=turned)).placement.verdicts == plan(world).placement.verdicts

    @invariant()
    def two_that_exclude_each_other_are_not_both_let_in(self) -> None:
        life, pools = self.life, set(self.life.wanted.host.pools)
        starts = {change.slot for change in plan(life.world()).changes if change.has(StepKind.START)}
        for one, other in permutations(NAMES, 2):
            own, its = (life.wanted.slots[name].spec for name in (one, other))
            one_pool = pool_of(own, pools) == pool_of(its, pools)
            if exclusion(own, its, life.wanted.host, one_pool=one_pool) and one in starts and not life.is_up(one):
                assert other not in starts
                assert not life.is_up(other)

    def teardown(self) -> None:
        if hasattr(self, "life"):
            _comes_to_rest(self.life)


def _comes_to_rest(life: Life) -> None:
    """Let everything end that can: then nothing is left to do, and nobody waits who could have been served."""
    life.blind.clear()
    for _ in range(MOST_PASSES):
        current = life.begin()
        while life.batches:
            life.step(next(iter(life.batches)))
        for name in [*life.loading]:
            life.loaded(name)
        for name in NAMES:
            if life.serving(name):
                life.answer(name)
            if life.waiting(name) and life.can_serve(name, current):
                life.admit(name)
        life.now += 7.0
        if not current.steps and not any(life.serving(name) or _may_yet(life, name, current) for name in NAMES):
            return
    raise AssertionError(f"no rest: {plan(life.world())}")


def _may_yet(life: Life, name: str, current: Plan) -> bool:
    """Return whether a slot will change by itself: for requests that wait, or when its time is over."""
    spec, verdict = life.wanted.slots[name].spec, current.placement.verdicts[name]
    if spec.suspend or spec.run.value != "on-demand" or name in life.overrides:
        return False
    return (bool(life.waiting(name)) and verdict.standing is not Standing.REFUSED) or life.is_up(name)


TestLives = Lives.TestCase
TestLives.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
