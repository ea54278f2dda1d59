"""The act behind ``hal0 why`` and GET /api/slots/{name}/why: what is known of a slot, from all who know a part."""

from __future__ import annotations

from dataclasses import asdict

from hal0.core.observed import Observed
from hal0.core.schedule import Verdict
from hal0.core.why import why_json
from hal0.core.wire import Json
from hal0.loop import operations
from hal0.loop.reconcile import Reconciler

_NOT_DECLARED = Verdict(up=False, why="no manifest declares it")
_LAST = 10


def why(reconciler: Reconciler, name: str) -> Json:
    """Return why a slot is as it is. Raises ``NotFound``."""
    status, now = operations.slot(reconciler, name), reconciler.clock.now()
    world = reconciler.world(Observed(dict(reconciler.observer.seen), now, frozenset()))
    return why_json(
        status,
        world.verdicts.get(name, _NOT_DECLARED),
        reconciler.snapshot.plan.change(name),
        reconciler.attempts.get(name),
        now=now,
        acts=[asdict(act) for act in reconciler.store.ledger.acts(name, limit=_LAST)],
        refusals=[asdict(refusal) for refusal in reconciler.requests.refusals(name)],
    )
