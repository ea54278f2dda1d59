"""What a plan makes of children of the process runtime, of which no command line tells everything."""

from __future__ import annotations

from dataclasses import replace

import pytest
from worlds import FACTS, MODEL, desired, slots

from hal0.core.definition import stamp
from hal0.core.facts import Known
from hal0.core.launch import hash_of
from hal0.core.observed import Activity, Definition, Instance, Observed, Service, SlotObservation
from hal0.core.plan import plan
from hal0.core.schedule import Demand
from hal0.core.spec import Desired, DesiredSlot
from hal0.core.steps import Action, Change, StepKind
from hal0.core.world import World

PROCESS = replace(FACTS, runtime="process")
REPLACED = [StepKind.STOP, StepKind.WRITE, StepKind.RELOAD, StepKind.RESET_FAILED, StepKind.START]


def wanted(**settings: object) -> Desired:
    return desired(slots("chat", **settings), facts=PROCESS)


def running(slot: DesiredSlot, **was: str) -> SlotObservation:
    """Return a slot that runs as declared; its child was started with this environment, if one is given."""
    text = stamp(slot.body, slot="chat", spec_hash=slot.spec_hash, generation=1)
    argv, env = slot.launch.argv, was or slot.launch.env
    return SlotObservation(
        definition=Known(Definition("slots/chat.toml", text)),
        service=Known(Service(Activity.ACTIVE, argv=argv)),
        instance=Known(Instance("7:70", running=True, slot="chat", spec_hash=hash_of(argv, env), command=argv)),
        image=Known(""),
        model=Known(value=True),
    )


def changes(seen: SlotObservation, now: Desired, before: Desired, **demand: Demand) -> tuple[Change, ...]:
    owned = {"chat": before.slots["chat"].spec}
    return plan(World(now, Observed({"chat": seen}), owned, frozenset({"chat"}), demand=demand, now=10.0)).changes


@pytest.mark.parametrize("env", ["{A: '2'}", "{A: '1', B: ''}", "{}", "{B: '1'}"])
def test_a_changed_environment_alone_replaces_the_child(env: str) -> None:
    before, after = wanted(env="{A: '1'}"), wanted(env=env)
    assert before.slots["chat"].launch.argv == after.slots["chat"].launch.argv
    (change,) = changes(running(before.slots["chat"]), after, before)
    assert (change.action, change.is_drift) == (Action.UPDATE, False)
    assert [step.kind for step in change.steps] == REPLACED
    assert [reason.field for reason in change.reasons] == ["env"]


def test_a_profiles_environment_counts_like_the_slots() -> None:
    text = slots("chat", profile="mine") + "---\nkind: Profile\nname: mine\ncommand: [engine]\nenv: {A: '1'}\n"
    before, after = (desired(profile, facts=PROCESS) for profile in (text, text.replace("'1'", "'2'")))
    (change,) = changes(running(before.slots["chat"]), after, before)
    assert [step.kind for step in change.steps] == REPLACED


def test_a_child_whose_environment_changes_is_drained_first() -> None:
    before, after = wanted(env="{A: '1'}"), wanted(env="{A: '2'}")
    (change,) = changes(running(before.slots["chat"]), after, before, chat=Demand(9.0, serving=1))
    assert [step.kind for step in change.steps] == [StepKind.DRAIN, *REPLACED]


def test_a_child_as_declared_is_left_alone() -> None:
    now = wanted(env="{B: '2', A: '1'}")
    assert changes(running(now.slots["chat"]), now, now) == ()
    assert changes(running(now.slots["chat"]), wanted(env="{A: '1', B: '2'}"), now) == ()


def test_what_the_child_does_not_see_replaces_it_not() -> None:
    profile = f"---\nkind: Profile\nname: embedded\ncommand: [engine]\nstop_timeout: {{}}\n---\n{MODEL}"
    before, after = (desired(slots("chat") + profile.format(seconds), facts=PROCESS) for seconds in ("20s", "90s"))
    (change,) = changes(running(before.slots["chat"]), after, before)
    assert [step.kind for step in change.steps] == [StepKind.WRITE, StepKind.RELOAD]


def test_a_child_that_was_started_with_another_environment_than_its_definition_says_is_drift() -> None:
    now = wanted(env="{A: '1'}")
    (change,) = changes(running(now.slots["chat"], A="by hand"), now, now)
    assert change.is_drift
    assert [reason.field for reason in change.reasons] == ["env"]
    assert [step.kind for step in change.steps] == [StepKind.STOP, StepKind.RESET_FAILED, StepKind.START]
    assert "by hand" not in str(change.reasons)
