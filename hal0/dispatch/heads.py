"""Heads of requests and answers, and what of them goes on.

Heads repeat: a client sends the same lines with every request, an engine with every answer. One that llhttp has read is
remembered by its bytes, so that it is read, filtered and written anew once and not each time.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from http import HTTPStatus
from typing import Generic, TypeAlias, TypeVar
from urllib.parse import unquote

Header: TypeAlias = tuple[bytes, bytes]
END = b"\r\n\r\n"
LARGEST_HEAD = 65536
_MOST = 512
_LONGEST = 4096
_FRAMING = frozenset({b"content-length", b"transfer-encoding"})
_PLAIN = frozenset({b"", b"keep-alive", b"close", b"Keep-Alive", b"Close"})
_NO_BODY = frozenset({204, 304})
_HOP_BY_HOP = frozenset(
    {
        *(b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"upgrade"),
        *(b"proxy-authenticate", b"proxy-authorization"),
    }
)
"""Headers that belong to one connection; ``transfer-encoding`` is one too, and goes with an answer's own bytes."""
_NEVER_SENT = _HOP_BY_HOP | {b"host", b"content-length", b"transfer-encoding", b"expect"}
# An engine needs none of the client's credentials, and hal0 has its own for an upstream. An answer must stay readable
# for its token counts, so no encoding is accepted.
_NOT_SENT = _NEVER_SENT | {
    *(b"authorization", b"x-api-key", b"api-key", b"cookie", b"x-request-id", b"prefer", b"accept-encoding"),
}
_NOT_RETURNED = _HOP_BY_HOP | {b"x-request-id", b"x-hal0-slot", b"x-hal0-revision", b"x-hal0-upstream"}
_PHRASES = {status.value: status.phrase.encode() for status in HTTPStatus}
_UNPRINTABLE = re.compile(rb"[^\t -~]")
T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class RequestHead:
    """A request without its body; names of headers are in lower case.

    ``is_old``: of HTTP/1.0. ``keeps``: the connection may go on after it. ``length`` is the body's in bytes, None where
    it comes in chunks.
    """

    method: str
    target: bytes
    headers: tuple[Header, ...] = ()
    is_old: bool = False
    keeps: bool = True
    fields: Mapping[bytes, bytes] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "fields", dict(self.headers))

    @cached_property
    def length(self) -> int | None:
        """The body's length in bytes; None where it is not said before it comes."""
        if b"transfer-encoding" in self.fields:
            return None
        return int(self.fields.get(b"content-length", b"0"))

    @cached_property
    def is_plain(self) -> bool:
        """Whether it may be remembered: nothing has to be said or done before its body comes."""
        return self.length is not None and b"expect" not in self.fields and b"upgrade" not in self.fields

    @cached_property
    def expects(self) -> bool:
        """Whether the client sends the body only once it is told to go on."""
        return self.fields.get(b"expect", b"").lower() == b"100-continue" and not self.is_old

    @cached_property
    def path(self) -> str:
        """The path, without its query, as text."""
        path = self.target.partition(b"?")[0].decode("latin-1")
        return unquote(path) if "%" in path else path

    @cached_property
    def query(self) -> str:
        """What follows the path, with its question mark; empty where there is none."""
        _, mark, query = self.target.partition(b"?")
        return (mark + query).decode("latin-1")

    @cached_property
    def passed(self) -> bytes:
        """The lines that go on to an engine: without those of this connection, and without credentials."""
        return lines(self.headers, but=_NOT_SENT | _named(self.headers))

    def passed_beside(self, own: Iterable[Header]) -> bytes:
        """Return the lines that go on beside hal0's own: of a header that both have, hal0's is sent."""
        names = frozenset(name for name, _ in own)
        return lines(self.headers, but=_NOT_SENT | _named(self.headers) | names)

    @property
    def passed_whole(self) -> bytes:
        """The lines that go on to hal0's own application, which may see credentials."""
        return lines(self.headers, but=_NEVER_SENT | _named(self.headers))


@dataclass(frozen=True, eq=False)
class AnswerHead:
    """An answer without its body. ``keeps``: the engine's connection may go on after it."""

    status: int
    reason: bytes
    headers: tuple[Header, ...]
    keeps: bool
    fields: Mapping[bytes, bytes] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "fields", dict(self.headers))
        if _UNPRINTABLE.search(self.reason):  # a terminal or a log at the client's may act on such bytes
            object.__setattr__(self, "reason", standard_reason(self.status))

    @cached_property
    def length(self) -> int | None:
        """The body's length in bytes; None where it is not said."""
        said = self.fields.get(b"content-length")
        return int(said) if said and not self.is_chunked else None

    @cached_property
    def is_chunked(self) -> bool:
        """Whether the body comes in chunks."""
        return self.fields.get(b"transfer-encoding", b"").lower().rpartition(b",")[2].strip() == b"chunked"

    @cached_property
    def is_empty(self) -> bool:
        """Whether no body follows, whatever the headers say."""
        return self.status in _NO_BODY

    @cached_property
    def is_event_stream(self) -> bool:
        """Whether the body is a stream of events."""
        return self.fields.get(b"content-type", b"").lower().startswith(b"text/event-stream")

    @cached_property
    def start(self) -> bytes:
        """The status line and the headers that go on to the client, those that frame the body included."""
        more = b"x-accel-buffering: no\r\n" if self.is_event_stream else b""
        return self._start_without(frozenset()) + more

    @property
    def start_unframed(self) -> bytes:
        """The same for a client that does not know chunks."""
        return self._start_without(frozenset({b"transfer-encoding"}))

    def _start_without(self, names: frozenset[bytes]) -> bytes:
        passed = lines(self.headers, but=_NOT_RETURNED | _named(self.headers) | names)
        return status_line(self.status, self.reason) + passed


class Remembered(Generic[T]):
    """Heads by their bytes, up to some hundreds: then it begins anew, since clients can make heads up."""

    def __init__(self) -> None:
        self.known: dict[bytes, T] = {}

    def add(self, raw: bytes, head: T) -> None:
        """Remember a head; one that is long is not likely to come again."""
        if len(raw) > _LONGEST:
            return
        if len(self.known) >= _MOST:
            self.known.clear()
        self.known[raw] = head


def standard_reason(status: int) -> bytes:
    """Return the reason phrase that goes with a status where nothing else is said."""
    return _PHRASES.get(status, b"Unknown")


def lines(headers: Iterable[Header], *, but: frozenset[bytes] = frozenset()) -> bytes:
    """Return headers as lines, each with its end, leaving some out."""
    return b"".join([b"%b: %b\r\n" % header for header in headers if header[0] not in but])


def status_line(status: int, reason: bytes) -> bytes:
    """Return the first line of an answer, with its end."""
    return b"HTTP/1.1 %d %b\r\n" % (status, reason)


def framing(length: int | None) -> bytes:
    """Return the header that says where a body of a length ends, without the line's end; None is one in chunks."""
    return b"transfer-encoding: chunked" if length is None else b"content-length: %d" % length


def _named(headers: Iterable[Header]) -> frozenset[bytes]:
    """Return the headers that ``Connection`` names: they belong to that connection as well. Framing stays."""
    said = b",".join([value for name, value in headers if name == b"connection"])
    if said in _PLAIN:
        return frozenset()
    return frozenset(part.strip() for part in said.lower().split(b",")) - _FRAMING
