"""Specs that were rejected are not wanted again: the last good one stands in for them, or nothing does."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace

from hal0.core.fields import parse_listen
from hal0.core.spec import Desired, DesiredSlot, SlotSpec
from hal0.core.trial import Rejection

Rejections = Mapping[tuple[str, str], Rejection]
"""By slot and spec hash."""


def good_again(good: SlotSpec, now: SlotSpec, port: int) -> SlotSpec:
    """Return what was executed when a slot was good, on ``port``, under the policies that hold for it ``now``."""
    return replace(
        good,
        port=port,
        run=now.run,
        aliases=now.aliases,
        idle_timeout=now.idle_timeout,
        suspend=now.suspend,
        drift=now.drift,
        placing=now.placing,
        source=now.source,
    )


def with_rejections(
    desired: Desired,
    rejections: Rejections,
    good: Mapping[str, SlotSpec],
    render: Callable[[SlotSpec], DesiredSlot],
) -> Desired:
    """Return what is desired with the last ``good`` spec in the place of each that was rejected.

    It keeps its port, unless another slot has that now. Where there is no good spec, or what is executed would be the
    same, the slot keeps the rejected one, marked so: it is to be kept down. ``render`` makes a slot of a spec.
    """
    slots = dict(desired.slots)
    for name, slot in desired.slots.items():
        if rejection := rejections.get((name, slot.spec_hash)):
            spec = good.get(name)
            again = render(_freed(spec, slot.spec, _taken(slots, name, desired))) if spec else slot
            kept = slot if (name, again.spec_hash) in rejections else again
            slots[name] = replace(kept, problems=slot.problems, declared=slot.as_declared, rejected=rejection)
    return replace(desired, slots=slots)


def _freed(good: SlotSpec, wanted: SlotSpec, taken: Collection[int]) -> SlotSpec:
    return good_again(good, wanted, wanted.port if good.port in taken else good.port)


def _taken(slots: Mapping[str, DesiredSlot], name: str, desired: Desired) -> Collection[int]:
    others = {slot.spec.port for other, slot in slots.items() if other != name}
    return others | {parse_listen(desired.host.listen)[1]}
