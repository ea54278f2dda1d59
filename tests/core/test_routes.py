from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Never

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import asked_models, catalogues, snapshots
from worlds import MODEL, desired

from hal0.core import routes as module
from hal0.core.endpoints import ENDPOINTS, Endpoint
from hal0.core.routes import Decision, Listing, Routes, Rule, routes
from hal0.core.schedule import Verdict
from hal0.core.schema import Device, SlotType, UpstreamApi
from hal0.core.spec import UpstreamSpec
from hal0.core.state import SlotState
from hal0.core.status import SlotStatus, Snapshot

FOUND = desired(f"{MODEL}---\nkind: Slot\nname: chat\nmodel: m\n---\nkind: Upstream\nname: up\nbase_url: http://h/v1\n")
SPEC, UPSTREAM = FOUND.slots["chat"].spec, FOUND.upstreams["up"]
CHAT, MESSAGES, EMBEDDINGS = (ENDPOINTS[f"/v1/{path}"] for path in ("chat/completions", "messages", "embeddings"))
NPU, EMBEDDING = Device.NPU, SlotType.EMBEDDING
FAILED = Listing(error="it answered 500")

Catalogue = Mapping[str, Listing]


def slot(name: str, state: str = "ready", *, barred: bool = False, **changes: Any) -> SlotStatus:
    spec, verdict = replace(SPEC, name=name, **changes), Verdict(up=False, why="", barred=barred)
    return SlotStatus(name, SlotState(state), 0.0, (), spec, spec, name, verdict=verdict)


def replacing(found: SlotStatus, **changes: Any) -> SlotStatus:
    """Return a slot whose engine is not yet what its manifest says: ``changes`` are what it is of."""
    return replace(found, serves=replace(found.spec, **changes))


def upstream(name: str, *models: str, **changes: Any) -> UpstreamSpec:
    return replace(UPSTREAM, **{"name": name, "models": models, "prefix": f"{name}/", **changes})


def table(
    *found: SlotStatus | UpstreamSpec, models: Mapping[str, str] | None = None, catalogue: Catalogue | None = None
) -> Routes:
    slots = {each.name: each for each in found if isinstance(each, SlotStatus)}
    upstreams = {each.name: each for each in found if isinstance(each, UpstreamSpec)}
    return routes(Snapshot(slots, upstreams=upstreams, models=models or {}), catalogue)


def leads_to(decision: Decision) -> tuple[str, ...]:
    """Return where a decision leads: a slot, an upstream and its model, those to ask first, or an error."""
    if target := decision.target:
        return (target.name, target.model) if target.upstream else (target.name,)
    return tuple(spec.name for spec in decision.cold) or (decision.code,)


# Slots and their names.


@pytest.mark.parametrize(
    ("model", "where"),
    [
        ("chat", "chat"),
        ("hal0/chat", "chat"),
        ("gpt", "chat"),
        ("qwen", "chat"),
        ("qwen:latest", "chat"),
        ("embed", "embed"),
        ("bge", "embed"),
        ("Chat", "chat"),
        ("unused", "model.not_loaded"),
        ("nothing", "model.not_found"),
        ("", "model.not_found"),
        ("hal0/gpt", "model.not_found"),
        ("hal0/", "model.not_found"),
    ],
)
def test_a_slot_answers_to_its_name_its_aliases_its_model_and_the_models_aliases(model: str, where: str) -> None:
    models = {"qwen": "qwen", "qwen:latest": "qwen", "bge": "bge", "unused": "unused"}
    found = table(slot("chat", model="qwen", aliases=("gpt",)), slot("embed", "offline", model="bge"), models=models)
    assert leads_to(found.decide(model, CHAT)) == (where,)


@pytest.mark.parametrize("state", ["ready", "offline"])
def test_of_slots_in_one_state_names_win_over_aliases_and_aliases_over_models(state: str) -> None:
    slots = slot("x", state, model="y"), slot("b", state, aliases=("x", "z")), slot("c", state, model="x")
    others = slot("d", state, model="z"), slot("e", state, model="v")
    found = table(*slots, *others, models={"w": "x", "x": "x", "v": "x"})
    assert [leads_to(found.decide(model, CHAT)) for model in "xzwv"] == [("x",), ("b",), ("c",), ("e",)]


def test_a_slot_that_is_up_wins_over_one_that_has_the_better_claim() -> None:
    found = table(slot("x", "offline"), slot("b", model="x"))
    assert leads_to(found.decide("x", CHAT)) == ("b",)
    assert found.decide("x", CHAT).rule is Rule.LOADED


def test_a_slot_whose_engine_is_yet_to_be_replaced_answers_to_both_models_and_asks_for_its_own() -> None:
    behind = replacing(slot("a", model="new", type=EMBEDDING), model="old", type=SlotType.LLM)
    found = table(behind, models={"new": "new", "old": "old", "newer": "new", "older": "old"})
    decisions = [found.decide(name, CHAT) for name in ("a", "old", "older", "new", "newer")]
    assert [decision.rule for decision in decisions] == [*[Rule.LOADED] * 3, *[Rule.BOUND] * 2]
    assert {decision.target.model for decision in decisions if decision.target} == {"old"}
    assert leads_to(found.decide(None, CHAT)) == ("a",)
    assert leads_to(found.decide(None, EMBEDDINGS)) == ("request.no_model",)


@pytest.mark.parametrize(("device", "where"), [(NPU, ("a",)), (Device.CPU, ("model.not_found",))])
def test_a_name_with_a_tag_goes_to_the_slot_whose_engine_is_on_the_npu(device: Device, where: tuple[str, ...]) -> None:
    other = Device.CPU if device is NPU else NPU
    found = table(replacing(slot("a", device=other), device=device))
    assert leads_to(found.decide("x:tag", CHAT)) == where


def test_a_slot_that_has_a_model_wins_over_one_that_is_yet_to_get_it() -> None:
    found = table(replacing(slot("a", model="new"), model="old"), slot("b", model="new"))
    assert leads_to(found.decide("new", CHAT)) == ("b",)


@pytest.mark.parametrize("state", SlotState)
def test_up_is_what_may_be_sent_to_and_all_else_is_bound(state: SlotState) -> None:
    decision = table(slot("x", state.value)).decide("x", CHAT)
    assert decision.rule is (Rule.LOADED if state.is_dispatchable else Rule.BOUND)
    assert leads_to(decision) == ("x",)


@pytest.mark.parametrize("shared", [{"model": "x"}, {"aliases": ("x",)}])
@pytest.mark.parametrize(
    ("first", "second", "winner"),
    [
        (("ready", {}), ("ready", {}), "a"),
        (("error", {}), ("idle", {}), "b"),
        (("error", {}), ("offline", {}), "a"),
        (("offline", {"barred": True}), ("offline", {}), "b"),
        (("ready", {"barred": True}), ("offline", {}), "a"),
    ],
)
def test_of_two_slots_with_one_name_the_one_that_is_up_or_may_be_wins_then_the_first(
    shared: dict[str, Any], first: tuple[str, dict[str, Any]], second: tuple[str, dict[str, Any]], winner: str
) -> None:
    both = (slot(name, state, **shared, **keys) for name, (state, keys) in (("b", second), ("a", first)))
    assert leads_to(table(*both).decide("x", CHAT)) == (winner,)


@pytest.mark.parametrize("claim", [{"aliases": ("hal0/x",)}, {"model": "hal0/x"}, {"model": "m"}])
@pytest.mark.parametrize("endpoint", [CHAT, EMBEDDINGS])
def test_a_slots_own_prefix_leads_to_that_slot_even_where_another_claims_the_name(
    claim: dict[str, Any], endpoint: Endpoint
) -> None:
    others = slot("b", type=EMBEDDING, **claim), upstream("up", "hal0/x", prefix=""), upstream("cold")
    found = table(slot("x", "offline"), *others, models={"hal0/x": "m", "m": "m"})
    assert leads_to(found.decide("hal0/x", endpoint)) == ("x",)


@pytest.mark.parametrize("model", ["hal0/gone", "hal0/a:b", "hal0/"])
def test_a_slots_own_prefix_without_a_slot_of_that_name_leads_nowhere(model: str) -> None:
    others = upstream("up", model, prefix=""), upstream("cold"), slot("n", device=NPU), slot("e", type=EMBEDDING)
    assert {leads_to(table(*others).decide(model, each)) for each in ENDPOINTS.values()} == {("model.not_found",)}


# Upstreams.


@pytest.mark.parametrize(
    ("model", "where"),
    [("up/x", ("up", "x")), ("x", ("up", "x")), ("up/y", ("model.not_found",)), ("y", ("model.not_found",))],
)
@pytest.mark.parametrize("is_listed", [True, False])
def test_an_upstream_has_what_its_manifest_or_its_own_list_names(
    model: str, where: tuple[str, ...], is_listed: bool
) -> None:
    found = table(upstream("up"), catalogue={"up": Listing(("x",))}) if is_listed else table(upstream("up", "x"))
    assert leads_to(found.decide(model, CHAT)) == where


def test_a_manifests_list_of_models_is_all_that_an_upstream_is_used_for() -> None:
    for listing in (Listing(("y",)), FAILED):
        found = table(upstream("up", "x"), catalogue={"up": listing})
        assert leads_to(found.decide("up/y", CHAT)) == ("model.not_found",)


def test_slots_win_over_upstreams_even_while_they_are_down() -> None:
    found = table(slot("a", "offline", aliases=("up/x",)), upstream("up", "x", "a"))
    assert [leads_to(found.decide(model, CHAT)) for model in ("a", "up/x", "x", "up/a")] == [
        ("a",),
        ("a",),
        ("up", "x"),
        ("up", "a"),
    ]


def test_of_two_upstreams_with_one_model_the_first_by_name_has_it_and_the_prefix_chooses() -> None:
    found = table(upstream("b", "x"), upstream("a", "x"))
    assert [leads_to(found.decide(model, CHAT))[0] for model in ("x", "a/x", "b/x")] == ["a", "a", "b"]


def test_an_upstreams_prefix_wins_over_another_whose_model_is_called_so() -> None:
    found = table(upstream("a", "z/x"), upstream("z", "x", api=UpstreamApi.ANTHROPIC))
    assert leads_to(found.decide("z/x", MESSAGES)) == ("z", "x")
    assert leads_to(found.decide("z/x", CHAT)) == ("a", "z/x")


def test_an_upstream_that_failed_gets_what_is_named_for_it_and_what_it_once_listed() -> None:
    found = table(
        upstream("up"), upstream("bare", prefix=""), catalogue={"up": replace(FAILED, models=("x",)), "bare": FAILED}
    )
    assert [leads_to(found.decide(model, CHAT)) for model in ("x", "up/y/z", "y", "up/")] == [
        ("up", "x"),
        ("up", "y/z"),
        ("model.not_found",),
        ("model.not_found",),
    ]


def test_upstreams_that_were_never_asked_are_asked_before_a_request_goes_by_its_path() -> None:
    found = table(slot("e", type=EMBEDDING), upstream("b"), upstream("a"), upstream("told", "x"))
    assert leads_to(found.decide("y", EMBEDDINGS)) == ("a", "b")
    assert leads_to(found.decide("x", EMBEDDINGS)) == ("told", "x")
    asked = table(slot("e", type=EMBEDDING), upstream("a"), catalogue={"a": Listing()})
    assert leads_to(asked.decide("y", EMBEDDINGS)) == ("e",)


def test_an_upstream_of_anthropics_kind_is_used_for_anthropics_paths_only() -> None:
    theirs = {"api": UpstreamApi.ANTHROPIC}
    found = table(
        upstream("a", "x", **theirs), upstream("b", **theirs), upstream("c", **theirs), catalogue={"b": FAILED}
    )
    for model, there in (("x", ("a", "x")), ("b/y", ("b", "y")), ("y", ("c",))):
        assert leads_to(found.decide(model, MESSAGES)) == there
        assert leads_to(found.decide(model, CHAT)) == ("model.not_found",)


# Paths, tags, and no name at all.

TYPED = [(path, each.type) for path, each in ENDPOINTS.items() if each.type is not SlotType.LLM]


def test_each_type_of_slot_but_the_llm_takes_any_name_on_its_own_paths() -> None:
    assert {kind for _, kind in TYPED} == set(SlotType) - {SlotType.LLM}
    assert all(each.takes_any is (each.type is not SlotType.LLM) for each in ENDPOINTS.values())


@pytest.mark.parametrize(("path", "kind"), TYPED)
@pytest.mark.parametrize("model", ["whisper-1", "x:tag", None])
def test_a_name_that_nobody_has_goes_by_its_path_to_the_slot_of_that_type(
    path: str, kind: SlotType, model: str | None
) -> None:
    others = [slot(f"s-{each}", type=each, device=NPU) for each in SlotType if each is not kind]
    decision = table(*others, slot("right", "offline", type=kind)).decide(model, ENDPOINTS[path])
    assert (decision.rule, *leads_to(decision)) == (Rule.PATH if model else Rule.DEFAULT, "right")
    nowhere = table(*others).decide(model, ENDPOINTS[path])
    assert leads_to(nowhere) == ("model.not_found" if model else "request.no_model",)


def test_a_slot_that_may_not_run_is_not_chosen_unless_it_is_named_or_up() -> None:
    down, up = (table(slot("e", state, type=EMBEDDING, barred=True)) for state in ("offline", "ready"))
    assert [leads_to(down.decide(model, EMBEDDINGS)) for model in ("y", None)] == [
        ("model.not_found",),
        ("request.no_model",),
    ]
    assert leads_to(down.decide("e", EMBEDDINGS)) == ("e",)
    assert [leads_to(up.decide(model, EMBEDDINGS)) for model in ("y", None)] == [("e",), ("e",)]


def test_a_model_that_is_declared_but_held_by_no_slot_is_not_loaded_whatever_the_path() -> None:
    found = table(slot("e", type=EMBEDDING), slot("n", device=NPU), models={"x:1": "x", "x": "x", "e": "e"})
    for endpoint in (CHAT, EMBEDDINGS):
        assert [found.decide(model, endpoint).code for model in ("x", "x:1")] == ["model.not_loaded"] * 2
    assert "model x is known" in found.decide("x:1", CHAT).reason


def test_a_name_with_a_tag_goes_to_the_npu_if_it_talks() -> None:
    found = table(slot("chat"), slot("n", "offline", device=NPU))
    assert (found.decide("qwen3:4b", CHAT).rule, *leads_to(found.decide("qwen3:4b", CHAT))) == (Rule.TAG, "n")
    assert leads_to(found.decide("qwen3", CHAT)) == ("model.not_found",)
    other = table(slot("chat"), slot("n", device=NPU, type=EMBEDDING))
    assert leads_to(other.decide("qwen3:4b", CHAT)) == ("model.not_found",)


@pytest.mark.parametrize("model", ["Chat", "CHAT", "hal0/Chat"])
def test_a_slots_name_in_another_case_is_that_slots(model: str) -> None:
    decision = table(slot("chat", "offline")).decide(model, CHAT)
    assert (decision.rule, *leads_to(decision)) == (Rule.NAME, "chat")


def test_a_request_without_a_model_goes_to_the_llm_and_is_an_error_without_one() -> None:
    chat = slot("chat", "offline"), slot("b", "offline"), slot("a", "offline", barred=True), upstream("up")
    assert leads_to(table(*chat).decide(None, CHAT)) == ("b",)
    assert leads_to(table(*chat, slot("z")).decide(None, CHAT)) == ("z",)
    assert leads_to(table(upstream("up")).decide(None, CHAT)) == ("request.no_model",)


# Whatever the world is like: each rule by itself, in its own words.


@dataclass(frozen=True)
class Ask:
    snapshot: Snapshot
    catalogue: Catalogue
    model: str
    endpoint: Endpoint

    @property
    def decision(self) -> Decision:
        return routes(self.snapshot, self.catalogue).decide(self.model, self.endpoint)

    @property
    def slots(self) -> list[SlotStatus]:
        """Return all slots, the best first."""
        return sorted(self.snapshot.slots.values(), key=lambda each: (not is_up(each), not may_run(each), each.name))

    @property
    def is_own(self) -> bool:
        return self.model.startswith("hal0/")

    @property
    def upstreams(self) -> list[UpstreamSpec]:
        """Return those that may be asked for this at all."""
        is_theirs = self.endpoint.path.startswith("/v1/messages")
        found = [spec for spec in self.snapshot.upstreams.values() if spec.api is UpstreamApi.OPENAI or is_theirs]
        return sorted(found, key=lambda spec: spec.name) if not self.is_own else []


Answer = tuple[str, ...] | None


def is_up(status: SlotStatus) -> bool:
    return status.state in {SlotState.READY, SlotState.SERVING, SlotState.IDLE}


def may_run(status: SlotStatus) -> bool:
    return is_up(status) or not status.verdict.barred


def first(found: list[SlotStatus]) -> Answer:
    return (found[0].name,) if found else None


def named(ask: Ask, slots: list[SlotStatus], model: str) -> Answer:
    if model.removeprefix("hal0/") in ask.snapshot.slots and model.startswith("hal0/"):
        return first([each for each in slots if f"hal0/{each.name}" == model])
    claims = [
        [each for each in slots if each.name == model],
        [each for each in slots if model in each.spec.aliases],
        [each for each in slots if each.spec.model == model],
        [each for each in slots if each.spec.model == ask.snapshot.models.get(model)],
    ]
    return next((first(claim) for claim in claims if claim), None)


def loaded(ask: Ask) -> Answer:
    return named(ask, [each for each in ask.slots if is_up(each)], ask.model)


def bound(ask: Ask) -> Answer:
    return named(ask, ask.slots, ask.model)


def listed(ask: Ask) -> Answer:
    has = {spec.name: spec.models or ask.catalogue.get(spec.name, Listing()).models for spec in ask.upstreams}
    prefixed = [
        (spec.name, model) for spec in ask.upstreams for model in has[spec.name] if spec.prefix + model == ask.model
    ]
    bare = [(spec.name, ask.model) for spec in ask.upstreams if ask.model in has[spec.name]]
    return next(iter([*prefixed, *bare]), None)


def unlisted(ask: Ask) -> Answer:
    for spec in ask.upstreams:
        failed = not spec.models and ask.catalogue.get(spec.name, Listing()).error
        if failed and spec.prefix and ask.model.startswith(spec.prefix) and ask.model != spec.prefix:
            return spec.name, ask.model[len(spec.prefix) :]
    return None


def cold(ask: Ask) -> Answer:
    return tuple(spec.name for spec in ask.upstreams if not spec.models and spec.name not in ask.catalogue) or None


def known(ask: Ask) -> Answer:
    return ("model.not_loaded",) if ask.model in ask.snapshot.models else None


def by_path(ask: Ask) -> Answer:
    if ask.is_own or ask.endpoint.type is SlotType.LLM:
        return None
    return first([each for each in ask.slots if each.spec.type is ask.endpoint.type and may_run(each)])


def by_tag(ask: Ask) -> Answer:
    if ask.is_own or ask.endpoint.type is not SlotType.LLM or ":" not in ask.model:
        return None
    is_npu = [each.spec.device is NPU and each.spec.type is SlotType.LLM and may_run(each) for each in ask.slots]
    return first([each for each, is_it in zip(ask.slots, is_npu, strict=True) if is_it])


def by_case(ask: Ask) -> Answer:
    return named(ask, ask.slots, ask.model.lower())


ORDER = [
    (Rule.LOADED, loaded),
    (Rule.BOUND, bound),
    (Rule.UPSTREAM, listed),
    (Rule.UPSTREAM, unlisted),
    (Rule.PREFETCH, cold),
    (Rule.BOUND, known),
    (Rule.PATH, by_path),
    (Rule.TAG, by_tag),
    (Rule.NAME, by_case),
]
NOWHERE = (Rule.NONE, ("model.not_found",))
endpoints = st.sampled_from([CHAT, MESSAGES, EMBEDDINGS, EMBEDDINGS]) | st.sampled_from(list(ENDPOINTS.values()))


@st.composite
def asks(draw: st.DrawFn) -> Ask:
    snapshot, catalogue = draw(snapshots()), draw(catalogues())
    return Ask(snapshot, catalogue, draw(asked_models(snapshot, catalogue)), draw(endpoints))


@settings(max_examples=400, deadline=None)
@given(asks())
def test_the_first_rule_that_matches_decides_and_no_other(ask: Ask) -> None:
    matching = ((rule, answer) for rule, oracle in ORDER if (answer := oracle(ask)))
    assert (ask.decision.rule, leads_to(ask.decision)) == next(matching, NOWHERE)


@settings(max_examples=80, deadline=None)
@given(asks())
def test_every_request_has_one_target_or_upstreams_to_ask_or_an_error_and_a_reason(ask: Ask) -> None:
    decision = ask.decision
    assert [bool(decision.target), bool(decision.cold), bool(decision.code)].count(True) == 1
    assert decision.reason
    assert decision.target is None or (decision.target.slot is None) != (decision.target.upstream is None)


@settings(max_examples=60, deadline=None)
@given(snapshots(), catalogues(), endpoints)
def test_a_request_without_a_model_goes_to_the_best_slot_of_its_paths_type(
    snapshot: Snapshot, catalogue: Catalogue, endpoint: Endpoint
) -> None:
    decision = routes(snapshot, catalogue).decide(None, endpoint)
    slots = Ask(snapshot, catalogue, "", endpoint).slots
    best = first([each for each in slots if each.spec.type is endpoint.type and may_run(each)])
    assert (decision.rule, leads_to(decision)) == (Rule.DEFAULT, best or ("request.no_model",))


def reverse(found: Mapping[str, Any]) -> dict[str, Any]:
    return dict(reversed(list(found.items())))


@settings(max_examples=80, deadline=None)
@given(asks())
def test_a_decision_is_the_same_again_and_in_whatever_order_the_world_is_told(ask: Ask) -> None:
    other = replace(
        ask.snapshot,
        slots=reverse(ask.snapshot.slots),
        upstreams=reverse(ask.snapshot.upstreams),
        models=reverse(ask.snapshot.models),
    )
    found, again = routes(ask.snapshot, ask.catalogue), routes(other, reverse(ask.catalogue))
    assert again == found
    for model in (ask.model, None):
        decisions = [each.decide(model, ask.endpoint) for each in (found, found, again)]
        assert decisions[0] == decisions[1] == decisions[2]


@settings(max_examples=80, deadline=None)
@given(asks())
def test_no_upstream_of_anthropics_kind_is_ever_asked_on_a_path_of_openais(ask: Ask) -> None:
    target = ask.decision.target
    asked = [*ask.decision.cold, *([target.upstream] if target and target.upstream else [])]
    assert ask.endpoint.api is UpstreamApi.ANTHROPIC or all(spec.api is UpstreamApi.OPENAI for spec in asked)


@settings(max_examples=60, deadline=None)
@given(snapshots(), catalogues(), endpoints, st.sampled_from(["a", "b", "c", "gone"]))
def test_a_slots_own_prefix_leads_to_that_slot_and_no_other(
    snapshot: Snapshot, catalogue: Catalogue, endpoint: Endpoint, name: str
) -> None:
    model = f"hal0/{name}"
    decision = routes(snapshot, catalogue).decide(model, endpoint)
    if name in snapshot.slots:
        assert decision.target
        assert decision.target.slot is snapshot.slots[name]
    elif decision.target:  # there is no such slot, and one is called so to the letter
        assert decision.target.slot
        spec = decision.target.slot.spec
        assert model in spec.aliases or spec.model in {model, snapshot.models.get(model)}
    assert not decision.cold


# What a look-up costs.


class Counted(dict[Any, Any]):
    """A table that counts what is looked up in it, and is never walked through."""

    def __init__(self, found: Mapping[Any, Any], looks: list[object]) -> None:
        super().__init__(found)
        self.looks = looks

    def get(self, key: object, default: Any = None) -> Any:
        self.looks.append(key)
        return super().get(key, default)

    def __getitem__(self, key: object) -> Any:
        self.looks.append(key)
        return super().__getitem__(key)

    def __contains__(self, key: object) -> bool:
        self.looks.append(key)
        return super().__contains__(key)

    def __iter__(self) -> Iterator[Any]:
        return self._walked()

    def keys(self) -> Never:
        self._walked()

    def values(self) -> Never:
        self._walked()

    def items(self) -> Never:
        self._walked()

    def _walked(self) -> Never:
        raise AssertionError("a look-up walked through a table")


def looks(slots: int, model: str | None, endpoint: Endpoint) -> tuple[str, list[object]]:
    """Return the rule that decides in a world with so many slots, and all that was looked up for it."""
    many = [slot(f"s{at}", aliases=(f"alias{at}",), model=f"m{at}") for at in range(slots)]
    own = [slot("chat"), slot("down", "offline"), slot("n", device=NPU), slot("e", type=EMBEDDING)]
    found = table(
        *many, *own, upstream("up", "x"), models={f"m{at}": f"m{at}" for at in range(slots)} | {"held": "held"}
    )
    log: list[object] = []
    counted = replace(
        found,
        loaded=Counted(found.loaded, log),
        bound=Counted(found.bound, log),
        listed=Counted(found.listed, log),
        typed=Counted(found.typed, log),
        models=Counted(found.models, log),
        _decided={},
    )
    return counted.decide(model, endpoint).rule, log


@pytest.mark.parametrize(
    ("model", "endpoint", "rule"),
    [
        ("chat", CHAT, "loaded"),
        ("down", CHAT, "bound"),
        ("up/x", CHAT, "upstream"),
        ("held", CHAT, "bound"),
        ("y", EMBEDDINGS, "path"),
        ("y:tag", CHAT, "tag"),
        ("Chat", CHAT, "name"),
        ("y", CHAT, "none"),
        (None, CHAT, "default"),
    ],
)
def test_a_look_up_costs_the_same_for_any_number_of_slots(model: str | None, endpoint: Endpoint, rule: str) -> None:
    few, many = looks(0, model, endpoint), looks(300, model, endpoint)
    assert few == many
    assert few[0] == rule


def test_a_decision_is_remembered_and_never_more_of_them_than_a_table_may_hold() -> None:
    found = table(slot("chat"))
    assert found.decide("chat", CHAT) is found.decide("chat", CHAT)
    for at in range(module._MOST_DECIDED * 2):
        assert found.decide(f"made-up-{at}", CHAT).rule is Rule.NONE
    assert len(found._decided) == module._MOST_DECIDED
    assert found.decide("chat", MESSAGES).rule is Rule.LOADED


def test_a_name_that_is_too_long_to_be_one_is_decided_and_not_remembered() -> None:
    found = table(slot("e", type=EMBEDDING))
    decision = found.decide("x" * 100_000, EMBEDDINGS)
    assert leads_to(decision) == ("e",)
    assert len(decision.reason) < 500
    assert not found._decided
