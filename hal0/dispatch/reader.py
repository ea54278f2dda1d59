"""Requests out of a connection's bytes: llhttp (through httptools) reads them, and this keeps it within bounds."""

from __future__ import annotations

from typing import Protocol

import httptools

from hal0.dispatch.heads import END, LARGEST_HEAD, Header, RequestHead, framing


class Unreadable(Exception):
    """What came is no request that is taken: the status and code to answer with."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class Events(Protocol):
    """Who is told of requests."""

    def request_begun(self, head: RequestHead) -> None:
        """Take a request whose body is still to come."""

    def request_body(self, data: bytes) -> None:
        """Take a part of the last request's body."""

    def request_ended(self) -> None:
        """Note that the last request is all there."""


class Reader:
    """Reads one connection. ``is_between``: the next byte begins a request."""

    def __init__(self, events: Events) -> None:
        self.is_between = True
        self.is_in_head = False
        self._events = events
        self._parser = httptools.HttpRequestParser(self)
        self._target = b""
        self._headers: list[Header] = []
        self._head = RequestHead("GET", b"")
        self._size = 0
        self._quiet = 0
        self._is_resuming = False
        self._is_too_large = False

    def feed(self, data: bytes) -> None:
        """Read on. Raises ``Unreadable``."""
        while data:
            self._quiet += len(data)
            try:
                self._parser.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                self._decline()
                data = data[upgrade.args[0] :]
                continue
            except httptools.HttpParserError as error:
                self._fail(error)
                return
            if self._quiet > LARGEST_HEAD + len(data):  # a line that has no end leads to no call of ours
                raise _too_large()
            return

    def _fail(self, error: Exception) -> None:
        if self._is_too_large:
            raise _too_large() from None
        if not (self.is_between and not self._head.keeps):  # what follows a last request is not read
            raise Unreadable(400, "request.invalid_http", f"this is not HTTP: {error}") from None

    def _decline(self) -> None:
        """Go on in HTTP/1.1 after an offer of another protocol: llhttp has let go of the request behind its head."""
        self._parser = httptools.HttpRequestParser(self)
        if self._head.length != 0:
            self._is_resuming = True
            self._parser.feed_data(b"POST / HTTP/1.1\r\n" + framing(self._head.length) + END)
            self._is_resuming = False

    def _measure(self, size: int) -> None:
        self._size += size
        self._quiet = 0
        if self._size > LARGEST_HEAD:
            self._is_too_large = True
            raise ValueError("too large")

    # What llhttp tells.

    def on_message_begin(self) -> None:
        """Begin a request."""
        if not self._is_resuming:
            self._target, self._headers, self._size = b"", [], 0
            self.is_between, self.is_in_head = False, True

    def on_url(self, url: bytes) -> None:
        """Take the target, or a part of it."""
        if not self._is_resuming:
            self._measure(len(url))
            self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; one behind the body (a trailer) is only counted."""
        if not self._is_resuming:
            self._measure(len(name) + len(value))
            if self.is_in_head:
                self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """Tell of the request."""
        if self._is_resuming:
            return
        parser, self.is_in_head, self._quiet, self._size = self._parser, False, 0, 0
        is_old = parser.get_http_version() == "1.0"
        method, keeps = parser.get_method().decode(), parser.should_keep_alive()
        self._head = RequestHead(method, _in_origin_form(self._target), tuple(self._headers), is_old, keeps)
        if is_old and self._head.length is None:
            raise ValueError("HTTP/1.0 knows no chunks")
        self._events.request_begun(self._head)

    def on_body(self, data: bytes) -> None:
        """Hand on a part of the body."""
        self._quiet = 0
        self._events.request_body(data)

    def on_message_complete(self) -> None:
        """Tell of the end of a request; behind an offer of another protocol it is the end of its head."""
        if self._parser.should_upgrade() and self._head.length != 0:
            return
        self._quiet, self.is_between = 0, True
        self._events.request_ended()


def _in_origin_form(target: bytes) -> bytes:
    """Return a target as a path: a client may name the whole address, as it does to a proxy."""
    if not target[:8].lower().startswith((b"http://", b"https://")):
        return target
    _, slash, path = target.partition(b"//")[2].partition(b"/")
    return slash + path if slash else b"/"


def _too_large() -> Unreadable:
    return Unreadable(431, "request.head_too_large", f"its head is larger than {LARGEST_HEAD} bytes")
