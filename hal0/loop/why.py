"""The act behind ``hal0 why`` and GET /api/slots/{name}/why: what is known of a slot, from all who know a part."""

from __future__ import annotations

from dataclasses import asdict

from hal0.core.why import why_json
from hal0.core.wire import Json
from hal0.loop import operations
from hal0.loop.reconcile import Reconciler

_LAST = 10


def why(reconciler: Reconciler, name: str) -> Json:
    """Return why a slot is as it is. Raises ``NotFound``."""
    status, now = operations.slot(reconciler, name), reconciler.clock.now()
    return why_json(
        status,
        reconciler.snapshot.plan.change(name),
        reconciler.attempts.get(name),
        now=now,
        acts=[asdict(act) for act in reconciler.store.ledger.acts(name, limit=_LAST)],
        refusals=[asdict(refusal) for refusal in reconciler.requests.refusals(name)],
    )
