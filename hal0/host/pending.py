"""Names waiting to be looked at: each once, however often it was announced."""

from __future__ import annotations

import asyncio


class Pending:
    """An ordered set between announcers and one reader; its size is bounded by the number of names."""

    def __init__(self) -> None:
        self._names: dict[str, None] = {}
        self._filled = asyncio.Event()

    def add(self, name: str) -> None:
        """Announce a name; only from the event loop's thread."""
        self._names[name] = None
        self._filled.set()

    async def take(self) -> str:
        """Wait for a name and return the one that has waited longest."""
        await self._filled.wait()
        name = next(iter(self._names))
        del self._names[name]
        if not self._names:
            self._filled.clear()
        return name
