from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from worlds import desired, slots

from hal0.core.definition import stamp
from hal0.core.facts import Fact, Known, Unknown
from hal0.core.observed import Activity, Definition, Instance, Service, SlotObservation
from hal0.core.spec import HostSpec
from hal0.core.standin import (
    Circumstances,
    Method,
    Sight,
    Stage,
    View,
    leaves_own,
    method,
    serving_engine,
    spare_port,
    stage,
    view,
)
from hal0.core.state import SlotState

OWN, BESIDE = "chat", "chat.next"
NOWHERE = View(Sight.ABSENT)
SEEN = [sight for sight in Sight if sight not in {Sight.UNKNOWN, Sight.ABSENT}]
SEEN_VIEWS = [NOWHERE, *(View(sight, is_wanted) for sight in SEEN for is_wanted in (True, False))]
seen_views = st.sampled_from(SEEN_VIEWS)
views = seen_views | st.just(View(Sight.UNKNOWN))
methods = st.sampled_from(Method)
EVERY = settings(max_examples=10 * len(SEEN_VIEWS) ** 2, deadline=None)
"""There are few worlds of two engines: all of them are tried."""
MOST_STEPS = 30


def can_serve(own: View, beside: View) -> bool:
    """Return whether the engine that requests go to can answer them."""
    return (own if serving_engine(OWN, own, beside) == OWN else beside).sight.can_serve


# A host on which the loop carries stages out, one move at a time.


def loaded(engine: View, *, works: bool) -> View:
    """Return an engine a while later: started where it is down or of another spec, then ready, then proved or not."""
    if not engine.is_wanted or engine.sight in {Sight.ABSENT, Sight.DOWN, Sight.FAILED}:
        return View(Sight.LOADING, is_wanted=True)
    if engine.sight is Sight.LOADING:
        return replace(engine, sight=Sight.READY)
    return replace(engine, sight=Sight.PROVED if works else Sight.FAILED)


def carried_out(now: Stage, own: View, beside: View, *, works: bool) -> tuple[View, View]:
    """Return both engines after one move of a stage."""
    if now in {Stage.RETURN, Stage.DROP}:
        return own, NOWHERE
    if now is Stage.LOAD:
        beside = loaded(beside, works=works)
    if not leaves_own(now, own) and not (own.is_wanted and own.sight is Sight.PROVED):
        own = loaded(own, works=works)
    return own, beside


def played(own: View, beside: View, way: Method, *, works: bool) -> list[tuple[Stage, View, View]]:
    """Return how it goes, long enough for it to end. A try that failed is made again later, if there is hope."""
    story, may_try = [], True
    for _ in range(MOST_STEPS):
        now = stage(own, beside, way, may_try=may_try)
        story.append((now, own, beside))
        has_failed = now is Stage.DROP and beside.is_wanted
        may_try = (may_try or (works and now is Stage.HOLD)) and not has_failed
        own, beside = carried_out(now, own, beside, works=works)
    return story


@EVERY
@given(seen_views, seen_views, methods)
def test_from_any_two_engines_a_spec_that_works_ends_on_the_slots_own_alone(
    own: View, beside: View, way: Method
) -> None:
    assert played(own, beside, way, works=True)[-1] == (Stage.NONE, View(Sight.PROVED, is_wanted=True), NOWHERE)


@EVERY
@given(st.sampled_from([Sight.READY, Sight.PROVED]), seen_views)
def test_a_spec_that_does_not_work_leaves_an_engine_that_does_as_it_was(sight: Sight, beside: View) -> None:
    own = View(sight)
    assume(not (beside.is_wanted and beside.sight is Sight.PROVED))  # it worked, and its own turn has come
    assert played(own, beside, Method.BESIDE, works=False)[-1] == (Stage.HOLD, own, NOWHERE)


@EVERY
@given(seen_views, seen_views, st.booleans())
def test_beside_somebody_serves_at_every_moment_once_anybody_did(own: View, beside: View, works: bool) -> None:
    served = [can_serve(mine, other) for _, mine, other in played(own, beside, Method.BESIDE, works=works)]
    is_kept = own.sight.can_serve and not own.is_wanted
    is_replaced_by_a_good_one = beside == View(Sight.PROVED, is_wanted=True)
    if is_kept or is_replaced_by_a_good_one:
        assert all(served)


@EVERY
@given(views, views)
def test_requests_go_to_an_engine_that_can_serve_where_there_is_one(own: View, beside: View) -> None:
    assert can_serve(own, beside) == (own.sight.can_serve or beside.sight.can_serve)


@EVERY
@given(views, views, methods, st.booleans())
def test_what_serves_is_never_removed_and_what_is_replaced_does_not_serve(
    own: View, beside: View, way: Method, may_try: bool
) -> None:
    now, serving = stage(own, beside, way, may_try=may_try), serving_engine(OWN, own, beside)
    if now in {Stage.RETURN, Stage.DROP}:
        assert serving == OWN
    if now is Stage.FLIP:
        assert (serving, beside.sight.can_serve) == (BESIDE, True)
    if now is Stage.LOAD:
        assert leaves_own(now, own) == own.sight.can_serve


@EVERY
@given(views, views, methods, st.booleans())
def test_nothing_is_done_while_one_of_the_two_can_not_be_seen(
    own: View, beside: View, way: Method, may_try: bool
) -> None:
    for mine, other in ((own, View(Sight.UNKNOWN)), (View(Sight.UNKNOWN), beside)):
        now = stage(mine, other, way, may_try=may_try)
        assert now is Stage.HOLD
        assert leaves_own(now, mine)


@EVERY
@given(seen_views, seen_views, st.booleans())
def test_a_stand_in_that_is_there_is_not_taken_back_because_memory_moved(
    own: View, beside: View, may_try: bool
) -> None:
    assume(beside.sight is not Sight.ABSENT)
    assert len({stage(own, beside, way, may_try=may_try) for way in Method}) == 1


@pytest.mark.parametrize(
    ("own", "beside", "way", "may_try", "now"),
    [
        ((Sight.READY, False), (Sight.ABSENT, False), Method.BESIDE, True, Stage.LOAD),
        ((Sight.READY, False), (Sight.ABSENT, False), Method.BESIDE, False, Stage.HOLD),
        ((Sight.READY, False), (Sight.ABSENT, False), Method.IN_PLACE, True, Stage.NONE),
        ((Sight.READY, True), (Sight.ABSENT, False), Method.BESIDE, True, Stage.NONE),
        ((Sight.FAILED, False), (Sight.ABSENT, False), Method.BESIDE, False, Stage.NONE),
        ((Sight.READY, False), (Sight.DOWN, True), Method.BESIDE, True, Stage.LOAD),
        ((Sight.READY, False), (Sight.READY, True), Method.BESIDE, True, Stage.LOAD),
        ((Sight.READY, False), (Sight.FAILED, True), Method.BESIDE, True, Stage.DROP),
        ((Sight.READY, False), (Sight.PROVED, True), Method.BESIDE, True, Stage.FLIP),
        ((Sight.READY, False), (Sight.PROVED, False), Method.BESIDE, True, Stage.DROP),
        ((Sight.LOADING, True), (Sight.PROVED, True), Method.BESIDE, True, Stage.FLIP),
        ((Sight.FAILED, True), (Sight.PROVED, True), Method.BESIDE, True, Stage.FLIP),
        ((Sight.READY, True), (Sight.PROVED, False), Method.BESIDE, True, Stage.FLIP),
        ((Sight.LOADING, True), (Sight.READY, False), Method.BESIDE, True, Stage.FLIP),
        ((Sight.LOADING, True), (Sight.LOADING, False), Method.BESIDE, True, Stage.DROP),
        ((Sight.PROVED, True), (Sight.PROVED, True), Method.BESIDE, True, Stage.RETURN),
        ((Sight.PROVED, True), (Sight.FAILED, False), Method.BESIDE, True, Stage.RETURN),
    ],
)
def test_what_is_done_follows_from_what_is_seen(
    own: tuple[Sight, bool], beside: tuple[Sight, bool], way: Method, may_try: bool, now: Stage
) -> None:
    assert stage(View(*own), View(*beside), way, may_try=may_try) is now


# What is seen of one engine.

WANTED = desired(slots("chat")).slots["chat"]
TEXT = stamp(WANTED.body, slot="chat", spec_hash=WANTED.spec_hash, generation=1)
DEFINED: Fact[Definition | None] = Known(Definition("/chat.conf", TEXT))
BLIND = Unknown("D-Bus is gone")


def seen(
    definition: Fact[Definition | None] = DEFINED,
    service: Fact[Service | None] = Known(Service(Activity.ACTIVE)),  # noqa: B008  (a value)
    spec_hash: str = "",
) -> SlotObservation:
    instance = Instance("1", running=True, slot="chat", spec_hash=spec_hash) if spec_hash else None
    return SlotObservation(definition, service, Known(instance), Known(None))


@pytest.mark.parametrize(
    ("found", "state", "proof", "looks"),
    [
        (seen(spec_hash=WANTED.spec_hash), SlotState.SERVING, None, View(Sight.READY, is_wanted=True)),
        (seen(spec_hash=WANTED.spec_hash), SlotState.IDLE, True, View(Sight.PROVED, is_wanted=True)),
        (seen(spec_hash=WANTED.spec_hash), SlotState.READY, False, View(Sight.FAILED, is_wanted=True)),
        (seen(spec_hash="old"), SlotState.READY, None, View(Sight.READY)),
        (seen(), SlotState.PULLING, None, View(Sight.LOADING, is_wanted=True)),
        (seen(), SlotState.ERROR, True, View(Sight.FAILED, is_wanted=True)),
        (seen(), SlotState.UNLOADING, None, View(Sight.DOWN, is_wanted=True)),
        (seen(Known(None)), SlotState.OFFLINE, None, View(Sight.DOWN)),
        (seen(Known(None), Known(None)), SlotState.OFFLINE, None, NOWHERE),
        (seen(Known(None), Known(None), "old"), SlotState.OFFLINE, None, View(Sight.DOWN)),
        (seen(BLIND), SlotState.READY, True, View(Sight.UNKNOWN)),
        (seen(service=BLIND), SlotState.READY, True, View(Sight.UNKNOWN)),
        (replace(seen(), instance=BLIND), SlotState.READY, True, View(Sight.UNKNOWN)),
    ],
)
def test_an_engine_looks_as_its_state_its_proof_and_its_traces_say(
    found: SlotObservation, state: SlotState, proof: bool | None, looks: View
) -> None:
    assert view(WANTED, found, state, proof) == looks


# How it is replaced, and where its stand-in listens.

ROOM = Circumstances(
    is_asked=True,
    is_ready=True,
    has_operators_dropins=False,
    exclusive="",
    port=8099,
    ports=(8081, 8099),
    pool="ram",
    left=3 * 2**30,
    claim=2**30,
)


@pytest.mark.parametrize(
    ("changes", "answer"),
    [
        ({}, (Method.BESIDE, "pool ram has 3.0 GiB left, it claims 1.0 GiB")),
        ({"claim": 3 * 2**30}, (Method.BESIDE, "pool ram has 3.0 GiB left, it claims 3.0 GiB")),
        ({"claim": 4 * 2**30}, (Method.IN_PLACE, "pool ram has 3.0 GiB left, and it claims 4.0 GiB")),
        ({"left": None}, (Method.IN_PLACE, "what of ram it would take is not known")),
        ({"claim": None, "pool": ""}, (Method.IN_PLACE, "what of memory it would take is not known")),
        ({"port": None}, (Method.IN_PLACE, "no spare port in 8081-8099")),
        ({"exclusive": "one llm at a time on the npu"}, (Method.IN_PLACE, "one llm at a time on the npu")),
        ({"has_operators_dropins": True}, (Method.IN_PLACE, "drop-ins of yours would not hold for a second unit")),
        ({"is_ready": False, "port": None}, (Method.IN_PLACE, "it is not ready now")),
        ({"is_asked": False, "is_ready": False}, (Method.IN_PLACE, "replace: in-place")),
    ],
)
def test_an_engine_is_replaced_beside_itself_where_nothing_stands_against_it(
    changes: dict[str, object], answer: tuple[Method, str]
) -> None:
    assert method(replace(ROOM, **changes)) == answer  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("taken", "had", "port"),
    [
        ([], None, 8003),
        ([8003], None, 8002),
        ([8001, 8002, 8003], None, None),
        ([8003], 8001, 8001),
        ([8001], 8001, 8003),
        ([], 9000, 9000),
    ],
)
def test_a_stand_in_keeps_its_port_or_gets_the_hosts_highest_that_is_free(
    taken: list[int], had: int | None, port: int | None
) -> None:
    assert spare_port(HostSpec(ports=(8001, 8003)), taken, had) == port
