from __future__ import annotations

from dataclasses import replace
from itertools import chain
from typing import Any

import pytest
from fakes import FakeHost
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds import MODEL, desired, slots

from hal0.cli.show import plan_text
from hal0.core.backoff import Attempt
from hal0.core.definition import stamp
from hal0.core.facts import Known, Unknown
from hal0.core.observed import Activity, Instance, Observed
from hal0.core.plan import plan
from hal0.core.pools import RAM, Claim, ClaimSource, Pool
from hal0.core.schedule import Demand
from hal0.core.spec import Desired
from hal0.core.steps import Action, Change, Plan, Reason, Step, StepKind, faults
from hal0.core.wire import plan_json
from hal0.core.world import World


def observe(host: FakeHost, wanted: Desired) -> Observed:
    images = {name: slot.spec.image for name, slot in wanted.slots.items()}
    return Observed({name: host.observe(name, images.get(name, "")) for name in {*images, *host.names()}}, 1.0)


def world(host: FakeHost, wanted: Desired) -> World:
    owned = {name: slot.spec for name, slot in wanted.slots.items() if name in host.files}
    return World(wanted, observe(host, wanted), owned, frozenset(host.starts), now=10.0)


def applied(wanted: Desired) -> FakeHost:
    host = FakeHost()
    host.carry_out(plan(world(host, wanted)))
    return host


def only_change(current: Plan) -> Change:
    assert len(current.changes) == 1
    return current.changes[0]


def kinds(change: Change) -> list[StepKind]:
    return [step.kind for step in change.steps]


def test_a_new_slot_is_pulled_written_and_started() -> None:
    change = only_change(plan(world(FakeHost(), desired(slots("chat")))))
    assert change.action is Action.CREATE
    assert kinds(change) == [
        StepKind.PULL, StepKind.WRITE, StepKind.RELOAD, StepKind.RESET_FAILED, StepKind.START,
    ]  # fmt: skip
    assert "+ExecStart=/usr/bin/podman run" in change.diff()


def test_what_is_made_or_started_says_what_it_takes() -> None:
    wanted, claim = desired(slots("chat")), Claim(2**30, ClaimSource.FILE, "its file")
    ram = {RAM: Known(Pool(RAM, 2**34, 0, stated=False))}
    host = FakeHost()
    seen = replace(world(host, wanted), claims={"chat": claim})
    made = only_change(plan(replace(seen, observed=replace(seen.observed, pools=ram))))
    assert (made.action, made.claim, made.pool) == (Action.CREATE, claim, RAM)
    assert list(plan_text(plan_json(Plan((made,))), diffs=False))[-2] == "      takes 1.0 GiB (file) of pool ram"
    host.carry_out(plan(seen))
    host.stop("chat")
    started = only_change(plan(replace(world(host, wanted), claims={"chat": claim})))
    assert (started.action, started.claim, started.pool) == (Action.RESTART, claim, "")
    host.start("chat")
    stopped = only_change(plan(replace(world(host, desired(slots("chat", run="never"))), claims={"chat": claim})))
    assert (stopped.stops, stopped.claim) == (True, None)


def test_a_host_as_declared_has_an_empty_plan() -> None:
    wanted = desired(slots("chat", "embed"))
    assert plan(world(applied(wanted), wanted)).is_empty


def test_many_slots_are_reloaded_once() -> None:
    current = plan(world(FakeHost(), desired(slots(*(f"s{number}" for number in range(8))))))
    assert [step.kind for step in current.steps].count(StepKind.RELOAD) == 1


def test_a_changed_manifest_stops_writes_and_starts() -> None:
    host = applied(desired(slots("chat")))
    change = only_change(plan(world(host, desired(slots("chat", context_size=2048)))))
    assert change.action is Action.UPDATE
    assert kinds(change) == [
        StepKind.STOP, StepKind.WRITE, StepKind.RELOAD, StepKind.RESET_FAILED, StepKind.START,
    ]  # fmt: skip
    assert not change.is_drift


def test_a_setting_that_the_container_does_not_see_changes_nothing_on_the_host() -> None:
    host = applied(desired(slots("chat")))
    assert plan(world(host, desired(slots("chat", idle_timeout="5m")))).is_empty


def test_how_requests_are_served_changes_nothing_on_the_host() -> None:
    host = applied(desired(slots("chat", "embed")))
    served = slots("chat", "embed", queue=1, abort="drain", set="{top_k: 1}", fallback="[embed]", drain_timeout="5m")
    assert plan(world(host, desired(served))).is_empty


def test_a_setting_of_the_unit_alone_is_written_without_a_restart() -> None:
    profile = "---\nkind: Profile\nname: llama-server-cpu\nimage: ggml-org/llama.cpp:server\nstop_timeout: 90s\n"
    host = applied(desired(slots("chat")))
    change = only_change(plan(world(host, desired(slots("chat") + profile))))
    assert kinds(change) == [StepKind.WRITE, StepKind.RELOAD]


def test_a_stopped_service_is_drift_and_started() -> None:
    wanted = desired(slots("chat"))
    host = applied(wanted)
    host.stop("chat")
    change = only_change(plan(world(host, wanted)))
    assert change.is_drift
    assert change.action is Action.RESTART
    assert kinds(change) == [StepKind.RESET_FAILED, StepKind.START]


def test_a_hand_edited_definition_is_drift_and_written_back() -> None:
    wanted = desired(slots("chat"))
    host = applied(wanted)
    host.files["chat"] = host.files["chat"].replace("--read-only", "--privileged")
    host.stale.add("chat")
    change = only_change(plan(world(host, wanted)))
    assert change.is_drift
    assert [reason.field for reason in change.reasons] == ["definition"]
    assert kinds(change) == [StepKind.WRITE, StepKind.RELOAD]


def test_a_hand_edit_that_was_restarted_into_is_undone_in_the_container_too() -> None:
    wanted = desired(slots("chat"))
    host = applied(wanted)
    host.write("chat", host.files["chat"].replace("--read-only", "--privileged"))
    host.reload()
    host.start("chat")
    change = only_change(plan(world(host, wanted)))
    assert StepKind.START in kinds(change)
    host.carry_out(plan(world(host, wanted)))
    assert "--privileged" not in host.instances["chat"].command


def test_a_container_that_was_started_otherwise_is_told_by_what_differs() -> None:
    wanted = desired(slots("chat"))
    host = applied(wanted)
    command = (*host.instances["chat"].command[:2], "--device=/dev/kfd", *host.instances["chat"].command[2:])
    host.instances["chat"] = replace(host.instances["chat"], command=command)
    change = only_change(plan(world(host, wanted)))
    assert change.reasons == (Reason("devices", "/dev/kfd", "none", drift=True),)
    assert kinds(change) == [StepKind.STOP, StepKind.RESET_FAILED, StepKind.START]


def test_a_loaded_unit_and_its_container_that_differ_alike_are_told_once() -> None:
    wanted = desired(slots("chat"))
    host = applied(wanted)
    command = tuple(word for word in host.loaded["chat"] if word != "--read-only")
    host.loaded["chat"] = command
    host.instances["chat"] = replace(host.instances["chat"], command=command)
    change = only_change(plan(world(host, wanted)))
    assert change.reasons == (Reason("options", "none", "--read-only", drift=True),)
    assert StepKind.RELOAD in kinds(change)
    assert StepKind.STOP in kinds(change)


@pytest.mark.parametrize(
    ("limits", "reasons"),
    [
        ({"memory": 2**31, "cpus": 2.0}, []),
        ({"memory": 2**31 - 4096, "cpus": 1.999}, []),
        ({"memory": 2**30, "cpus": 2.0}, [Reason("memory", "1.0 GiB", "2.0 GiB", drift=True)]),
        ({"memory": 2**31, "cpus": 1.5}, [Reason("cpus", "1.5", "2", drift=True)]),
        ({"memory": 0, "cpus": 0.0}, []),
        ({"memory": None, "cpus": None}, []),
    ],
)
def test_a_limit_that_was_changed_while_it_runs_is_drift(limits: dict[str, Any], reasons: list[Reason]) -> None:
    wanted = desired(slots("chat", limits="{memory: 2Gi, cpus: 2}"))
    host = applied(wanted)
    host.instances["chat"] = replace(host.instances["chat"], **limits)
    assert [reason for change in plan(world(host, wanted)).changes for reason in change.reasons] == reasons


def test_a_limit_where_none_is_declared_is_drift() -> None:
    wanted = desired(slots("chat"))
    host = applied(wanted)
    host.instances["chat"] = replace(host.instances["chat"], memory=2**30, cpus=0.0)
    change = only_change(plan(world(host, wanted)))
    assert change.reasons == (Reason("memory", "1.0 GiB", "none", drift=True),)


def test_a_definition_removed_by_others_is_drift() -> None:
    wanted = desired(slots("chat"))
    host = applied(wanted)
    owned = {"chat": wanted.slots["chat"].spec}
    host.remove("chat")
    change = only_change(plan(World(wanted, observe(host, wanted), owned)))
    assert change.is_drift
    assert change.action is Action.CREATE


def test_a_retagged_image_restarts_the_slot() -> None:
    wanted = desired(slots("chat"))
    host = applied(wanted)
    host.images[wanted.slots["chat"].spec.image] = "id-of-another-build"
    change = only_change(plan(world(host, wanted)))
    assert [reason.field for reason in change.reasons] == ["image"]
    assert kinds(change) == [StepKind.STOP, StepKind.RESET_FAILED, StepKind.START]


def test_a_container_that_is_gone_under_an_active_unit_is_systemds_to_restart() -> None:
    wanted = desired(slots("chat"))
    host = applied(wanted)
    del host.instances["chat"]
    change = only_change(plan(world(host, wanted)))
    assert change.action is Action.WAIT
    assert change.is_drift


def test_a_unit_that_never_notices_that_its_container_is_gone_is_started_anew() -> None:
    wanted = desired(slots("chat"))
    host = applied(wanted)
    del host.instances["chat"]
    now = world(host, wanted)
    hollow = {name: replace(seen, gone_since=now.now - 11) for name, seen in now.observed.slots.items()}
    change = only_change(plan(replace(now, observed=Observed(hollow))))
    assert kinds(change) == [StepKind.STOP, StepKind.RESET_FAILED, StepKind.START]


def test_an_operators_dropin_is_left_alone_and_never_fought() -> None:
    wanted = desired(slots("chat"))
    host = applied(wanted)
    host.operator_dropins["chat"] = ("/etc/systemd/system/hal0-slot@chat.service.d/60-mine.conf",)
    host.loaded["chat"] = (*host.loaded["chat"], "--temp", "0")
    host.start("chat")
    assert plan(world(host, wanted)).is_empty


def test_a_unit_without_the_mark_is_refused() -> None:
    wanted = desired(slots("chat"))
    host = applied(wanted)
    host.files["chat"] = "[Service]\nExecStart=/bin/true\n"
    change = only_change(plan(world(host, wanted)))
    assert change.action is Action.REFUSE
    assert "ForeignUnit" in change.reasons[0].field


def test_a_definition_of_another_slot_is_refused() -> None:
    wanted = desired(slots("chat"))
    host = applied(wanted)
    host.files["chat"] = stamp("x", slot="other", spec_hash="h", generation=1)
    assert only_change(plan(world(host, wanted))).action is Action.REFUSE


def test_a_container_without_the_label_is_refused() -> None:
    host = FakeHost(instances={"chat": Instance("1", running=True)})
    assert only_change(plan(world(host, desired(slots("chat"))))).action is Action.REFUSE


@pytest.mark.parametrize("lost", ["definition", "service"])
def test_what_is_unknown_is_waited_for_and_never_touched(lost: str) -> None:
    wanted = desired(slots("chat"))
    unknown: dict[str, Any] = {lost: Unknown("the bus is gone")}
    seen = {"chat": replace(FakeHost().observe("chat", ""), **unknown)}
    change = only_change(plan(World(wanted, Observed(seen))))
    assert change.action is Action.WAIT
    assert not change.steps


def test_a_slot_that_was_never_looked_at_is_unknown() -> None:
    assert only_change(plan(World(desired(slots("chat")), Observed({})))).action is Action.WAIT


def test_an_unknown_container_does_not_restart_a_running_slot() -> None:
    wanted = desired(slots("chat"))
    host = applied(wanted)
    seen = replace(observe(host, wanted).slots["chat"], instance=Unknown("no podman.sock"), image=Unknown("no podman"))
    assert plan(World(wanted, Observed({"chat": seen}))).is_empty


def test_a_missing_model_is_refused_before_anything_is_started() -> None:
    wanted = desired(slots("chat"))
    seen = replace(FakeHost().observe("chat", ""), model=Known(value=False))
    change = only_change(plan(World(wanted, Observed({"chat": seen}))))
    assert change.reasons[0].field == (
        "ModelMissing: there is no /models/m.gguf (put the file there, or give Model m a source)"
    )


def test_a_slot_whose_manifest_is_gone_is_stopped_removed_and_forgotten() -> None:
    host = applied(desired(slots("chat", "embed", "rank")))
    change = only_change(plan(world(host, desired(slots("chat", "embed")))))
    assert change.action is Action.DELETE
    assert kinds(change) == [
        StepKind.STOP, StepKind.REMOVE, StepKind.RELOAD, StepKind.RESET_FAILED, StepKind.FORGET,
    ]  # fmt: skip


def test_pruning_most_slots_is_refused_unless_asked_for() -> None:
    host = applied(desired(slots("a", "b", "c")))
    now = world(host, desired(slots("a")))
    assert {change.action for change in plan(now).changes} == {Action.REFUSE}
    assert {change.action for change in plan(now, prune_all=True).changes} == {Action.DELETE}


def test_what_an_operator_deletes_by_name_does_not_count_as_pruned() -> None:
    host = applied(desired(slots("a", "b", "c", "d")))
    now = replace(world(host, desired(slots("d"))), deletions=frozenset({"a", "lost"}))
    actions = {change.slot: change.action for change in plan(now).changes if change.slot != "d"}
    assert actions == {"a": Action.DELETE, "b": Action.REFUSE, "c": Action.REFUSE}
    actions = {
        change.slot: change.action
        for change in plan(replace(now, deletions=frozenset("ab"))).changes
        if change.slot != "d"
    }
    assert actions == dict.fromkeys("abc", Action.DELETE)


def test_a_removed_slot_that_cant_be_seen_stays() -> None:
    wanted = desired(slots("chat"))
    now = World(desired(slots("embed")), Observed({}), {"chat": wanted.slots["chat"].spec})
    assert {change.action for change in plan(now, prune_all=True).changes} == {Action.WAIT}


def test_a_suspended_slot_is_left_exactly_as_it_is() -> None:
    host = applied(desired(slots("chat")))
    host.stop("chat")
    assert plan(world(host, desired(slots("chat", suspend="true", context_size=1)))).is_empty


def test_a_slot_that_never_runs_is_defined_and_not_started() -> None:
    change = only_change(plan(world(FakeHost(), desired(slots("chat", run="never")))))
    assert kinds(change) == [StepKind.WRITE, StepKind.RELOAD]


def test_a_running_slot_that_should_not_is_stopped() -> None:
    host = applied(desired(slots("chat")))
    assert kinds(only_change(plan(world(host, desired(slots("chat", run="never")))))) == [StepKind.STOP]


def test_demand_wakes_an_on_demand_slot_and_time_ends_it() -> None:
    wanted = desired(slots("chat", run="on-demand", idle_timeout="60s"))
    host = applied(wanted)
    assert host.starts == {}
    wanting = replace(world(host, wanted), demand={"chat": Demand(last_used=5.0)})
    assert StepKind.START in kinds(only_change(plan(wanting)))
    host.carry_out(plan(wanting))
    assert plan(replace(world(host, wanted), demand={"chat": Demand(5.0)})).is_empty
    late = replace(world(host, wanted), demand={"chat": Demand(5.0)}, now=66.0)
    assert kinds(only_change(plan(late))) == [StepKind.STOP]


def test_drift_under_alert_is_named_and_left() -> None:
    wanted = desired(slots("chat", drift="alert"))
    host = applied(wanted)
    host.stop("chat")
    change = only_change(plan(world(host, wanted)))
    assert change.action is Action.WAIT
    assert change.is_drift


def test_drift_under_heal_when_idle_waits_for_requests_in_flight() -> None:
    wanted = desired(slots("chat", drift="heal-when-idle"))
    host = applied(wanted)
    host.images[wanted.slots["chat"].spec.image] = "another"
    busy = replace(world(host, wanted), demand={"chat": Demand(9.0, serving=2)})
    assert only_change(plan(busy)).action is Action.WAIT
    assert only_change(plan(world(host, wanted))).action is Action.RESTART


def test_drift_under_heal_when_idle_does_not_wait_for_requests_that_only_wait() -> None:
    wanted = desired(slots("chat", drift="heal-when-idle"))
    host = applied(wanted)
    host.images[wanted.slots["chat"].spec.image] = "another"
    held = replace(world(host, wanted), demand={"chat": Demand(9.0, waiting=2)})
    assert only_change(plan(held)).action is Action.RESTART


@pytest.mark.parametrize(
    ("demand", "before"),
    [
        (Demand(9.0, serving=1), [StepKind.DRAIN, StepKind.STOP]),
        (Demand(9.0, serving=2, waiting=1), [StepKind.DRAIN, StepKind.STOP]),
        (Demand(9.0, serving=3, beside=2), [StepKind.DRAIN, StepKind.STOP]),
        (Demand(9.0, serving=2, beside=2), [StepKind.STOP]),
        (Demand(9.0, waiting=3), [StepKind.STOP]),
        (Demand(9.0), [StepKind.STOP]),
    ],
)
def test_a_stop_waits_for_requests_that_are_being_answered_and_for_no_others(
    demand: Demand, before: list[StepKind]
) -> None:
    host, others = applied(desired(slots("chat", "embed", "rank"))), slots("chat", "embed")
    changed, never = (slots("rank", **keys).removeprefix(MODEL) for keys in ({"context_size": 9}, {"run": "never"}))
    for text, after in (
        (others + changed, [StepKind.WRITE, StepKind.RELOAD, StepKind.RESET_FAILED, StepKind.START]),
        (others + never, []),
        (others, [StepKind.REMOVE, StepKind.RELOAD, StepKind.RESET_FAILED, StepKind.FORGET]),
    ):
        now = replace(world(host, desired(text)), demand={"rank": demand})
        assert kinds(only_change(plan(now))) == [*before, *after]


def test_what_needs_no_stop_waits_for_no_request() -> None:
    wanted = desired(slots("chat"))
    busy = {"chat": Demand(9.0, serving=1)}
    stopped, stale = applied(wanted), applied(wanted)
    stopped.stop("chat")
    stale.stale.add("chat")
    assert StepKind.DRAIN not in kinds(only_change(plan(replace(world(stopped, wanted), demand=busy))))
    assert kinds(only_change(plan(replace(world(stale, wanted), demand=busy)))) == [StepKind.RELOAD]


def test_all_slots_are_drained_before_the_first_is_stopped() -> None:
    host = applied(desired(slots("a", "b")))
    busy = {name: Demand(9.0, serving=1) for name in "ab"}
    steps = plan(replace(world(host, desired(slots("a", "b", run="never"))), demand=busy)).steps
    assert [step.kind for step in steps] == [StepKind.DRAIN] * 2 + [StepKind.STOP] * 2


def test_a_fresh_failure_is_waited_out_and_then_tried_again() -> None:
    wanted = desired(slots("chat"))
    tried = {"chat": Attempt(wanted.slots["chat"].spec_hash, 1, 9.0, "no image")}
    soon = replace(world(FakeHost(), wanted), attempts=tried)
    assert only_change(plan(soon)).action is Action.WAIT
    assert only_change(plan(replace(soon, now=60.0))).action is Action.CREATE


def test_a_new_spec_does_not_wait_for_the_failures_of_the_old() -> None:
    tried = {"chat": Attempt("the old one", 9, 9.0, "no image")}
    now = replace(world(FakeHost(), desired(slots("chat"))), attempts=tried)
    assert only_change(plan(now)).action is Action.CREATE


def test_a_limit_keeps_the_plan_to_its_slots() -> None:
    now = world(FakeHost(), desired(slots("a", "b")))
    assert [change.slot for change in plan(now).limited(frozenset({"b"})).changes] == ["b"]


def test_a_masked_unit_is_refused_with_what_to_do() -> None:
    wanted = desired(slots("chat"))
    host = applied(wanted)
    seen = observe(host, wanted).slots["chat"]
    assert isinstance(seen.service, Known)
    assert seen.service.value
    masked = replace(seen, service=Known(replace(seen.service.value, load="masked")))
    assert "unmask" in only_change(plan(World(wanted, Observed({"chat": masked})))).reasons[0].field


def test_the_planners_own_check_names_its_mistakes() -> None:
    bad = Change("x", Action.UPDATE, (), (Step(StepKind.START, "x"), Step(StepKind.WRITE, "x")))
    assert len(list(faults(Plan((bad,))))) == 2


# Generated worlds.

NAMES = ["a", "b", "c", "d"]


@st.composite
def hosts_and_wishes(draw: st.DrawFn) -> tuple[FakeHost, Desired]:
    """A host that some manifests were applied to and others have meddled with, and the manifests of now."""
    before = desired(_manifests(draw))
    host = FakeHost()
    host.carry_out(plan(World(before, observe(host, before), now=10.0)))
    for name in draw(st.lists(st.sampled_from(NAMES), max_size=4)):
        draw(st.sampled_from([_stop, _fail, _edit, _lose, _retag, _remove_container, _stale]))(host, name)
    return host, desired(_manifests(draw), generation=2)


def _manifests(draw: st.DrawFn) -> str:
    names = draw(st.lists(st.sampled_from(NAMES), unique=True, min_size=1))
    return slots("z") + "".join(
        f"---\nkind: Slot\nname: {name}\nmodel: m\nrun: {draw(st.sampled_from(['always', 'never', 'on-demand']))}\n"
        f"context_size: {draw(st.sampled_from([512, 1024]))}\nsuspend: {draw(st.sampled_from(['false', 'true']))}\n"
        for name in names
    )


def _stop(host: FakeHost, name: str) -> None:
    if name in host.loaded:
        host.stop(name)


def _fail(host: FakeHost, name: str) -> None:
    if name in host.loaded:
        host.stop(name)
        host.activity[name] = Activity.FAILED


def _edit(host: FakeHost, name: str) -> None:
    if name in host.files:
        host.write(name, host.files[name].replace("--tmpfs=/tmp", "--tmpfs=/var/tmp"))


def _lose(host: FakeHost, name: str) -> None:
    host.files.pop(name, None)
    host.stale.add(name)


def _retag(host: FakeHost, name: str) -> None:
    for ref in host.images:
        host.images[ref] = f"retagged-for-{name}"


def _remove_container(host: FakeHost, name: str) -> None:
    if host.instances.pop(name, None):
        host.activity[name] = Activity.FAILED


def _stale(host: FakeHost, name: str) -> None:
    if name in host.files:
        host.stale.add(name)


@settings(max_examples=150, deadline=None)
@given(hosts_and_wishes())
def test_planning_after_applying_is_empty(case: tuple[FakeHost, Desired]) -> None:
    host, wanted = case
    first = plan(world(host, wanted), prune_all=True)
    assert list(faults(first)) == []
    host.carry_out(first)
    again = plan(world(host, wanted), prune_all=True)
    assert again.changes == ()


@settings(max_examples=100, deadline=None)
@given(hosts_and_wishes(), st.lists(st.sampled_from(["definition", "service"]), min_size=1, unique=True))
def test_no_step_is_ever_planned_for_what_cant_be_seen(case: tuple[FakeHost, Desired], lost: list[str]) -> None:
    host, wanted = case
    unknown: dict[str, Any] = dict.fromkeys(lost, Unknown("not now"))
    seen = {name: replace(found, **unknown) for name, found in observe(host, wanted).slots.items()}
    assert plan(replace(world(host, wanted), observed=Observed(seen)), prune_all=True).steps == ()


uses = st.builds(Demand, last_used=st.just(9.0), serving=st.integers(0, 1), waiting=st.integers(0, 1))


@settings(max_examples=100, deadline=None)
@given(hosts_and_wishes(), st.dictionaries(st.sampled_from(NAMES), uses))
def test_a_stop_comes_right_after_its_slot_was_drained_if_it_is_serving_and_nothing_else_is_drained(
    case: tuple[FakeHost, Desired], demand: dict[str, Demand]
) -> None:
    host, wanted = case
    now = replace(world(host, wanted), demand=demand)
    held = {name: replace(use, serving=0, waiting=use.in_flight) for name, use in demand.items()}
    plain = {change.slot: change for change in plan(replace(now, demand=held), prune_all=True).changes}
    for change in plan(now, prune_all=True).changes:
        is_drained = change.stops and change.slot in demand and demand[change.slot].serving
        pair = [StepKind.DRAIN, StepKind.STOP] if is_drained else [StepKind.STOP]
        expected = [pair if kind is StepKind.STOP else [kind] for kind in kinds(plain[change.slot])]
        assert kinds(change) == list(chain.from_iterable(expected))


@settings(max_examples=50, deadline=None)
@given(hosts_and_wishes())
def test_planning_twice_gives_the_same_plan(case: tuple[FakeHost, Desired]) -> None:
    host, wanted = case
    assert plan(world(host, wanted)) == plan(world(host, wanted))


def test_the_definition_on_disk_is_what_the_diff_starts_from() -> None:
    wanted = desired(slots("chat"))
    host = applied(wanted)
    host.files["chat"] = host.files["chat"].replace("--read-only", "--privileged")
    change = only_change(plan(world(host, wanted)))
    assert "-  --privileged" in change.diff()
    assert change.path.endswith("50-hal0.conf")


# Models that are fetched.

FETCHED = "kind: Model\nname: m\nsource: {repo: org/repo, file: m.gguf}\n"


def without_model(wanted: Desired, host: FakeHost) -> World:
    """Return a world whose model files are not there."""
    found = world(host, wanted)
    slots_seen = {name: replace(seen, model=Known(value=False)) for name, seen in found.observed.slots.items()}
    return replace(found, observed=replace(found.observed, slots=slots_seen))


def test_a_model_that_has_a_source_is_fetched_before_anything_is_started() -> None:
    wanted = desired(slots("chat").replace(MODEL, FETCHED))
    change = only_change(plan(without_model(wanted, FakeHost())))
    assert kinds(change) == [
        StepKind.FETCH, StepKind.PULL, StepKind.WRITE, StepKind.RELOAD, StepKind.RESET_FAILED, StepKind.START,
    ]  # fmt: skip
    assert change.awaits == wanted.registry["m"].download
    assert list(faults(plan(without_model(wanted, FakeHost())))) == []


def test_a_model_that_is_fetched_by_hand_is_refused_with_the_command() -> None:
    wanted = desired(slots("chat").replace(MODEL, FETCHED + "fetch: manual\n"))
    change = only_change(plan(without_model(wanted, FakeHost())))
    assert change.action is Action.REFUSE
    assert change.reasons[0].field == "ModelMissing: there is no /models/org/repo/m.gguf (hal0 model pull m)"


def test_a_slot_that_runs_is_left_alone_whatever_becomes_of_its_file() -> None:
    wanted = desired(slots("chat").replace(MODEL, FETCHED))
    assert plan(without_model(wanted, applied(wanted))).is_empty


def test_a_running_engine_is_not_stopped_before_the_model_of_the_next_one_is_there() -> None:
    text = slots("chat").replace(MODEL, FETCHED)
    host = applied(desired(text))
    change = only_change(plan(without_model(desired(text.replace("m.gguf", "n.gguf")), host)))
    assert kinds(change)[:2] == [StepKind.FETCH, StepKind.STOP]


def test_a_last_good_spec_of_other_files_is_not_fetched_from_the_new_source() -> None:
    before = desired(slots("chat"))
    broken = slots("chat").replace(MODEL, FETCHED) + "---\nkind: Slot\nname: bad\n"
    wanted = desired(broken.replace("name: chat", "name: chat\nport: nothing"), before=before)
    change = only_change(plan(without_model(wanted, FakeHost())))
    assert change.reasons[0].field.startswith("ModelMissing: there is no /models/m.gguf (put the file there")
