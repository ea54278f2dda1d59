"""What hal0 does to slots, kept and logged with the rule, the revision, the person and the request behind it."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass

from hal0.core.engines import is_stand_in, slot_of
from hal0.core.schedule import UNDECLARED, Placement, Verdict
from hal0.core.spec import Desired
from hal0.core.steps import Change
from hal0.core.why import Rule, rule_of
from hal0.host.ledger import Act
from hal0.host.ports import Clock
from hal0.host.store import Store
from hal0.loop.hand import asked
from hal0.loop.history import History
from hal0.loop.requests import Requests

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Recorder:
    """Writes the ledger's acts."""

    store: Store
    history: History
    requests: Requests
    clock: Clock

    def record(self, changes: Iterable[Change], placement: Placement, desired: Desired) -> None:
        """Keep and log what is being done and why: a healed drift must not go unnoticed.

        A change that waits for its model or image comes again when that is there, and is recorded then.
        """
        acts = []
        for change in changes:
            why = "its stand-in: " if is_stand_in(change.slot) else ""
            why += "; ".join(str(reason) for reason in change.reasons)
            acts.append(self._act(change, placement.verdicts.get(slot_of(change.slot), UNDECLARED), desired, why))
            where = "changed outside hal0: " if change.is_drift else ""
            _log.info("slot %s: %s: %s%s", change.slot, change.action.value, where, why)
        self.store.ledger.add_acts(acts)

    def _act(self, change: Change, verdict: Verdict, desired: Desired, why: str) -> Act:
        name = slot_of(change.slot)
        aspects, who = asked(self.store, name)
        rule = rule_of(change, verdict, aspects, desired.slots.get(name))
        return Act(
            *(name, change.action.value, change.is_drift, why, self.clock.wall()),
            rule=rule.value,
            revision=desired.revision,
            request=self.requests.waker({Rule.DEMAND: name, Rule.ROOM: verdict.beneficiary}.get(rule, "")),
            by={Rule.MANIFESTS: self.history.by, Rule.TRIAL: self.history.by, Rule.HAND: who}.get(rule, ""),
        )
