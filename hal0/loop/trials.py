"""Trials of specs: begun by an apply that is to keep its word, judged in each pass, and what follows from that."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from hal0.core.backoff import Attempt
from hal0.core.conditions import ConditionType
from hal0.core.engines import stand_in_of
from hal0.core.judge import Judgement, Word, has_begun, is_up, judged
from hal0.core.proof import Proof
from hal0.core.spec import Desired
from hal0.core.status import SlotStatus, Snapshot
from hal0.core.trial import Rejection, Trial
from hal0.core.why import Rule
from hal0.host.ledger import Act
from hal0.host.ports import MANIFESTS, Clock
from hal0.host.store import Store
from hal0.loop.desire import Source
from hal0.loop.queue import WorkQueue

_log = logging.getLogger(__name__)


@dataclass
class Trials:
    """Opens trials and ends them, and notes what is good. ``proofs`` are those of the engines.

    For how long a spec has been tried is in memory only: after a restart of hal0 its time counts anew.
    """

    source: Source
    store: Store
    clock: Clock
    queue: WorkQueue
    proofs: Mapping[str, Proof]
    _since: dict[str, float] = field(default_factory=dict)

    def begin(self, desired: Desired, who: str, limit: frozenset[str] | None) -> frozenset[str]:
        """Open a trial for each slot whose spec is not its good one, and return whose were opened.

        A spec that was rejected is not wanted now, so it is not tried either. One that is on trial stays so.
        """
        slots = [desired.slots[name] for name in desired.slots if limit is None or name in limit]
        wanted = {slot.spec.name: slot.spec_hash for slot in slots if not (slot.is_barred or slot.spec.suspend)}
        news = {
            name: spec_hash
            for name, spec_hash in wanted.items()
            if spec_hash not in {self._good_hash(name, desired), self._tried_hash(name)}
        }
        self._open(news, who)
        return frozenset(news)

    def retry(self, rejected: Rejection, who: str) -> None:
        """Give a spec that was rejected another chance: on trial, as before."""
        self._open({rejected.slot: rejected.spec_hash}, who)

    def follow(self, snapshot: Snapshot, attempts: Mapping[str, Attempt], busy: Collection[str]) -> frozenset[str]:
        """Judge what is on trial and note what is good; return the slots whose spec was rejected now.

        Of a slot that is ``busy``, its batch or the next look has to tell first.
        """
        rows = self.store.trials
        for name in rows.open.keys() - snapshot.slots.keys():
            rows.drop(name)
        rejected = set()
        for name, slot in snapshot.slots.items():
            if name in busy:
                continue
            if trial := rows.open.get(name):
                judgement = self._judged(trial, slot, _attempt(trial, attempts))
                self._end(trial, slot, judgement)
                rejected |= {name} if judgement.word is Word.FAILED else set()
            elif slot.is_ready and slot.condition(ConditionType.SYNCED).status is True:
                rows.note_good(slot.spec)
        return frozenset(rejected)

    def unproved(self, snapshot: Snapshot) -> frozenset[str]:
        """Return the slots that are up with a spec on trial: no request goes there until it has proved itself."""
        return frozenset(name for name in self.store.trials.open if is_up(snapshot.slots[name]))

    def _open(self, specs: Mapping[str, str], who: str) -> None:
        if specs:
            wall = self.clock.wall()
            self.store.trials.begin(Trial(name, spec_hash, who, wall) for name, spec_hash in specs.items())
            self._since = {name: since for name, since in self._since.items() if name not in specs}

    def _good_hash(self, name: str, desired: Desired) -> str:
        good = self.store.trials.good.get(name)
        return self.source.rendered(good, desired).spec_hash if good else ""

    def _tried_hash(self, name: str) -> str:
        trial = self.store.trials.open.get(name)
        return trial.spec_hash if trial else ""

    def _judged(self, trial: Trial, slot: SlotStatus, attempt: Attempt | None) -> Judgement:
        now = self.clock.now()
        if has_begun(trial, slot, attempt):
            self._since.setdefault(trial.slot, now)
        elif not slot.verdict.up:
            self._since.pop(trial.slot, None)
        since = self._since.get(trial.slot)
        return judged(trial, slot, self.proofs.get(trial.slot), attempt, None if since is None else now - since)

    def _end(self, trial: Trial, slot: SlotStatus, judgement: Judgement) -> None:
        if judgement.word is Word.OPEN:
            return
        self._since.pop(trial.slot, None)
        if judgement.word is Word.PASSED:
            self.store.trials.note_good(slot.spec)
        elif judgement.word is Word.OVER:
            self.store.trials.drop(trial.slot)
        else:
            self._reject(trial, judgement.why)
        self.queue.add(MANIFESTS)

    def _reject(self, trial: Trial, why: str) -> None:
        rejection = Rejection(trial.slot, trial.spec_hash, why, self.clock.wall())
        self.store.trials.reject(rejection)
        told = f"spec {trial.spec_hash}: {why}"
        _log.warning("slot %s: %s", trial.slot, rejection)
        act = Act(trial.slot, "reject", drift=False, why=told, at=rejection.at, rule=Rule.TRIAL.value, by=trial.who)
        self.store.ledger.add_acts([act])


def _attempt(trial: Trial, attempts: Mapping[str, Attempt]) -> Attempt | None:
    """Return the last try of a spec on trial: a failed one of a stand-in, or one of the slot's own engine."""
    tries = [attempts.get(engine) for engine in (stand_in_of(trial.slot), trial.slot)]
    return next((found for found in tries if found and found.spec_hash == trial.spec_hash), None)
