from __future__ import annotations

from dataclasses import replace

import pytest
from fakes import FakeHost
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds import desired

from hal0.core.facts import Unknown
from hal0.core.observed import Activity, Observed
from hal0.core.override import (
    DOWN,
    UP,
    Aspect,
    Override,
    deviations,
    differs,
    expired,
    models_of,
    next_expiry,
    overridden,
    spent,
)
from hal0.core.plan import plan
from hal0.core.schedule import Demand, Verdict, placement
from hal0.core.spec import Desired
from hal0.core.steps import Action, StepKind
from hal0.core.world import World

MODELS = "kind: Model\nname: m\npath: m.gguf\n---\nkind: Model\nname: big\npath: big.gguf\naliases: [huge]\n"
MANIFESTS = MODELS + "".join(
    f"---\nkind: Slot\nname: {name}\nmodel: m\n{settings}\n"
    for name, settings in [
        ("always", "run: always"),
        ("never", "run: never"),
        ("demand", "run: on-demand"),
        ("kept", "suspend: true"),
    ]
)
WANTED = desired(MANIFESTS)
NAMES = sorted(WANTED.slots)

overrides = st.lists(
    st.builds(
        Override,
        st.sampled_from([*NAMES, "gone"]),
        st.sampled_from(Aspect),
        st.sampled_from([UP, DOWN]),
        st.just("eve"),
        st.integers(0, 100).map(float),
        st.none() | st.integers(1, 200).map(float),
    ),
    unique_by=lambda own: own.key,
    max_size=6,
)


def run(slot: str, value: str = UP, until: float | None = None) -> Override:
    return Override(slot, Aspect.RUN, value, "eve", 0.0, until)


def model(slot: str, value: str) -> Override:
    return Override(slot, Aspect.MODEL, value, "eve", 0.0)


def restart(slot: str, invocation: str) -> Override:
    return Override(slot, Aspect.RESTART, invocation, "eve", 0.0)


def settled(wanted: Desired, *own: Override) -> tuple[FakeHost, World]:
    """Return a host on which everything that is wanted was carried out."""
    host = FakeHost(images={wanted.slots["always"].spec.image: "id"})
    host.carry_out(plan(world(wanted, host, *own)))
    return host, world(wanted, host, *own)


def world(wanted: Desired, host: FakeHost, *own: Override) -> World:
    seen = {name: host.observe(name, slot.spec.image) for name, slot in wanted.slots.items()}
    return World(wanted, Observed(seen), {name: slot.spec for name, slot in wanted.slots.items()}, overrides=own)


# What is overridden.


def test_a_slot_with_another_model_is_what_its_manifest_would_make_of_that_model() -> None:
    found = desired(MANIFESTS, models={"never": "big"})
    by_hand = desired(MANIFESTS.replace("name: never\nmodel: m", "name: never\nmodel: huge"))
    assert found.slots["never"] == by_hand.slots["never"]
    assert {name: slot for name, slot in found.slots.items() if name != "never"} == {
        name: slot for name, slot in WANTED.slots.items() if name != "never"
    }


def test_a_model_that_is_not_there_overrides_nothing_and_is_no_error() -> None:
    assert desired(MANIFESTS, models={"never": "lost", "gone": "big"}) == WANTED


def test_a_model_override_does_not_mend_a_manifest() -> None:
    broken = MANIFESTS.replace("name: never\nmodel: m", "name: never\nmodel: lost")
    found = desired(broken, models={"never": "big"})
    assert [problem.key for problem in found.problems] == ["model"]
    assert "never" not in found.slots


def test_an_override_makes_no_generation() -> None:
    changed = overridden(WANTED, desired(MANIFESTS, models={"never": "big"}))
    assert changed.slots["never"].spec.model == "big"
    assert changed.slots["never"].as_declared == WANTED.slots["never"]
    assert changed.slots["always"].declared is None
    assert changed.content == WANTED.content


@pytest.mark.parametrize(
    ("override", "is_kept"),
    [
        (run("always", UP), False),
        (run("always", DOWN), True),
        (run("never", UP), True),
        (run("never", DOWN), False),
        (run("demand", UP), True),
        (run("demand", DOWN), True),
        (model("never", "m"), False),
        (model("never", "big"), True),
        (restart("always", "always-1"), True),
    ],
)
def test_what_the_manifest_says_anyhow_is_no_override(override: Override, is_kept: bool) -> None:
    changed = overridden(WANTED, desired(MANIFESTS, models={override.slot: "big"}))
    assert differs(override, changed.slots[override.slot]) is is_kept


def test_overrides_are_told_beside_what_they_stand_in_for() -> None:
    own = (run("never", UP, 1_700_000_000.0), model("always", "big"), restart("always", "1"), run("gone"))
    changed = overridden(WANTED, desired(MANIFESTS, models=models_of(own)))
    assert [str(found) for found in deviations(changed, own)] == [
        "run: never -> up (by eve until 2023-11-14 22:13:20 UTC)",
        "model: m -> big (by eve)",
    ]


def test_an_override_without_effect_says_why() -> None:
    broken = desired(MANIFESTS.replace("run: always", "run: allways"), before=WANTED)
    found = [
        *deviations(WANTED, [model("never", "lost"), run("kept", DOWN)]),
        *deviations(broken, [model("always", "big"), run("always", DOWN)]),
    ]
    assert [each.void for each in found] == [
        "no Model 'lost' is declared any more",
        "the slot is suspended",
        "the manifest has errors, and its last good spec stays",
        "",
    ]


# What should run.


@settings(deadline=None)
@given(overrides, st.booleans(), st.integers(0, 2))
def test_a_run_override_beats_policy_and_demand_and_suspend_beats_it(
    own: list[Override], used: bool, in_flight: int
) -> None:
    demand = {name: Demand(0.0, in_flight) for name in NAMES} if used else {}
    found, plain = placement(WANTED, demand, 10.0, own), placement(WANTED, demand, 10.0)
    asked = {each.slot: each for each in own if each.aspect is Aspect.RUN}
    held = {each.slot for each in own if each.aspect is Aspect.HOLD}
    for name in NAMES:
        if name in held and name != "kept":
            assert found[name] == Verdict(up=True, why="as found when the store was lost")
        elif name == "kept" or name not in asked:
            assert found[name] == plain[name]
        else:
            assert found[name].up is (asked[name].value == UP)
            assert found[name].barred is not found[name].up
            assert "eve" in found[name].why


@settings(deadline=None, max_examples=50)
@given(overrides)
def test_a_plan_under_overrides_comes_to_rest_and_tells_them_all_the_same(own: list[Override]) -> None:
    _, rested = settled(WANTED, *own)
    after = plan(rested)
    assert after.changes == ()
    shown = {(each.override.slot, each.override.aspect) for each in after.overrides}
    assert shown == {each.key for each in own if each.slot != "gone" and each.aspect is not Aspect.RESTART}


def test_a_plan_of_one_slot_tells_of_no_other_override() -> None:
    found = plan(World(WANTED, Observed({}), overrides=(run("never"), run("demand"))))
    assert [each.override.slot for each in found.limited(frozenset({"demand"})).overrides] == ["demand"]


# Restarts.


def test_a_restart_stops_and_starts_the_run_that_it_names_and_no_other() -> None:
    host, _ = settled(WANTED)
    asked = restart("always", "always-1")
    (change,) = plan(world(WANTED, host, asked)).changes
    assert (change.slot, change.action, change.is_drift) == ("always", Action.RESTART, False)
    assert [step.kind for step in change.steps] == [StepKind.STOP, StepKind.RESET_FAILED, StepKind.START]
    assert str(change.reasons[0]) == "restart: asked for by eve"
    host.carry_out(plan(world(WANTED, host, asked)))
    assert host.starts["always"] == 2
    assert plan(world(WANTED, host, asked)).changes == ()


def test_a_restart_that_was_cut_off_between_stop_and_start_is_ended_by_the_next_plan() -> None:
    host, _ = settled(WANTED)
    host.stop("always")
    host.carry_out(plan(world(WANTED, host, restart("always", "always-1"))))
    assert (host.starts["always"], host.activity["always"]) == (2, Activity.ACTIVE)


def test_a_restart_is_spent_once_its_run_is_gone_and_not_while_that_cant_be_seen() -> None:
    host, rested = settled(WANTED)
    asked = (restart("always", "always-1"),)
    assert spent(asked, WANTED, [], rested.observed) == ()
    blind = replace(rested.observed.slot("always"), service=Unknown("the bus is gone"))
    host.stop("always")
    assert spent(asked, WANTED, [], world(WANTED, host).observed) == asked
    host.start("always")
    assert spent(asked, WANTED, [], world(WANTED, host).observed) == asked
    assert spent(asked, WANTED, [], Observed({"always": blind})) == ()


# When they end.


@given(overrides, st.integers(0, 250))
def test_an_override_has_expired_exactly_once_the_next_expiry_is_there(own: list[Override], wall: int) -> None:
    left = [each for each in own if each not in expired(own, wall)]
    wait = next_expiry(left, wall)
    assert (wait is None) is all(each.until is None for each in left)
    if wait is not None:
        assert wait > 0
        assert expired(left, wall + wait - 0.5) == ()
        assert expired(left, wall + wait) != ()


def test_overrides_go_with_their_slot_and_stay_while_nobody_knows_which_slots_are_gone() -> None:
    own = (run("gone"), run("never"))
    assert spent(own, WANTED, [], Observed({})) == (own[0],)
    assert spent(own, WANTED, ["gone"], Observed({})) == ()
    assert spent(own, desired(MANIFESTS + "---\nkind: Nonsense\n"), [], Observed({})) == ()
