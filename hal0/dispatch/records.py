"""What became of each request: one log line and its measures, written in batches off the request's path."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache

from hal0.dispatch.connection import Connection
from hal0.dispatch.measures import Measures
from hal0.dispatch.usage import Usage, usage
from hal0.loop.requests import RefusedRequest, Requests

_log = logging.getLogger("hal0.requests")
_INTERVAL = 0.02
_LONGEST = 200
_PATIENT = 10.0
"""Seconds after which a client that leaves without a byte has waited, and not only changed its mind."""
_LAST_EVENTS = (b"data: [DONE]", b"event: message_stop", b"event: response.completed")
_NO_USAGE = Usage()
_NO_REFUSALS = frozenset({"ok", "client.gone"})


@dataclass(slots=True)
class Record:
    """One request. Times are of the monotonic clock; ``first`` and ``last`` are of an answer's bytes, 0 for none.

    ``outcome`` is ``ok``, a code of docs/errors.md, or ``client.gone``; ``slot`` is what it is counted under.
    """

    id: bytes
    endpoint: str
    began: float = field(default_factory=time.monotonic)
    model: str | None = None
    slot: str = ""
    target: str = ""
    rule: str = ""
    reason: str = ""
    revision: str = ""
    outcome: str = "ok"
    status: int = 0
    queued: float = 0.0
    first: float = 0.0
    last: float = 0.0
    ended: float = 0.0
    is_stream: bool = False
    opening: bytes = b""
    tail: bytes = b""

    @property
    def told(self) -> bytes:
        """What every answer says of how it came about, as lines of its head."""
        return revision_line(self.revision) + id_line(self.id)

    def left(self) -> None:
        """Note that the client went away: behind the last event of a stream it has all of it, and many do not wait."""
        has_all = self.is_stream and any(mark in self.tail for mark in _LAST_EVENTS)
        self.outcome = "ok" if has_all else "client.gone"

    @property
    def is_unheard(self) -> bool:
        """Whether a slot's engine may hang: the request ended without a byte from it, and by nobody's whim."""
        if self.first or not self.slot or self.target != self.slot:
            return False
        has_waited = self.outcome == "client.gone" and self.ended - self.began >= _PATIENT
        return has_waited or self.outcome == "slot.unreachable"

    def answered(self, connection: Connection) -> None:
        """Take what an answer on a connection tells."""
        self.first, self.last = connection.first_at, connection.last_at
        self.is_stream = connection.head is not None and connection.head.is_event_stream
        self.opening, self.tail = connection.opening, connection.tail

    def usage(self) -> Usage:
        """Return the tokens that the answer tells of."""
        return usage(self.opening, self.tail) if self.tail else _NO_USAGE

    def line(self) -> str:
        """Return the record as ``key=value`` pairs, values quoted as JSON where they may hold anything."""
        model = "-" if self.model is None else _quoted(self.model[:_LONGEST])
        milliseconds = (self.ended - self.began) * 1000
        return (
            f"request id={self.id.decode()} path={self.endpoint} model={model} target={self.target or '-'} "
            f"rule={self.rule or '-'} reason={_quoted(self.reason[:_LONGEST])} revision={self.revision or '-'} "
            f"outcome={self.outcome} status={self.status} ms={milliseconds:.1f}"
        )


@lru_cache(256)
def _quoted(text: str) -> str:
    return json.dumps(text)


def id_line(request_id: bytes) -> bytes:
    """Return the header that names a request."""
    return b"x-request-id: %b\r\n" % request_id


@lru_cache(8)
def revision_line(revision: str) -> bytes:
    """Return the header that names the revision of the manifests; nothing where they have none."""
    return f"x-hal0-revision: {revision}\r\n".encode() if revision else b""


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
    model = (record.model or "")[:_LONGEST]
    return RefusedRequest(time.time() - ago, record.id.decode(), model, record.outcome, record.status)
