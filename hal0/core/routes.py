"""Where a /v1 request goes and why: an immutable table built from each Snapshot, and one function that reads it.

The order is fixed: a loaded slot that has the model, a slot that the manifests bind to it, an upstream that lists it,
upstreams whose lists are not known yet, and at last what the path itself says. A look-up costs the same for any
number of slots.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from hal0.core.endpoints import Endpoint
from hal0.core.schema import Device, SlotType, UpstreamApi
from hal0.core.spec import OWN_PREFIX, UpstreamSpec
from hal0.core.status import SlotStatus, Snapshot

_MOST_DECIDED = 1024
_LONGEST_DECIDED = 256
"""Decisions that a table remembers, and their longest name: clients make names up."""


class Rule(StrEnum):
    """The rule that decided. docs/api.md tells what each means."""

    LOADED = "loaded"
    BOUND = "bound"
    UPSTREAM = "upstream"
    PREFETCH = "prefetch"
    PATH = "path"
    TAG = "tag"
    NAME = "name"
    DEFAULT = "default"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Listing:
    """What an upstream said that it has. ``error`` is not empty where it could not be asked: then it may have more."""

    models: tuple[str, ...] = ()
    error: str = ""
    address: str = ""
    """The base address that was asked: what another one had is not what this one has."""


@dataclass(frozen=True, slots=True)
class Target:
    """A slot, or a model of an upstream. ``model`` is the name that the target itself knows it by."""

    model: str
    slot: SlotStatus | None = None
    upstream: UpstreamSpec | None = None

    @property
    def name(self) -> str:
        """The slot's or the upstream's name."""
        return self.slot.name if self.slot else self.upstream.name if self.upstream else ""

    @property
    def fallback(self) -> tuple[str, ...]:
        """The names to try in turn where this one can't answer."""
        if self.slot:
            return self.slot.spec.serving.fallback
        return self.upstream.fallback if self.upstream else ()


@dataclass(frozen=True, slots=True)
class Decision:
    """Where a request goes and why. Without a target, ``cold`` are upstreams to ask first, or it goes nowhere."""

    rule: Rule
    reason: str
    target: Target | None = None
    cold: tuple[UpstreamSpec, ...] = ()

    @property
    def code(self) -> str:
        """The error that a client gets; empty where there is a target, or one may yet be found."""
        if self.target or self.cold:
            return ""
        return {Rule.BOUND: "model.not_loaded", Rule.DEFAULT: "request.no_model"}.get(self.rule, "model.not_found")


@dataclass(frozen=True, slots=True)
class Routes:
    """The table: names to slots that are up and to all slots, names to upstreams, types to slots, known models."""

    loaded: Mapping[str, SlotStatus] = field(default_factory=dict)
    bound: Mapping[str, SlotStatus] = field(default_factory=dict)
    listed: Mapping[str, tuple[Target, ...]] = field(default_factory=dict)
    typed: Mapping[SlotType, SlotStatus] = field(default_factory=dict)
    npu: SlotStatus | None = None
    models: Mapping[str, str] = field(default_factory=dict)
    prefixes: tuple[UpstreamSpec, ...] = ()
    cold: tuple[UpstreamSpec, ...] = ()
    _decided: dict[tuple[str | None, str], Decision] = field(default_factory=dict, compare=False, repr=False)

    def decide(self, model: str | None, endpoint: Endpoint) -> Decision:
        """Return where a request goes. Total: every model name and every endpoint has an answer."""
        asked = (model, endpoint.path)
        decision = self._decided.get(asked)
        if decision is None:
            decision = self._decide(model, endpoint)
            if len(self._decided) < _MOST_DECIDED and len(model or "") <= _LONGEST_DECIDED:
                self._decided[asked] = decision
        return decision

    def _decide(self, model: str | None, endpoint: Endpoint) -> Decision:
        if model is None:
            return self._by_default(endpoint)
        if slot := self.loaded.get(model):
            return Decision(Rule.LOADED, f"slot {slot.name} has it and is up", _to(slot))
        if slot := self.bound.get(model):
            return Decision(Rule.BOUND, f"the manifests give it to slot {slot.name}", _to(slot))
        is_own = model.startswith(OWN_PREFIX)  # a slot of that name or nobody
        if not is_own and (found := self._elsewhere(model, endpoint)):
            return found
        if model in self.models:
            return Decision(Rule.BOUND, f"model {self.models[model]} is known, but no slot has it")
        if not is_own and (found := self._by_path(model, endpoint)):
            return found
        if slot := self.bound.get(model.lower()):
            return Decision(Rule.NAME, f"but for its case it names slot {slot.name}", _to(slot))
        return Decision(Rule.NONE, "no slot and no upstream has it")

    def _elsewhere(self, model: str, endpoint: Endpoint) -> Decision | None:
        for target in self.listed.get(model, ()):
            if target.upstream and _speaks(target.upstream, endpoint):
                return Decision(Rule.UPSTREAM, f"upstream {target.name} lists it", target)
        for upstream in self.prefixes:
            if model.startswith(upstream.prefix) and model != upstream.prefix and _speaks(upstream, endpoint):
                target = Target(model.removeprefix(upstream.prefix), upstream=upstream)
                return Decision(Rule.UPSTREAM, f"named for upstream {upstream.name}, whose list is not known", target)
        if cold := tuple(upstream for upstream in self.cold if _speaks(upstream, endpoint)):
            return Decision(Rule.PREFETCH, "upstreams have not told yet what they have", cold=cold)
        return None

    def _by_path(self, model: str, endpoint: Endpoint) -> Decision | None:
        slot = self.typed.get(endpoint.type) if endpoint.takes_any else None
        if slot:
            why = f"{endpoint.path} goes to the {endpoint.type} slot, and nobody is called {model[:200]!r}"
            return Decision(Rule.PATH, why, _to(slot))
        if ":" in model and self.npu and endpoint.type is SlotType.LLM:
            return Decision(Rule.TAG, "a name:tag goes to the NPU's slot", _to(self.npu))
        return None

    def _by_default(self, endpoint: Endpoint) -> Decision:
        if slot := self.typed.get(endpoint.type):
            why = f"the request names no model, and slot {slot.name} is the {endpoint.type} slot"
            return Decision(Rule.DEFAULT, why, _to(slot))
        return Decision(Rule.DEFAULT, f"the request names no model, and there is no slot of type {endpoint.type}")


def routes(snapshot: Snapshot, catalogue: Mapping[str, Listing] | None = None) -> Routes:
    """Return the route table of a snapshot. ``catalogue`` holds what each upstream that was asked has."""
    catalogue = _current(snapshot, catalogue or {})
    statuses = sorted(snapshot.slots.values(), key=_preference)
    upstreams = sorted(snapshot.upstreams.values(), key=lambda upstream: upstream.name)
    asked = [upstream for upstream in upstreams if not upstream.models]
    unknown = [upstream for upstream in asked if upstream.name in catalogue and catalogue[upstream.name].error]
    return Routes(
        loaded=_named(snapshot, [slot for slot in statuses if slot.state.is_dispatchable], is_to_come=False),
        bound=_named(snapshot, statuses, is_to_come=True),
        listed=_listed(upstreams, catalogue),
        typed={slot.serves.type: slot for slot in reversed(statuses) if slot.may_answer},
        npu=next((slot for slot in statuses if _is_npu_llm(slot) and slot.may_answer), None),
        models=snapshot.models,
        prefixes=tuple(upstream for upstream in unknown if upstream.prefix),
        cold=tuple(upstream for upstream in asked if upstream.name not in catalogue),
    )


def _to(slot: SlotStatus) -> Target:
    return Target(slot.serves.model, slot)


def _current(snapshot: Snapshot, catalogue: Mapping[str, Listing]) -> dict[str, Listing]:
    addresses = {name: upstream.base_url for name, upstream in snapshot.upstreams.items()}
    return {name: listing for name, listing in catalogue.items() if listing.address in {"", addresses.get(name)}}


def _preference(slot: SlotStatus) -> tuple[bool, bool, str]:
    """Of two slots with one name or type, the one that is up comes first, then one that may run, then by name."""
    return (not slot.state.is_dispatchable, not slot.may_answer, slot.name)


def _is_npu_llm(slot: SlotStatus) -> bool:
    return slot.serves.device is Device.NPU and slot.serves.type is SlotType.LLM


def _named(snapshot: Snapshot, statuses: Sequence[SlotStatus], *, is_to_come: bool) -> dict[str, SlotStatus]:
    """Return slots by every name that they answer to: slot names win over aliases, aliases over model ids.

    ``is_to_come``: also by a model that the engine is yet to be replaced for.
    """
    table: dict[str, SlotStatus] = {}
    for slot in statuses:
        for spec in (slot.serves, slot.spec) if is_to_come else (slot.serves,):
            table.setdefault(spec.model, slot)
    for alias, model in snapshot.models.items():
        if model in table:
            table.setdefault(alias, table[model])
    for slot in reversed(statuses):
        table.update(dict.fromkeys(slot.spec.aliases, slot))
    for name in snapshot.slots:
        table.pop(OWN_PREFIX + name, None)  # that slot and no other, even while it is down
    for slot in statuses:
        table.update({slot.name: slot, OWN_PREFIX + slot.name: slot})
    return table


def _listed(upstreams: Iterable[UpstreamSpec], catalogue: Mapping[str, Listing]) -> dict[str, tuple[Target, ...]]:
    """Return the models of upstreams by ``upstream/model``, which comes first, and by bare id."""
    table: dict[str, list[Target]] = defaultdict(list)
    models = [
        (upstream, model)
        for upstream in upstreams
        for model in upstream.models or catalogue.get(upstream.name, Listing()).models
    ]
    for upstream, model in models:
        table[upstream.prefix + model].append(Target(model, upstream=upstream))
    for upstream, model in models:
        if upstream.prefix:
            table[model].append(Target(model, upstream=upstream))
    return {name: tuple(targets) for name, targets in table.items()}


def _speaks(upstream: UpstreamSpec, endpoint: Endpoint) -> bool:
    """Return whether an upstream has an endpoint: Anthropic's has its own only, those of OpenAI's kind may have all."""
    return upstream.api is UpstreamApi.OPENAI or endpoint.api is UpstreamApi.ANTHROPIC
