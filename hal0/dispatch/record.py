"""What is noted of one request while it goes its way, and the headers of every answer that tell of it."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from functools import lru_cache

from hal0.dispatch.connection import Connection
from hal0.dispatch.usage import Usage, usage

LONGEST = 200
"""The most characters of a client's text that is kept."""
_PATIENT = 10.0
"""Seconds after which a client that leaves without a byte has waited, and not only changed its mind."""
_LAST_EVENTS = (b"data: [DONE]", b"event: message_stop", b"event: response.completed")
_NO_USAGE = Usage()


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
        model = "-" if self.model is None else _quoted(self.model[:LONGEST])
        milliseconds = (self.ended - self.began) * 1000
        return (
            f"request id={self.id.decode()} path={self.endpoint} model={model} target={self.target or '-'} "
            f"rule={self.rule or '-'} reason={_quoted(self.reason[:LONGEST])} revision={self.revision or '-'} "
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
