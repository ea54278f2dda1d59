"""Everything of hal0's on a host taken away: slots that bear its mark, and nothing else."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass

from hal0.core.facts import Unknown, known
from hal0.core.observed import SlotObservation
from hal0.core.reasons import foreign, unknown_reason
from hal0.core.spec import container_name
from hal0.errors import HostUnreachable
from hal0.host.ports import Runtime


@dataclass(frozen=True, slots=True)
class Holdings:
    """What a host has under hal0's names. ``own`` are engines by key; ``foreign`` maps others to why they are not."""

    own: Mapping[str, SlotObservation]
    foreign: Mapping[str, str]


async def holdings(runtime: Runtime) -> Holdings:
    """Look at all of it. Raises ``HostUnreachable`` where a unit or definition can't be seen: then remove nothing."""
    seen = await runtime.observe({})
    for name, found in seen.items():
        if isinstance(found.definition, Unknown) or isinstance(found.service, Unknown):
            raise HostUnreachable(f"slot {name}: {unknown_reason(found)}", hint="nothing was changed; hal0 doctor")
    others = {name: why for name, found in sorted(seen.items()) if (why := foreign(name, found))}
    own = {name: found for name, found in sorted(seen.items()) if name not in others and _is_there(found)}
    return Holdings(own, others)


async def remove_slots(runtime: Runtime, own: Mapping[str, SlotObservation]) -> AsyncIterator[str]:
    """Stop engines and remove their definitions; yield what is gone. May be begun again where it fails."""
    for name, found in own.items():
        await runtime.stop(name)
        await runtime.remove(name)
        definition = known(found.definition)
        yield definition.path if definition else container_name(name)
    if own:
        await runtime.reload()


def _is_there(found: SlotObservation) -> bool:
    return known(found.definition) is not None or known(found.instance) is not None
