from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import strategies
from hypothesis import given
from hypothesis import strategies as st
from worlds import FACTS, TEMPLATES, desired, slots

from hal0.core.rejections import good_again, with_rejections
from hal0.core.resolve import desired_slot
from hal0.core.schedule import placement
from hal0.core.schema import RunPolicy
from hal0.core.spec import Desired, DesiredSlot, HostFacts, SlotSpec
from hal0.core.trial import Rejection


def rejecting(slot: DesiredSlot) -> dict[tuple[str, str], Rejection]:
    name = slot.spec.name
    return {(name, slot.spec_hash): Rejection(name, slot.spec_hash, "it crashed", 0.0)}


def renderer(found: Desired, facts: HostFacts = FACTS) -> Callable[[SlotSpec], DesiredSlot]:
    return lambda spec: desired_slot(spec, facts, found.host, TEMPLATES)


@given(st.data(), strategies.worlds(max_slots=4))
def test_what_was_rejected_is_wanted_by_nobody(
    data: st.DataObject, world: tuple[HostFacts, list[strategies.Data], Desired]
) -> None:
    facts, _, found = world
    names = sorted(found.slots)
    bad = data.draw(st.sets(st.sampled_from(names)) if names else st.just(set()))
    ports = st.sampled_from([8080, *range(8081, 8096), *(slot.spec.port for slot in found.slots.values())])
    good = {
        name: replace(found.slots[name].spec, args=("--old",), port=data.draw(ports), run=RunPolicy.NEVER)
        for name in data.draw(st.sets(st.sampled_from(names)) if names else st.just(set()))
    }
    rejections = {key: own for name in bad for key, own in rejecting(found.slots[name]).items()}
    after = with_rejections(found, rejections, good, renderer(found, facts))
    assert list(after.slots) == list(found.slots)
    assert after.content == found.content
    taken = [slot.spec.port for slot in after.slots.values()]
    assert len(set(taken)) == len(taken)
    verdicts = placement(after, {}, 0.0)
    for name, slot in after.slots.items():
        assert bool(slot.rejected) == (name in bad)
        if name not in bad:
            assert slot is found.slots[name]
        elif (name, slot.spec_hash) in rejections:
            assert slot.is_barred
            assert not verdicts[name].up
        else:
            assert slot.spec.args == ("--old",)
        was = found.slots[name].spec
        policies = ("run", "aliases", "idle_timeout", "suspend", "drift", "placing", "source")
        assert [getattr(slot.spec, key) for key in policies] == [getattr(was, key) for key in policies]


def test_the_good_spec_keeps_its_port_while_nobody_else_has_it() -> None:
    before = desired(slots("chat", port=8085)).slots["chat"].spec
    found = desired(slots("chat", port=8090))
    after = with_rejections(found, rejecting(found.slots["chat"]), {"chat": before}, renderer(found))
    assert after.slots["chat"].spec.port == 8085


def test_the_good_spec_moves_where_another_slot_has_its_port_now() -> None:
    before = replace(desired(slots("chat", port=8085)).slots["chat"].spec, args=("--old",))
    found = desired(slots("chat", port=8090) + "---\nkind: Slot\nname: new\nmodel: m\nport: 8085\n")
    after = with_rejections(found, rejecting(found.slots["chat"]), {"chat": before}, renderer(found))
    assert after.slots["chat"].spec.port == 8090
    assert not after.slots["chat"].is_barred


def test_a_slot_of_which_only_the_port_was_bad_and_is_gone_is_kept_down() -> None:
    before = desired(slots("chat", port=8085)).slots["chat"].spec
    found = desired(slots("chat", port=8090) + "---\nkind: Slot\nname: new\nmodel: m\nport: 8085\n")
    after = with_rejections(found, rejecting(found.slots["chat"]), {"chat": before}, renderer(found))
    assert after.slots["chat"].is_barred


def test_what_is_kept_of_a_broken_manifest_is_the_good_spec_on_todays_port_and_policies() -> None:
    good = desired(slots("chat", args="[--good]")).slots["chat"].spec
    last = replace(desired(slots("chat", run="never", port=8095)).slots["chat"].spec, args=("--never-ready",))
    broken = slots("chat", colour="red")
    (kept,) = desired(broken, last_good={"chat": last}, proven={"chat": good}).slots.values()
    assert (kept.spec.args, kept.spec.port, kept.spec.run) == (("--good",), 8095, RunPolicy.NEVER)
    assert kept.spec == good_again(good, last, 8095)
    (kept,) = desired(broken, last_good={"chat": last}).slots.values()
    assert kept.spec == last
