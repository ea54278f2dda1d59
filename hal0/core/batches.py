"""Which changes of a plan are carried out together: a slot waits for no other slot's requests but those it must."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from hal0.core.steps import Plan, StepKind


def batches(plan: Plan, ports: Mapping[str, frozenset[int]]) -> Iterator[Plan]:
    """Yield the parts of a plan that go on side by side: each slot that drains, then all the others as one.

    ``ports`` are those that each slot holds and is to have. Slots that hand ports on to each other are in one part:
    it stops all of them before it starts the first.
    """
    left = frozenset(change.slot for change in plan.changes)
    for slot in (change.slot for change in plan.changes if change.has(StepKind.DRAIN)):
        if slot in left:
            part = _tied(slot, left, ports)
            left -= part
            yield plan.part(part)
    if left:
        yield plan.part(left)


def _tied(slot: str, among: frozenset[str], ports: Mapping[str, frozenset[int]]) -> frozenset[str]:
    """Return a slot and those that its ports lead to, over others too."""
    tied, more = frozenset[str](), frozenset({slot})
    while more - tied:
        tied |= more
        held = frozenset[int]().union(*(ports[name] for name in tied))
        more = frozenset(name for name in among if ports[name] & held)
    return tied
