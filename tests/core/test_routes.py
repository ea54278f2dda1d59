from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds import MODEL, desired

from hal0.core.routes import routes
from hal0.core.state import SlotState
from hal0.core.status import SlotStatus, Snapshot

SPEC = desired(f"{MODEL}---\nkind: Slot\nname: chat\nmodel: m\n").slots["chat"].spec
WORDS = ["a", "b", "c", "d", "hal0/a", "nobody"]


def slot(name: str, state: str = "ready", *, model: str = "m", aliases: tuple[str, ...] = ()) -> SlotStatus:
    return SlotStatus(name, SlotState(state), 0.0, (), replace(SPEC, name=name, model=model, aliases=aliases))


def found(model: str, *slots: SlotStatus, models: dict[str, str] | None = None) -> str | None:
    snapshot = Snapshot({status.name: status for status in slots}, models=models or {})
    status = routes(snapshot).find(model)
    return status.name if status else None


@pytest.mark.parametrize(
    ("model", "leads_to"),
    [
        ("chat", "chat"),
        ("hal0/chat", "chat"),
        ("gpt", "chat"),
        ("qwen", "chat"),
        ("qwen:latest", "chat"),
        ("embed", "embed"),
        ("bge", "embed"),
        ("unused", None),
        ("nothing", None),
        ("", None),
        ("Chat", None),
        ("hal0/gpt", None),
    ],
)
def test_a_slot_answers_to_its_name_its_aliases_its_model_and_the_models_aliases(
    model: str, leads_to: str | None
) -> None:
    models = {"qwen": "qwen", "qwen:latest": "qwen", "bge": "bge", "unused": "unused"}
    slots = [slot("chat", model="qwen", aliases=("gpt",)), slot("embed", model="bge")]
    assert found(model, *slots, models=models) == leads_to


def test_a_slots_name_wins_over_anothers_alias_and_model() -> None:
    assert found("a", slot("a", "offline"), slot("b", aliases=("a",)), slot("c", model="a")) == "a"


def test_an_alias_wins_over_a_model() -> None:
    assert found("x", slot("a", model="x"), slot("b", "offline", aliases=("x",))) == "b"


def test_a_models_name_wins_over_another_models_alias() -> None:
    assert found("x", slot("a", model="y"), slot("b", model="x"), models={"x": "y", "y": "y"}) == "b"


@pytest.mark.parametrize("shared", [{"model": "x"}, {"aliases": ("x",)}])
def test_of_two_slots_with_one_name_a_dispatchable_one_wins_then_the_first(shared: dict[str, object]) -> None:
    def both(first: str, second: str) -> str | None:
        return found("x", slot("a", first, **shared), slot("b", second, **shared))  # type: ignore[arg-type]

    assert [both("ready", "ready"), both("error", "idle"), both("error", "offline")] == ["a", "b", "a"]


statuses = st.builds(
    slot,
    st.sampled_from(["a", "b", "c"]),
    st.sampled_from([state.value for state in SlotState]),
    model=st.sampled_from(WORDS),
    aliases=st.lists(st.sampled_from(WORDS), max_size=2).map(tuple),
)
snapshots = st.builds(
    lambda slots, aliases: Snapshot({status.name: status for status in slots}, models={w: w for w in "abcd"} | aliases),
    st.lists(statuses, max_size=3, unique_by=lambda status: status.name),
    st.dictionaries(st.sampled_from(["hal0/a", "nobody"]), st.sampled_from(["a", "b", "c", "d"])),
)


def expected(snapshot: Snapshot, word: str) -> str | None:
    """Return the slot that answers, by the rules one after another."""
    slots = sorted(snapshot.slots.values(), key=lambda status: (not status.state.is_dispatchable, status.name))
    rules = [
        [status for status in slots if word in {status.name, f"hal0/{status.name}"}],
        [status for status in slots if word in status.spec.aliases],
        [status for status in slots if word == status.spec.model],
        [status for status in slots if snapshot.models.get(word) == status.spec.model],
    ]
    return next((rule[0].name for rule in rules if rule), None)


@settings(max_examples=300, deadline=None)
@given(snapshots, st.sampled_from(WORDS))
def test_every_name_leads_where_the_rules_say(snapshot: Snapshot, word: str) -> None:
    status = routes(snapshot).find(word)
    assert (status.name if status else None) == expected(snapshot, word)


@settings(deadline=None)
@given(snapshots)
def test_the_table_does_not_depend_on_the_order_of_slots_and_models(snapshot: Snapshot) -> None:
    slots, models = list(snapshot.slots.items()), list(snapshot.models.items())
    again = replace(snapshot, slots=dict(reversed(slots)), models=dict(reversed(models)))
    assert routes(again) == routes(snapshot)


@settings(deadline=None)
@given(snapshots, st.text(max_size=5))
def test_any_word_leads_to_a_slot_or_to_none(snapshot: Snapshot, word: str) -> None:
    status = routes(snapshot).find(word)
    assert status is None or status is snapshot.slots[status.name]
