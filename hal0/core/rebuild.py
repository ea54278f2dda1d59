"""What a lost store knew, read back from the host: the ports that were handed out."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from hal0.core.definition import split
from hal0.core.facts import known
from hal0.core.observed import Observed, SlotObservation
from hal0.core.spec import Desired

_PUBLISHED = re.compile(r"--publish=127\.0\.0\.1:(\d+):")
_FLAG = re.compile(r'"--port(?:",\s*"|=)(\d+)"')
_NUMBER = re.compile(r"(?<![\w.])(\d+)(?![\w.])")


def ports_found(desired: Desired, observed: Observed, remembered: Collection[str]) -> Mapping[str, int]:
    """Return the ports in the definitions of declared slots that hal0 made and does not remember."""
    lost = [name for name in desired.slots if name not in remembered]
    found = {name: _port(name, observed.slot(name), desired.host.ports) for name in lost}
    return {name: port for name, port in found.items() if port}


def _port(name: str, seen: SlotObservation, bounds: tuple[int, int]) -> int:
    """Return the port of a slot's definition; 0 where there is none of hal0's, or where it could be several."""
    definition = known(seen.definition)
    body, mark = split(definition.text) if definition else ("", None)
    if mark is None or mark.slot != name:
        return 0
    if stated := _PUBLISHED.search(body) or _FLAG.search(body):
        return int(stated[1])
    # A command line of the operator's own says it in any place: only one number there can have been handed out.
    numbers = {int(text) for text in _NUMBER.findall(body)}
    likely = [number for number in numbers if bounds[0] <= number <= bounds[1]]
    return likely[0] if len(likely) == 1 else 0
