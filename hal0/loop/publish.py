"""From a plan and what was observed to the Snapshot, and the transitions on the way."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from hal0.core.locked import stale
from hal0.core.pools import pool_of
from hal0.core.replace import engine_signs
from hal0.core.replaced import failure, progress, serving
from hal0.core.schedule import UNDECLARED
from hal0.core.spec import DesiredSlot
from hal0.core.state import SlotState, way
from hal0.core.status import SlotStatus, Snapshot, told
from hal0.core.steps import Plan
from hal0.core.world import World
from hal0.host.ledger import Transition
from hal0.host.ports import Clock
from hal0.host.store import Store
from hal0.loop.desire import Source
from hal0.loop.lastwords import LastWords
from hal0.loop.loads import Loads
from hal0.loop.news import Feed, LoadNews, StateNews

_log = logging.getLogger(__name__)
_IN_USE = frozenset({SlotState.READY, SlotState.SERVING})


@dataclass
class Publisher:
    """Holds the current Snapshot and replaces it after each pass."""

    source: Source
    store: Store
    clock: Clock
    feed: Feed
    loads: Loads
    snapshot: Snapshot = field(default_factory=Snapshot)

    def publish(self, world: World, current: Plan, last_words: LastWords) -> Snapshot:
        """Derive every slot's status, record how states moved, and put the new Snapshot in place."""
        before = self.snapshot.slots
        slots = self._statuses(world, current, last_words)
        self.snapshot = Snapshot(
            slots=slots,
            plan=current,
            problems=world.desired.problems,
            models=world.desired.models,
            upstreams=world.desired.upstreams,
            phases=world.phases,
            host=world.desired.host,
            pools=current.placement.pools,
            generation=world.desired.generation,
            revision=world.desired.revision,
            runtime=self.source.facts.runtime,
            root=str(self.source.root.path),
            stale=tuple(map(str, stale(world.desired, images=self.source.facts.runtime == "systemd"))),
            at=world.now,
            wall=self.clock.wall(),
        )
        self._tell(before, slots)
        return self.snapshot

    def _statuses(self, world: World, current: Plan, last_words: LastWords) -> dict[str, SlotStatus]:
        changes, verdicts = {change.slot: change for change in current.changes}, current.placement.verdicts
        statuses = {}
        for name, slot in sorted(self._known(world).items()):
            signs = replace(
                engine_signs(world, name),
                change=changes.get(name),
                verdict=verdicts.get(name, UNDECLARED),
                overrides=tuple(found for found in current.overrides if found.override.slot == name),
                last_lines=last_words.of(name),
                replacing=progress(world, name),
                no_replacement=failure(world, current, name),
                trial=self.store.trials.open.get(name),
                pool=pool_of(slot.spec, world.pools),
                claim=world.claims.get(name),
            )
            statuses[name] = told(slot, serving(world, slot), world.observed.slot(name), signs)
        return statuses

    def _known(self, world: World) -> dict[str, DesiredSlot]:
        """Return every slot to report: the declared ones, and those that hal0 still owns."""
        orphans = {
            name: self.source.rendered(spec, world.desired)
            for name, spec in world.owned.items()
            if name not in world.desired.slots
        }
        return {**orphans, **world.desired.slots}

    def _tell(self, before: Mapping[str, SlotStatus], after: Mapping[str, SlotStatus]) -> None:
        """Record and announce each state on the way from what was to what is."""
        moved: list[Transition] = []
        ends = {name: (slot.state, slot.message) for name, slot in after.items()}
        ends |= {name: (SlotState.OFFLINE, "removed") for name in before if name not in after}
        for name, (end, message) in ends.items():
            state = before[name].state if name in before else self._last_state(name)
            for step in way(state, end):
                self.feed.publish(StateNews(name, state, step, message))
                if (seconds := self.loads.note(name, state, step, self.clock.now())) is not None:
                    self.feed.publish(LoadNews(name, seconds))
                # A busy slot goes back and forth with every request: that is counted, not recorded.
                if not {state, step} <= _IN_USE:
                    moved.append(Transition(name, state, step, self.clock.wall()))
                    _log.info("slot %s: %s -> %s", name, state, step)
                state = step
        if moved:
            self.store.ledger.add_transitions(moved)

    def _last_state(self, name: str) -> SlotState:
        """Return the state that an earlier hal0 left a slot in."""
        last = self.store.ledger.transitions(name, limit=1)
        return SlotState(last[0].after) if last else SlotState.OFFLINE
