"""The real clock."""

from __future__ import annotations

import time


class SystemClock:
    """Implements ``Clock`` with the machine's own."""

    def now(self) -> float:
        """Return monotonic seconds."""
        return time.monotonic()

    def wall(self) -> float:
        """Return seconds since the epoch."""
        return time.time()
