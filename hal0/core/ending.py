"""How taking up the manifests ended: told from a Snapshot alone, so that any hal0 can tell it of an earlier one's."""

from __future__ import annotations

from dataclasses import dataclass

from hal0.core.status import Snapshot


@dataclass(frozen=True, slots=True)
class Ending:
    """Whether every slot is as declared; ``summary`` names what is not, one sentence for each."""

    converged: bool
    summary: str


def ending(snapshot: Snapshot, limit: frozenset[str] | None = None) -> Ending | None:
    """Return how it ended for all slots, or for those of ``limit``; None while waiting longer may be of use."""
    slots = [slot for slot in snapshot.slots.values() if limit is None or slot.name in limit]
    planned = {change.slot for change in snapshot.plan.changes if change.steps}
    if not all((slot.is_settled or slot.failure) and slot.name not in planned for slot in slots):
        return None
    wrong = [*_problems(snapshot), *(f"{slot.name}: {slot.failure}" for slot in slots if slot.failure)]
    return Ending(not wrong, "; ".join(wrong))


def _problems(snapshot: Snapshot) -> list[str]:
    count = len(snapshot.problems)
    return [f"{count} {'problem' if count == 1 else 'problems'} in the manifests"] if count else []
