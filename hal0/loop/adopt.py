"""A slot's place taken over from whoever has it: shown first, and then put aside, so that the loop finds it free.

Nothing is remembered of it. Once the drop-in is renamed and the container gone, a pass does what it does for any slot
that has no definition; a hal0 that is killed in between goes on with it.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from hal0.core.definition import digest, stamp
from hal0.core.facts import Unknown, known
from hal0.core.observed import SlotObservation
from hal0.core.reasons import foreign, foreign_unit, unknown_reason
from hal0.core.spec import DesiredSlot
from hal0.core.wire import VERSION, Json
from hal0.errors import Conflict, HostUnreachable
from hal0.loop import operations
from hal0.loop.reconcile import Leave, Reconciler


@dataclass(frozen=True, slots=True)
class _Stranger:
    """What is in a slot's place. ``why`` says that it is not hal0's; ``text`` is its definition's, empty for none."""

    why: str
    path: str
    text: str
    container: str

    @property
    def seen(self) -> str:
        """What names it: another text or another container is not what was shown."""
        return digest(f"{self.text}\n{self.container}")


async def adoption(reconciler: Reconciler, name: str) -> Json:
    """Look anew, and return what adopting a slot would replace and by what.

    Raises ``NotFound`` for a slot that no manifest declares, ``Conflict`` for one that is hal0's already and for a
    unit file in the template's place, ``HostUnreachable`` where the slot can't be seen.
    """
    await reconciler.survey(Leave(frozenset({name})))
    slot, found = _found(reconciler, name)
    return {
        "version": VERSION,
        "slot": name,
        "why": found.why,
        "path": found.path,
        "container": found.container,
        "diff": _diff(slot, found, reconciler.desired.generation) if found.text else "",
        "seen": found.seen,
    }


async def take_over(reconciler: Reconciler, name: str, seen: str) -> None:
    """Put aside what is in a slot's place. ``seen`` is what ``adoption`` said of it; empty takes over anything.

    Raises as ``adoption`` does, ``Conflict`` where it is another one by now, and ``StepFailed``.
    """
    _, found = _found(reconciler, name)
    if seen and seen != found.seen:
        raise Conflict(f"what is in the place of slot {name} has changed since it was shown", hint="look again")
    await reconciler.observer.runtime.put_aside(name)


def _found(reconciler: Reconciler, name: str) -> tuple[DesiredSlot, _Stranger]:
    slots = reconciler.desired.slots
    if name not in slots:
        raise operations.no_slot(name, slots)
    seen = reconciler.observer.seen[name]
    if isinstance(seen.definition, Unknown) or isinstance(seen.service, Unknown):
        raise HostUnreachable(f"slot {name}: {unknown_reason(seen)}")
    if unit := foreign_unit(seen):
        raise Conflict(unit, hint="what it does is not known: hal0 adopts drop-ins and containers only")
    if isinstance(seen.instance, Unknown):
        raise HostUnreachable(f"slot {name}: its container can't be seen: {seen.instance.reason}", hint="hal0 doctor")
    if not (why := foreign(name, seen)):
        raise Conflict(f"slot {name} is hal0's already", hint=f"hal0 slot show {name}")
    return slots[name], _stranger(seen, why)


def _stranger(seen: SlotObservation, why: str) -> _Stranger:
    definition, instance = known(seen.definition), known(seen.instance)
    path, text = (definition.path, definition.text) if definition else ("", "")
    return _Stranger(why, path, text, instance.id[:12] if instance else "")


def _diff(slot: DesiredSlot, found: _Stranger, generation: int) -> str:
    own = stamp(slot.body, slot=slot.spec.key, spec_hash=slot.spec_hash, generation=generation)
    sides = (found.text.splitlines(keepends=True), own.splitlines(keepends=True))
    return "".join(difflib.unified_diff(*sides, found.path, found.path))
