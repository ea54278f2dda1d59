from __future__ import annotations

from itertools import pairwise, product

import pytest

from hal0.core.state import EDGES, SlotState, way

PAIRS = list(product(SlotState, SlotState))


def steps_between() -> dict[tuple[SlotState, SlotState], int]:
    """Return the least number of edges between any two states (Floyd and Warshall)."""
    far = len(SlotState)
    least = {(one, other): 0 if one is other else 1 if other in EDGES[one] else far for one, other in PAIRS}
    for middle, one, other in product(SlotState, SlotState, SlotState):
        least[one, other] = min(least[one, other], least[one, middle] + least[middle, other])
    return least


def test_every_state_has_its_edges_and_none_leads_to_itself() -> None:
    assert set(EDGES) == set(SlotState)
    assert all(state not in edges for state, edges in EDGES.items())


@pytest.mark.parametrize(("start", "end"), PAIRS)
def test_there_is_a_legal_way_between_any_two_states_and_it_is_the_shortest(start: SlotState, end: SlotState) -> None:
    path = (start, *way(start, end))
    assert path[-1] is end
    assert all(other in EDGES[one] for one, other in pairwise(path))
    assert len(path) - 1 == steps_between()[start, end]


@pytest.mark.parametrize(
    ("start", "end", "passed"),
    [
        ("offline", "ready", "starting warming ready"),
        ("pulling", "ready", "starting warming ready"),
        ("ready", "ready", ""),
        ("serving", "idle", "ready idle"),
        ("idle", "ready", "serving ready"),
        ("idle", "offline", "unloading offline"),
        ("ready", "starting", "error starting"),
        ("error", "ready", "starting warming ready"),
        ("warming", "offline", "unloading offline"),
    ],
)
def test_the_way_is_the_life_that_a_late_look_missed(start: str, end: str, passed: str) -> None:
    assert " ".join(way(SlotState(start), SlotState(end))) == passed


def test_only_a_loaded_model_is_dispatched_to() -> None:
    assert {state.value for state in SlotState if state.is_dispatchable} == {"ready", "serving", "idle"}


def test_any_state_may_become_an_error() -> None:
    assert [state.value for state, edges in EDGES.items() if SlotState.ERROR not in edges] == ["error"]
