"""What became of each request: one log line and its measures, written in batches off the request's path."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from hal0.dispatch.measures import Measures
from hal0.dispatch.record import LONGEST, Record
from hal0.loop.requests import RefusedRequest, Requests

_log = logging.getLogger("hal0.requests")
_INTERVAL = 0.02
_NO_REFUSALS = frozenset({"ok", "client.gone"})


@dataclass
class Recorder:
    """Keeps records until the next batch: a line written for each request would cost more than the rest of it.

    Batches are small, so that none of them holds up the requests of the moment. ``suspect`` is called with each slot
    whose engine may hang.
    """

    measures: Measures
    requests: Requests
    suspect: Callable[[str], None]
    _records: list[Record] = field(default_factory=list)

    def add(self, record: Record) -> None:
        """Take a record whose request has ended."""
        record.ended = time.monotonic()
        if not self._records:
            asyncio.get_running_loop().call_later(_INTERVAL, self.flush)
        self._records.append(record)

    def flush(self) -> None:
        """Count and write what there is."""
        records, self._records = self._records, []
        for record in records:
            self.measures.take(record, record.usage())
            if record.slot and record.outcome not in _NO_REFUSALS:
                self.requests.refused(record.slot, _refused(record))
            if record.is_unheard:
                self.suspect(record.slot)
        if records and _log.isEnabledFor(logging.INFO):
            _log.info("\n".join([record.line() for record in records]))


def _refused(record: Record) -> RefusedRequest:
    ago = time.monotonic() - record.ended
    model = (record.model or "")[:LONGEST]
    return RefusedRequest(time.time() - ago, record.id.decode(), model, record.outcome, record.status)
