"""How taking up the manifests ended: told from a Snapshot alone, so that any hal0 can tell it of an earlier one's."""

from __future__ import annotations

from dataclasses import dataclass

from hal0.core.status import SlotStatus, Snapshot


@dataclass(frozen=True, slots=True)
class Ending:
    """Whether every slot is as declared; ``summary`` names what is not, one sentence for each.

    ``rejected`` is when the last spec that is still wanted was rejected, in seconds since the epoch; None: none is.
    """

    converged: bool
    summary: str
    rejected: float | None = None


def ending(snapshot: Snapshot, limit: frozenset[str] | None = None) -> Ending | None:
    """Return how it ended for all slots, or for those of ``limit``; None while waiting longer may be of use."""
    slots = [slot for slot in snapshot.slots.values() if limit is None or slot.name in limit]
    planned = {change.slot for change in snapshot.plan.changes if change.steps}
    if not all(_is_over(slot) and slot.name not in planned for slot in slots):
        return None
    said = [f"{slot.name}: {wrong}" for slot in slots for wrong in (slot.failure, slot.rejection) if wrong]
    wrong = [*_problems(snapshot), *said]
    return Ending(not wrong, "; ".join(wrong), max((slot.rejected.at for slot in slots if slot.rejected), default=None))


def _is_over(slot: SlotStatus) -> bool:
    return slot.is_settled or (bool(slot.failure) and not slot.is_on_trial)


def _problems(snapshot: Snapshot) -> list[str]:
    count = len(snapshot.problems)
    return [f"{count} {'problem' if count == 1 else 'problems'} in the manifests"] if count else []
