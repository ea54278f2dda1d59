from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import replace
from itertools import takewhile
from typing import Any

import pytest
from fakes import FakeHost
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds import desired, slots

from hal0.core.backoff import STALLED_AFTER, Attempt
from hal0.core.conditions import Condition, ConditionType, Signs
from hal0.core.facts import Fact, Known, Unknown
from hal0.core.observed import Activity, Observed, ProbeResult, Service, SlotObservation, unobserved
from hal0.core.phase import LATE_PATIENCE, PROBE_PATIENCE, Failing, Phase, phase
from hal0.core.plan import plan
from hal0.core.schedule import ALWAYS, Demand, Verdict, placement
from hal0.core.spec import Desired, DesiredSlot
from hal0.core.state import EDGES, SlotState, way
from hal0.core.status import Engine, SlotStatus, Snapshot, told
from hal0.core.steps import Action, Change, Reason
from hal0.core.world import World

ACCEPTED, SYNCED, RUNNING, READY, RECONCILING, STALLED = ConditionType
UP, LOADING, FAILING, LATE = ProbeResult
WANTED = desired(slots("chat"))
CHAT = WANTED.slots["chat"]
DOWN = Verdict(up=False, why="run: never", barred=True)
TRIED = Attempt(CHAT.spec_hash, 1, 0.0, "no such device")


@functools.cache
def seen(activity: Activity | None, probe: ProbeResult | None = None, *, run: str = "1") -> SlotObservation:
    """Return an observation of the slot as declared, with its service in some activity."""
    host = FakeHost(images={CHAT.spec.image: "id"})
    host.carry_out(plan(World(WANTED, Observed({"chat": host.observe("chat", CHAT.spec.image)}))))
    found = host.observe("chat", CHAT.spec.image)
    service = Service(activity, argv=CHAT.launch.argv, invocation=run) if activity else None
    answer: Fact[ProbeResult] = Known(probe) if probe else Unknown("not probed")
    return replace(found, service=Known(service), probe=answer)


def status(slot: DesiredSlot, observation: SlotObservation, signs: Signs, before: SlotStatus | None) -> SlotStatus:
    """Return the status of a slot whose own engine serves, and runs what is declared."""
    then = Phase(before.state, before.since, before.failing, before.run, before.was_ready) if before else None
    now = phase(slot.spec, observation, signs, then)
    return told(slot, Engine(slot.spec.name, slot.spec, observation, now), observation, signs)


def of(observation: SlotObservation, signs: Signs | None = None, before: SlotStatus | None = None) -> SlotStatus:
    return status(CHAT, observation, signs or Signs(now=10.0), before)


def after(*steps: tuple[SlotObservation, Signs]) -> SlotStatus:
    """Return the status that a series of observations leads to."""
    last = None
    for observation, signs in steps:
        last = of(observation, signs, last)
    assert last
    return last


def ready(**more: float) -> SlotStatus:
    return of(seen(Activity.ACTIVE, UP), Signs(**more))  # type: ignore[arg-type]


def planned(observation: SlotObservation, wanted: Desired = WANTED) -> Signs:
    """Return the signs of a pass: what the planner says of an observation."""
    current = plan(
        World(wanted, Observed({"chat": observation}), {"chat": wanted.slots["chat"].spec}, frozenset({"chat"}))
    )
    return Signs(change=current.change("chat"), now=10.0)


# States.


@pytest.mark.parametrize(
    ("observation", "signs", "state"),
    [
        (seen(None), Signs(), SlotState.OFFLINE),
        (seen(Activity.INACTIVE), Signs(), SlotState.OFFLINE),
        (seen(Activity.INACTIVE), Signs(pulling="its image is being pulled"), SlotState.PULLING),
        (seen(Activity.INACTIVE), Signs(attempt=TRIED), SlotState.ERROR),
        (seen(Activity.INACTIVE), Signs(attempt=TRIED, verdict=DOWN), SlotState.OFFLINE),
        (seen(Activity.INACTIVE), Signs(attempt=replace(TRIED, error="")), SlotState.OFFLINE),
        (seen(Activity.ACTIVATING), Signs(), SlotState.STARTING),
        (seen(Activity.RESTARTING), Signs(), SlotState.STARTING),
        (seen(Activity.ACTIVE), Signs(), SlotState.WARMING),
        (seen(Activity.ACTIVE, LOADING), Signs(), SlotState.WARMING),
        (seen(Activity.ACTIVE, FAILING), Signs(), SlotState.WARMING),
        (seen(Activity.ACTIVE, LATE), Signs(), SlotState.WARMING),
        (seen(Activity.ACTIVE, UP), Signs(), SlotState.READY),
        (seen(Activity.ACTIVE, UP), Signs(demand=Demand(0.0, 1)), SlotState.SERVING),
        (seen(Activity.ACTIVE, UP), Signs(now=1e9), SlotState.READY),
        (seen(Activity.ACTIVE, UP), Signs(demand=Demand(0.0), now=1e9), SlotState.IDLE),
        (seen(Activity.DEACTIVATING), Signs(), SlotState.UNLOADING),
        (seen(Activity.FAILED), Signs(), SlotState.ERROR),
        (seen(Activity.FAILED), Signs(pulling="its image is being pulled"), SlotState.PULLING),
        (unobserved("the bus is gone"), Signs(), SlotState.OFFLINE),
    ],
)
def test_the_state_follows_from_what_is_observed(observation: SlotObservation, signs: Signs, state: SlotState) -> None:
    assert of(observation, signs).state is state


@pytest.mark.parametrize("run", ["always", "on-demand", "never"])
def test_a_slot_that_nobody_uses_is_idle_whatever_its_run_policy(run: str) -> None:
    slot = desired(slots("chat", run=run, idle_timeout="60s")).slots["chat"]
    up = seen(Activity.ACTIVE, UP)
    assert status(slot, up, Signs(demand=Demand(0.0), now=59.0), None).state is SlotState.READY
    assert status(slot, up, Signs(demand=Demand(0.0), now=60.0), None).state is SlotState.IDLE
    assert status(slot, up, Signs(demand=Demand(0.0, 1), now=60.0), None).state is SlotState.SERVING


@pytest.mark.parametrize("run", ["always", "on-demand", "never"])
def test_a_slot_is_serving_while_requests_are_at_its_engine_and_not_while_they_wait(run: str) -> None:
    slot = desired(slots("chat", run=run)).slots["chat"]
    up = seen(Activity.ACTIVE, UP)
    demands = [Demand(0.0, 1), Demand(0.0, 1, 1), Demand(0.0, waiting=1), Demand(0.0)]
    states = [status(slot, up, Signs(demand=demand, now=1.0), None).state for demand in demands]
    assert states == [SlotState.SERVING, SlotState.SERVING, SlotState.READY, SlotState.READY]


@pytest.mark.parametrize(
    ("keep", "now", "state"),
    [
        (None, 60.0, SlotState.IDLE),
        (90.0, 60.0, SlotState.READY),
        (90.0, 90.0, SlotState.IDLE),
        (10.0, 9.0, SlotState.READY),
        (10.0, 10.0, SlotState.IDLE),
        (0.0, 0.0, SlotState.IDLE),
    ],
)
def test_a_slot_is_idle_once_it_was_kept_for_as_long_as_the_last_request_wanted(
    keep: float | None, now: float, state: SlotState
) -> None:
    slot = desired(slots("chat", run="on-demand", idle_timeout="60s")).slots["chat"]
    use = Demand(0.0, keep=keep)
    assert status(slot, seen(Activity.ACTIVE, UP), Signs(demand=use, now=now), None).state is state


def test_a_slot_that_a_request_waited_for_longer_than_it_may_be_idle_is_not_idle() -> None:
    slot = desired(slots("chat", run="on-demand", idle_timeout="60s")).slots["chat"]
    waited = Signs(demand=Demand(0.0, waiting=1), now=600.0)
    assert status(slot, seen(Activity.ACTIVE, UP), waited, None).state is SlotState.READY


@settings(max_examples=100, deadline=None)
@given(
    st.builds(Demand, st.integers(0, 100), st.integers(0, 1), st.integers(0, 1), st.none() | st.integers(0, 100)),
    st.integers(0, 200),
)
def test_a_slot_on_demand_is_idle_exactly_where_the_schedule_says_to_stop_it(use: Demand, now: int) -> None:
    wanted = desired(slots("chat", run="on-demand", idle_timeout="60s"))
    found = status(wanted.slots["chat"], seen(Activity.ACTIVE, UP), Signs(demand=use, now=now), None)
    assert (found.state is SlotState.IDLE) is not placement(wanted, {"chat": use}, now)["chat"].up
    assert (found.state is SlotState.SERVING) is (use.serving > 0)


def probed(*told: tuple[float, ProbeResult | None]) -> SlotStatus:
    """Return the status of a slot that was ready at 0.0, after looks at some times; None could not tell."""
    return after((seen(Activity.ACTIVE, UP), Signs()), *[(seen(Activity.ACTIVE, p), Signs(now=now)) for now, p in told])


@pytest.mark.parametrize(
    ("probe", "patience"), [(FAILING, PROBE_PATIENCE), (LOADING, PROBE_PATIENCE), (LATE, LATE_PATIENCE)]
)
def test_a_ready_slot_is_an_error_once_its_probe_has_failed_for_as_long_as_patience_lasts(
    probe: ProbeResult, patience: float
) -> None:
    first = (5.0, probe)
    assert probed(first, (4.9 + patience, probe)).state is SlotState.READY
    failed = probed(first, (5.0 + patience, probe))
    assert failed.state is SlotState.ERROR
    assert failed.condition(STALLED).reason == "NotReady"


def test_looks_that_come_quickly_use_up_no_patience() -> None:
    hurried = probed(*[(1.0 + number / 100, FAILING) for number in range(100)])
    assert hurried.state is SlotState.READY
    assert condition(hurried, READY) == (False, "ProbeFailing")


def test_one_failed_look_proves_nothing_however_long_it_is_ago() -> None:
    failing = seen(Activity.ACTIVE, FAILING)
    found = of(failing, Signs(now=1e6, fresh=False), probed((5.0, FAILING)))
    assert (found.state, found.failing) == (SlotState.READY, Failing(5.0, 5.0))


def test_a_probe_that_was_late_once_asks_for_the_longer_patience() -> None:
    row = [(0.0, FAILING), (5.0, LATE), (PROBE_PATIENCE, FAILING)]
    assert probed(*row).state is SlotState.READY
    assert probed(*row, (LATE_PATIENCE, FAILING)).state is SlotState.ERROR


@pytest.mark.parametrize("between", [UP, None])
def test_failed_probes_must_be_in_a_row_of_looks_that_could_tell(between: ProbeResult | None) -> None:
    found = probed((0.0, FAILING), (5.0, between), (PROBE_PATIENCE, FAILING), (PROBE_PATIENCE + 5.0, FAILING))
    assert (found.state, found.failing) == (SlotState.READY, Failing(PROBE_PATIENCE, PROBE_PATIENCE + 5.0))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([UP, LOADING, FAILING, LATE, None]), st.integers(0, 40), st.booleans())))
def test_a_ready_slot_is_an_error_exactly_from_a_row_of_failed_looks_that_lasted_until_it_is_up(
    series: list[tuple[ProbeResult | None, int, bool]],
) -> None:
    current, now, broken = ready(), 0, False
    told: list[tuple[int, ProbeResult | None]] = [(now, UP)]
    for probe, seconds, fresh in series:
        now += seconds
        if fresh:
            told.append((now, probe))
        current = of(seen(Activity.ACTIVE, told[-1][1]), Signs(now=now, fresh=fresh), current)
        row = list(takewhile(lambda look: look[1] not in {UP, None}, reversed(told)))
        patience = LATE_PATIENCE if any(answer is LATE for _, answer in row) else PROBE_PATIENCE
        broken = told[-1][1] is not UP and (broken or bool(row and row[0][0] - row[-1][0] >= patience))
        assert current.state is (SlotState.ERROR if broken else SlotState.READY)


def test_an_unhealthy_slot_that_answers_again_is_ready_and_its_row_is_forgotten() -> None:
    again = probed((0.0, FAILING), (PROBE_PATIENCE, FAILING), (PROBE_PATIENCE + 2.0, UP))
    assert again.is_ready
    assert again.failing is None


def test_a_ready_slot_whose_service_was_started_anew_is_loading() -> None:
    again = of(seen(Activity.ACTIVE, LOADING, run="2"), Signs(now=20.0), ready())
    assert again.state is SlotState.WARMING
    assert again.since == 20.0


def test_a_slot_that_is_not_ready_at_its_deadline_is_an_error_and_stays_one() -> None:
    loading = seen(Activity.ACTIVE, LOADING)
    deadline = CHAT.spec.start_deadline
    in_time = after((loading, Signs(now=5.0)), (loading, Signs(now=5.0 + deadline)))
    assert in_time.state is SlotState.WARMING
    late = of(loading, Signs(now=5.1 + deadline, last_lines=("a", "b")), in_time)
    assert late.state is SlotState.ERROR
    assert of(loading, Signs(now=6.0 + deadline), late).state is SlotState.ERROR
    assert condition(late, STALLED) == (True, "NotReady")
    assert late.message == "not ready within 10m, or its probe fails; last lines: a | b"


def test_a_new_start_after_a_missed_deadline_has_a_deadline_of_its_own() -> None:
    loading, again = seen(Activity.ACTIVE, LOADING), seen(Activity.ACTIVE, LOADING, run="2")
    late = after((loading, Signs(now=0.0)), (loading, Signs(now=1e6)))
    assert late.state is SlotState.ERROR
    fresh = of(again, Signs(now=1e6 + 1), late)
    assert (fresh.state, fresh.since) == (SlotState.WARMING, 1e6 + 1)


def test_since_is_when_the_state_began_not_when_it_was_last_seen() -> None:
    up = seen(Activity.ACTIVE, UP)
    assert after((up, Signs(now=5.0)), (up, Signs(now=9.0))).since == 5.0


@pytest.mark.parametrize(("activity", "reason"), [(Activity.INACTIVE, "Progressing"), (Activity.FAILED, "CrashLoop")])
def test_a_slot_that_got_ready_is_a_crash_loop_only_where_it_failed_again(activity: Activity, reason: str) -> None:
    attempt = Attempt(CHAT.spec_hash, 6, 0.0, failed=True, settled=True)
    found = of(seen(activity), Signs(attempt=attempt, verdict=DOWN))
    assert found.condition(STALLED).reason == reason


# What can't be seen.


@pytest.mark.parametrize("before", [ready(), of(seen(Activity.ACTIVE, LOADING)), of(seen(Activity.FAILED))])
def test_a_service_that_cant_be_seen_keeps_its_state_and_is_never_called_offline(before: SlotStatus) -> None:
    blind = of(unobserved("the bus is gone"), Signs(now=99.0), before)
    assert blind.state is before.state
    assert blind.since == before.since
    assert condition(blind, READY) == (None, "Unknown")
    assert condition(blind, RUNNING) == (None, "Unknown")
    assert condition(blind, SYNCED) == (None, "Unknown")
    assert not blind.is_ready


def test_a_slot_that_missed_its_deadline_is_still_late_after_a_look_that_saw_nothing() -> None:
    loading = seen(Activity.ACTIVE, LOADING)
    late = [(loading, Signs(now=0.0)), (loading, Signs(now=1e6))]
    blind = (unobserved("the bus is gone"), Signs(now=1e6 + 1))
    assert after(*late, blind, (loading, Signs(now=1e6 + 2))).state is SlotState.ERROR


def test_a_probe_that_was_not_made_counts_as_nothing() -> None:
    unknown = (seen(Activity.ACTIVE), Signs())
    assert after((seen(Activity.ACTIVE, UP), Signs()), *[unknown] * 10).state is SlotState.READY


# Conditions.


def condition(found: SlotStatus, kind: ConditionType) -> tuple[bool | None, str]:
    return found.condition(kind).status, found.condition(kind).reason


def table(found: SlotStatus) -> dict[str, tuple[bool | None, str]]:
    return {item.type.value: (item.status, item.reason) for item in found.conditions}


def test_a_slot_in_sync_and_up_is_all_well() -> None:
    up = seen(Activity.ACTIVE, UP)
    found = of(up, planned(up))
    assert table(found) == {
        "Accepted": (True, "Valid"),
        "Synced": (True, "InSync"),
        "Running": (True, "Active"),
        "Ready": (True, "ProbeUp"),
        "Reconciling": (False, "Settled"),
        "Stalled": (False, "Progressing"),
    }
    assert found.message == ""
    assert found.is_settled
    assert found.generation == 1


def test_a_slot_that_was_never_there_is_absent_and_on_its_way() -> None:
    absent = FakeHost().observe("chat", "")
    found = of(absent, planned(absent))
    assert condition(found, RUNNING) == (False, "Absent")
    assert condition(found, SYNCED) == (False, "ChangePending")
    assert condition(found, RECONCILING) == (True, "ChangePending")
    assert not found.is_settled


def test_drift_is_named_as_such_and_a_change_of_the_manifest_is_not() -> None:
    stopped = seen(Activity.INACTIVE)
    drifted = of(stopped, planned(stopped))
    assert condition(drifted, SYNCED) == (False, "Drifted")
    assert drifted.drift == ("service: stopped -> running (run: always)",)
    up = seen(Activity.ACTIVE, UP)
    changed = of(up, planned(up, desired(slots("chat", context_size=1))))
    assert condition(changed, SYNCED) == (False, "ChangePending")
    assert changed.drift == ()
    assert changed.is_ready


def test_drift_that_is_left_alone_by_policy_is_settled() -> None:
    stopped = seen(Activity.INACTIVE)
    found = of(stopped, planned(stopped, desired(slots("chat", drift="alert"))))
    assert condition(found, SYNCED) == (False, "Drifted")
    assert found.is_settled


@pytest.mark.parametrize(
    ("field", "reason"),
    [
        ("ForeignUnit: /etc/x does not carry hal0's mark: move it away", "ForeignUnit"),
        ("ModelMissing: there is no /models/m.gguf", "ModelMissing"),
        ("pruning 2 of 3 slots", "Refused"),
        ("the unit is masked: systemctl unmask it", "Refused"),
    ],
)
def test_what_is_refused_is_stalled_with_the_reasons_own_word(field: str, reason: str) -> None:
    change = Change("chat", Action.REFUSE, (Reason(field, "", ""),))
    found = of(seen(Activity.INACTIVE), Signs(change=change))
    assert condition(found, SYNCED) == (False, "Refused")
    assert condition(found, STALLED) == (True, reason)
    assert condition(found, RECONCILING) == (False, reason)
    assert found.message == field
    assert found.is_settled


def test_a_missing_model_is_a_refusal_of_the_planner() -> None:
    missing = replace(seen(Activity.INACTIVE), model=Known(value=False))
    assert condition(of(missing, planned(missing)), STALLED) == (True, "ModelMissing")


def test_a_slot_whose_image_is_pulled_says_so() -> None:
    found = of(seen(Activity.INACTIVE), Signs(pulling="its image is being pulled"))
    assert condition(found, READY) == (False, "Pulling")
    assert found.message == "its image is being pulled"


@pytest.mark.parametrize(
    ("activity", "reason", "reconciling"),
    [
        (Activity.ACTIVATING, "NotRunning", "Starting"),
        (Activity.ACTIVE, "Loading", "Warming"),
        (Activity.DEACTIVATING, "NotRunning", "Unloading"),
    ],
)
def test_a_slot_on_its_way_is_reconciling(activity: Activity, reason: str, reconciling: str) -> None:
    found = of(seen(activity))
    assert condition(found, READY) == (False, reason)
    assert condition(found, RECONCILING) == (True, reconciling)
    assert not found.is_settled


def test_a_ready_slot_whose_probe_fails_is_still_sent_to_but_not_ready() -> None:
    found = of(seen(Activity.ACTIVE, FAILING), Signs(), ready())
    assert found.state.is_dispatchable
    assert condition(found, READY) == (False, "ProbeFailing")
    assert not found.is_settled


def test_a_crash_loop_is_stalled_with_the_engines_last_words() -> None:
    attempt = Attempt(CHAT.spec_hash, STALLED_AFTER, 0.0)
    found = of(seen(Activity.FAILED), Signs(attempt=attempt, last_lines=("loading", "out of memory")))
    assert condition(found, STALLED) == (True, "CrashLoop")
    assert found.message == "5 starts: it does not stay up; last lines: loading | out of memory"


def test_a_slot_that_failed_a_few_times_is_not_stalled_and_says_what_is_wrong() -> None:
    attempt = Attempt(CHAT.spec_hash, STALLED_AFTER - 1, 0.0)
    failed = seen(Activity.FAILED)
    assert isinstance(failed.service, Known)
    assert failed.service.value
    service = replace(failed.service.value, result="exit-code", exit_status=7)
    found = of(replace(failed, service=Known(service)), Signs(attempt=attempt, last_lines=("no memory",)))
    assert condition(found, STALLED) == (False, "Progressing")
    assert condition(found, RUNNING) == (False, "Failed")
    assert found.message == "the service failed: exit-code, exit status 7; last lines: no memory"


def test_a_step_that_failed_is_told_even_where_no_service_failed() -> None:
    change = Change("chat", Action.WAIT, (Reason("retry 1", "manifest unknown", "in 10s"),))
    found = of(seen(Activity.INACTIVE), Signs(change=change, attempt=TRIED))
    assert found.state is SlotState.ERROR
    assert found.message == "retry 1: manifest unknown -> in 10s"


@pytest.mark.parametrize("probe", [UP, LOADING])
def test_a_slot_that_is_up_again_after_a_crash_loop_is_not_stalled(probe: ProbeResult) -> None:
    attempt = Attempt(CHAT.spec_hash, STALLED_AFTER + 3, 0.0)
    assert condition(of(seen(Activity.ACTIVE, probe), Signs(attempt=attempt)), STALLED) == (False, "Progressing")


def test_a_suspended_slot_is_left_as_it_is_and_settled() -> None:
    slot = desired(slots("chat", suspend="true")).slots["chat"]
    found = status(slot, seen(Activity.INACTIVE), Signs(), None)
    assert condition(found, SYNCED) == (None, "Suspended")
    assert condition(found, RECONCILING) == (False, "Suspended")
    assert found.is_settled


def test_a_slot_that_is_meant_to_be_down_is_settled() -> None:
    found = of(seen(Activity.INACTIVE), Signs(verdict=DOWN))
    assert condition(found, READY) == (False, "NotWanted")
    assert condition(found, RECONCILING) == (False, "Settled")


def test_a_slot_on_its_last_good_spec_says_where_its_manifest_is_wrong() -> None:
    good = {"chat": CHAT.spec}
    broken = desired(slots("chat").replace("model: m\n", "model: m\nport: many\n"), last_good=good)
    found = status(broken.slots["chat"], seen(Activity.ACTIVE, UP), Signs(), None)
    accepted = found.condition(ACCEPTED)
    assert (accepted.status, accepted.reason) == (False, "InvalidManifest")
    assert accepted.message.startswith("test.yaml:8: port: ")
    assert accepted.message.endswith("; the last good spec stays in force")
    assert found.message == accepted.message
    assert found.is_ready


def test_the_operators_drop_ins_are_named() -> None:
    up = seen(Activity.ACTIVE, UP)
    assert isinstance(up.service, Known)
    assert up.service.value
    overridden = replace(up, service=Known(replace(up.service.value, operator_dropins=("90-mine.conf",))))
    found = of(overridden).condition(SYNCED)
    assert (found.status, found.reason) == (True, "InSync")
    assert found.message == "operator's drop-ins in force: 90-mine.conf"


def test_a_picture_is_ready_after_the_first_look() -> None:
    assert not Snapshot().is_ready
    assert Snapshot(at=0.5).is_ready


# Whatever is observed.

ACTIVITIES = st.sampled_from([None, *Activity])
PROBES = st.sampled_from([None, *ProbeResult])
ATTEMPTS = st.none() | st.builds(Attempt, st.just(CHAT.spec_hash), st.integers(1, 9), st.just(0.0), st.text(max_size=3))
KEEPS = st.none() | st.floats(0, 2000)
DEMANDS = st.none() | st.builds(Demand, st.floats(0, 100), st.integers(0, 2), st.integers(0, 2), KEEPS)
SLOTS = st.sampled_from(
    [
        desired(slots("chat", run=run, suspend=suspend)).slots["chat"]
        for run in ("always", "on-demand", "never")
        for suspend in ("true", "false")
    ]
)


@st.composite
def looks(draw: st.DrawFn) -> SlotObservation:
    found = seen(draw(ACTIVITIES), draw(PROBES), run=draw(st.sampled_from("123")))
    lost = draw(st.lists(st.sampled_from(["definition", "service", "instance", "probe", "image"]), unique=True))
    unknown: dict[str, Any] = dict.fromkeys(lost, Unknown("not now"))
    return replace(found, **unknown)


@st.composite
def passes(draw: st.DrawFn) -> list[tuple[SlotObservation, Signs]]:
    now, made = 0.0, []
    for _ in range(draw(st.integers(1, 8))):
        now += draw(st.sampled_from([0.5, 30.0, 1000.0]))
        observation = draw(looks())
        change = planned(observation).change if draw(st.booleans()) else None
        signs = Signs(
            change=change,
            fresh=draw(st.booleans()),
            verdict=draw(st.sampled_from([ALWAYS, DOWN])),
            pulling=draw(st.sampled_from(["", "fetching m"])),
            attempt=draw(ATTEMPTS),
            demand=draw(DEMANDS),
            last_lines=tuple(draw(st.lists(st.text(max_size=3), max_size=2))),
            now=now,
        )
        made.append((observation, signs))
    return made


def lives(slot: DesiredSlot, series: Iterable[tuple[SlotObservation, Signs]]) -> list[SlotStatus]:
    found: list[SlotStatus] = []
    for observation, signs in series:
        found.append(status(slot, observation, signs, found[-1] if found else None))
    return found


def is_worded(item: Condition) -> bool:
    return item.reason.isalpha() and item.reason[0].isupper()


@settings(max_examples=100, deadline=None)
@given(SLOTS, passes())
def test_all_conditions_are_always_there_in_order_and_say_why(
    slot: DesiredSlot, series: list[tuple[SlotObservation, Signs]]
) -> None:
    for found in lives(slot, series):
        assert [item.type for item in found.conditions] == list(ConditionType)
        assert all(is_worded(item) for item in found.conditions)


@settings(max_examples=100, deadline=None)
@given(SLOTS, passes())
def test_states_move_along_legal_edges_only(slot: DesiredSlot, series: list[tuple[SlotObservation, Signs]]) -> None:
    state = SlotState.OFFLINE
    for found in lives(slot, series):
        for step in way(state, found.state):
            assert step in EDGES[state]
            state = step
        assert state is found.state


@settings(max_examples=100, deadline=None)
@given(SLOTS, passes())
def test_what_cant_be_seen_is_never_ready_and_never_moves(
    slot: DesiredSlot, series: list[tuple[SlotObservation, Signs]]
) -> None:
    found = lives(slot, series)
    before = SlotState.OFFLINE
    for (observation, _), current in zip(series, found, strict=True):
        if isinstance(observation.service, Unknown):
            assert current.condition(READY).status is None
            assert current.state is before
        before = current.state


@settings(max_examples=100, deadline=None)
@given(SLOTS, passes())
def test_ready_means_up_running_and_probed(slot: DesiredSlot, series: list[tuple[SlotObservation, Signs]]) -> None:
    for found in lives(slot, series):
        if found.is_ready:
            assert found.state.is_dispatchable
            assert found.condition(RUNNING).status is True
            assert found.condition(STALLED).reason != "CrashLoop"


@settings(max_examples=50, deadline=None)
@given(SLOTS, passes())
def test_the_same_observations_give_the_same_status(
    slot: DesiredSlot, series: list[tuple[SlotObservation, Signs]]
) -> None:
    assert lives(slot, series) == lives(slot, series)
