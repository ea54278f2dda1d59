"""Everything a plan is made of, as one value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from hal0.core.backoff import Attempt
from hal0.core.engines import slot_of
from hal0.core.facts import Fact, Known
from hal0.core.observed import Observed, SlotObservation
from hal0.core.override import UP, Aspect, Override, of_aspect
from hal0.core.phase import Phase
from hal0.core.pools import Claim, Pool, pools_of
from hal0.core.replacement import Candidate, Replacement
from hal0.core.schedule import Demand, Verdict, placement
from hal0.core.spec import Desired, SlotSpec


@dataclass(frozen=True)
class World:
    """Everything a plan is made of.

    ``owned`` maps the slots that hal0 remembers to the spec it last applied. ``started`` are those that it last
    started, and has not stopped since: one of them that is down was stopped by others. ``overrides`` are in force.
    ``deletions`` are those that an operator asked to remove by name.

    ``claims`` are what slots claim of ``pools`` as they are declared, ``held`` what engines do as they were last
    applied. ``busy`` engines are in a batch under way, or were and have not been looked at since; ``stopping`` ones are
    only stopped by it; ``pulling`` tells how far a model or image is that an engine waits for; ``phases`` tell how far
    each is. ``stand_ins`` are the specs last applied to stand-ins, by their keys. ``replacing`` tells how engines are
    replaced, by slot.
    """

    desired: Desired
    observed: Observed
    owned: Mapping[str, SlotSpec] = field(default_factory=dict)
    started: frozenset[str] = frozenset()
    attempts: Mapping[str, Attempt] = field(default_factory=dict)
    demand: Mapping[str, Demand] = field(default_factory=dict)
    overrides: tuple[Override, ...] = ()
    now: float = 0.0
    deletions: frozenset[str] = frozenset()
    claims: Mapping[str, Claim] = field(default_factory=dict)
    held: Mapping[str, Claim] = field(default_factory=dict)
    busy: frozenset[str] = frozenset()
    stopping: frozenset[str] = frozenset()
    pulling: Mapping[str, str] = field(default_factory=dict)
    stand_ins: Mapping[str, SlotSpec] = field(default_factory=dict)
    phases: Mapping[str, Phase] = field(default_factory=dict)
    replacing: Mapping[str, Replacement] = field(default_factory=dict)

    @cached_property
    def pools(self) -> Mapping[str, Fact[Pool]]:
        """The memory pools: those that were found, and what the Host manifest says in the place of some."""
        return pools_of(self.observed.pools, self.desired.host)

    @cached_property
    def wants(self) -> Mapping[str, Verdict]:
        """Which slots should be up, and why, before the arbiter has its say."""
        return placement(self.desired, self.demand, self.now, self.overrides)

    @cached_property
    def loaded(self) -> frozenset[str]:
        """The slots that a person asked to be up, whatever their run policy."""
        runs = of_aspect(self.overrides, Aspect.RUN)
        return frozenset(name for name, override in runs.items() if override.value == UP)

    @cached_property
    def restarts(self) -> Mapping[str, Override]:
        """The restarts that were asked for, by slot."""
        return of_aspect(self.overrides, Aspect.RESTART)

    @cached_property
    def on_hold(self) -> Mapping[str, Override]:
        """The slots that are left as they were found when the store was lost."""
        return of_aspect(self.overrides, Aspect.HOLD)

    def applied(self, engine: str) -> SlotSpec | None:
        """Return the spec that was last applied to an engine; None where hal0 remembers none."""
        return self.owned.get(engine) or self.stand_ins.get(engine)

    @property
    def specs(self) -> dict[str, SlotSpec]:
        """The spec that each engine is to have, by its key."""
        own = {name: slot.spec for name, slot in self.desired.slots.items()}
        return own | {found.key: found.stand_in.spec for found in self.replacing.values()}

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """The engines that have to answer a real request before others are replaced by them."""
        return tuple(candidate for found in self.replacing.values() for candidate in found.candidates)

    def lacks_model(self, spec: SlotSpec, seen: SlotObservation) -> bool:
        """Return whether a spec's model is known not to be here, and nothing fetches it."""
        return seen.model == Known(value=False) and self.desired.download(spec) is None

    def lacks_image(self, spec: SlotSpec, seen: SlotObservation) -> bool:
        """Return whether a spec's image is known not to be here, and comes from nowhere."""
        return spec.is_locked_to_id and seen.image == Known(None)

    def serving(self, engine: str) -> int:
        """Return how many requests are being answered by an engine, that its stop should wait for."""
        use = self.demand.get(slot_of(engine))
        return use.at(engine) if use else 0

    def is_wedged(self, slot: str) -> bool:
        """Return whether a slot's engine is known not to answer: its requests hang, and a stop waits for none."""
        return self.observed.slot(slot).wedged(self.serving(slot)) is not None
