from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from worlds import desired, slots

from hal0.core.engines import is_stand_in, served_spec, slot_of, stand_in_of
from hal0.core.facts import Fact, Known, Unknown
from hal0.core.observed import Activity, Instance, Service, SlotObservation
from hal0.core.spec import SlotSpec

OLD = desired(slots("chat", port=9001)).slots["chat"]
NEW = desired(slots("chat", port=9002, defaults="{top_k: 7}")).slots["chat"]
NEWER = replace(NEW, spec=replace(NEW.spec, defaults={"top_k": 8}))
BLIND = Unknown("D-Bus is gone")


def running(spec_hash: str, *, is_running: bool = True) -> Known[Instance | None]:
    return Known(Instance("1", running=is_running, slot="chat", spec_hash=spec_hash))


def seen(service: Fact[Service | None], instance: Fact[Instance | None]) -> SlotObservation:
    return SlotObservation(Known(None), service, instance, Known(None))


def active(activity: Activity = Activity.ACTIVE) -> Known[Service | None]:
    return Known(Service(activity))


@pytest.mark.parametrize(
    ("service", "instance", "applied", "serves"),
    [
        (active(), running(OLD.spec_hash), OLD.spec, OLD.spec),
        (active(), running(NEW.spec_hash), OLD.spec, NEW.spec),
        (active(), running(NEW.spec_hash, is_running=False), OLD.spec, OLD.spec),
        (active(), running("by hand"), NEW.spec, NEW.spec),
        (active(), running("by hand"), OLD.spec, OLD.spec),
        (active(), BLIND, OLD.spec, OLD.spec),
        (BLIND, BLIND, OLD.spec, OLD.spec),
        (BLIND, running(NEW.spec_hash), OLD.spec, NEW.spec),
        (active(), Known(None), OLD.spec, OLD.spec),
        (active(Activity.RESTARTING), Known(None), OLD.spec, OLD.spec),
        (active(Activity.DEACTIVATING), running(OLD.spec_hash), OLD.spec, OLD.spec),
        (active(Activity.INACTIVE), Known(None), OLD.spec, NEW.spec),
        (active(Activity.FAILED), BLIND, OLD.spec, NEW.spec),
        (Known(None), Known(None), OLD.spec, NEW.spec),
        (active(), running(OLD.spec_hash), None, NEW.spec),
    ],
)
def test_requests_are_for_the_engine_that_runs_and_for_the_wanted_one_where_none_does(
    service: Fact[Service | None], instance: Fact[Instance | None], applied: SlotSpec | None, serves: SlotSpec
) -> None:
    assert served_spec(NEW, seen(service, instance), applied) == serves


def test_an_engine_that_an_edit_does_not_touch_is_of_the_edited_spec() -> None:
    assert served_spec(NEWER, seen(active(), running(NEW.spec_hash)), NEW.spec) == NEWER.spec


@given(st.from_regex(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?", fullmatch=True))
def test_a_key_tells_the_slot_and_whether_it_is_its_stand_in(slot: str) -> None:
    assert [(slot_of(key), is_stand_in(key)) for key in (slot, stand_in_of(slot))] == [(slot, False), (slot, True)]
