from __future__ import annotations

from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from hal0.core.batches import batches
from hal0.core.steps import Action, Change, Plan, Step, StepKind

NAMES = "abcdef"


def plan(names: str, draining: str) -> Plan:
    return Plan(tuple(change(name, drains=name in draining) for name in names), generation=3, revision="abc")


def change(name: str, *, drains: bool) -> Change:
    kinds = [*([StepKind.DRAIN] if drains else []), StepKind.STOP, StepKind.WRITE, StepKind.RELOAD, StepKind.START]
    return Change(name, Action.UPDATE, (), tuple(Step(kind, name) for kind in kinds))


def parts(names: str, draining: str, **ports: set[int]) -> list[str]:
    """Return the slots of each batch. A slot whose ports are not told keeps one of its own."""
    own = {name: frozenset({8000 + at}) for at, name in enumerate(NAMES)}
    found = batches(plan(names, draining), own | {name: frozenset(held) for name, held in ports.items()})
    return ["".join(change.slot for change in part.changes) for part in found]


def test_an_empty_plan_has_no_batches() -> None:
    assert parts("", "") == []


def test_slots_that_drain_nothing_are_one_batch_with_one_reload() -> None:
    (batch,) = batches(plan("abc", ""), dict.fromkeys("abc", frozenset()))
    assert batch == plan("abc", "")
    assert [step.kind for step in batch.steps].count(StepKind.RELOAD) == 1


def test_each_slot_that_drains_is_a_batch_of_its_own() -> None:
    assert parts("abcde", "bd") == ["b", "d", "ace"]
    assert parts("ab", "ab") == ["a", "b"]


def test_slots_that_swap_ports_with_one_that_drains_stay_with_it() -> None:
    assert parts("abcd", "b", b={1, 2}, d={2, 1}) == ["bd", "ac"]


def test_ports_that_are_handed_on_in_a_row_keep_their_slots_together() -> None:
    assert parts("abcde", "e", e={1}, b={1, 2}, d={2, 3}, a={4, 5}) == ["bde", "ac"]


def test_slots_that_swap_ports_and_drain_nothing_are_with_the_others() -> None:
    assert parts("abcd", "a", b={1, 2}, c={2, 1}) == ["a", "bcd"]


ports = st.fixed_dictionaries({name: st.frozensets(st.integers(1, 5), max_size=2) for name in NAMES})


@given(st.sets(st.sampled_from(NAMES)), st.sets(st.sampled_from(NAMES)), ports)
def test_each_slot_is_in_one_batch_and_shares_it_only_with_whom_it_must(
    names: set[str], draining: set[str], held: dict[str, frozenset[int]]
) -> None:
    whole = plan("".join(sorted(names)), "".join(draining))
    found = [{change.slot for change in part.changes} for part in batches(whole, held)]
    assert sorted(name for part in found for name in part) == sorted(names)
    assert all(not held[one] & held[other] for a, b in combinations(found, 2) for one in a for other in b)
    for part in found:
        if part & draining:
            assert is_tied(part, held)
    assert sum(not part & draining for part in found) <= 1


def is_tied(part: set[str], held: dict[str, frozenset[int]]) -> bool:
    """Return whether no cut through some slots leaves two sides that share no port."""
    cuts = (set(side) for size in range(1, len(part)) for side in combinations(sorted(part), size))
    return all(any(held[one] & held[other] for one in side for other in part - side) for side in cuts)


def test_a_batch_is_of_the_generation_of_its_plan() -> None:
    assert {
        (part.generation, part.revision) for part in batches(plan("ab", "a"), dict.fromkeys("ab", frozenset()))
    } == {
        (3, "abc"),
    }
