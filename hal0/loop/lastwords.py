"""The last words of services that broke: read once for each of their runs, for the status to tell."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from hal0.core.facts import known
from hal0.core.observed import Activity, Observed
from hal0.errors import Hal0Error
from hal0.host.ports import Runtime

_LINES = 5
_BROKEN = frozenset({Activity.FAILED, Activity.RESTARTING})


@dataclass
class LastWords:
    """What the engines of broken slots said last."""

    runtime: Runtime
    _read: dict[str, tuple[str, tuple[str, ...]]] = field(default_factory=dict)

    def of(self, slot: str) -> tuple[str, ...]:
        """Return a slot's last lines; none where it is not broken."""
        return self._read.get(slot, ("", ()))[1]

    async def update(self, slots: Iterable[str], observed: Observed) -> None:
        """Read the lines of slots that broke since the last time, and forget those of slots that are well."""
        for name in slots:
            service = known(observed.slot(name).service)
            if service is None or service.activity not in _BROKEN:
                self._read.pop(name, None)
            elif self._read.get(name, ("", ()))[0] != service.invocation:
                self._read[name] = (service.invocation, await self._lines(name))

    async def _lines(self, name: str) -> tuple[str, ...]:
        try:
            lines = await self.runtime.logs(name, lines=_LINES, engine_only=True)
        except Hal0Error as error:
            return (f"its log can't be read: {error}",)
        return tuple(dict.fromkeys(lines))  # a crash loop says the same again and again
