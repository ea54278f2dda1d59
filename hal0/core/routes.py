"""Model names to slots: an immutable table built from each Snapshot, whose look-ups cost the same for any size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hal0.core.status import SlotStatus, Snapshot


@dataclass(frozen=True, slots=True)
class Routes:
    """Where each name of /v1 leads. Slot names win over aliases, aliases over model ids."""

    slots: Mapping[str, SlotStatus]

    def find(self, model: str) -> SlotStatus | None:
        """Return the slot that answers to a model name, or None."""
        return self.slots.get(model)


def routes(snapshot: Snapshot) -> Routes:
    """Return the route table of a snapshot. Of two slots with one name a dispatchable one wins, then the first."""
    table: dict[str, SlotStatus] = {}
    statuses = sorted(snapshot.slots.values(), key=lambda slot: (not slot.state.is_dispatchable, slot.name))
    for slot in statuses:
        table.setdefault(slot.spec.model, slot)
    for alias, model in snapshot.models.items():
        if model in table:
            table.setdefault(alias, table[model])
    for slot in reversed(statuses):
        table.update(dict.fromkeys(slot.spec.aliases, slot))
    for slot in statuses:
        table.update({slot.name: slot, f"hal0/{slot.name}": slot})
    return Routes(table)
