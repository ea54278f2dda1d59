"""Answers out of an engine's bytes: llhttp (through httptools) reads their heads, and finds the end of chunks."""

from __future__ import annotations

from itertools import count
from typing import Protocol

import httptools

from hal0.dispatch.heads import END, LARGEST_HEAD, AnswerHead, Header

_BEGIN = b"HTTP/"
_ANY_CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
_FAULTS = (httptools.HttpParserError, httptools.HttpParserUpgrade)


class Garbled(Exception):
    """What came is no answer."""


class Sink(Protocol):
    """Where an answer's body goes: the client's connection."""

    def write(self, data: bytes) -> None:
        """Take some bytes; says to the connection by ``pause`` and ``resume`` when it has too many."""


class HeadReader:
    """Reads the head of one answer; interim answers (1xx) before it are passed over.

    ``head`` is None until it is there; then ``raw`` are its bytes.
    """

    def __init__(self) -> None:
        self.head: AnswerHead | None = None
        self.raw = b""
        self._read = 0
        self._reason = b""
        self._headers: list[Header] = []
        self._parser = httptools.HttpResponseParser(self)

    def feed(self, data: bytes) -> bytes:
        """Take what came, and return what of it is behind the head. Raises ``Garbled``."""
        self.raw += data
        if not self.raw.startswith(_BEGIN[: len(self.raw)]):
            raise Garbled("its answer does not begin like one")
        begin = end = 0
        while self.head is None and (found := self.raw.find(END, end)) >= 0:
            begin, end = end, found + len(END)
            self._parse(end)
        if self.head is not None:
            self.raw, rest = self.raw[begin:end], self.raw[end:]
            return rest
        self._parse(len(self.raw))
        if len(self.raw) > LARGEST_HEAD:
            raise Garbled("its answer's head is too large")
        return b""

    def _parse(self, end: int) -> None:
        try:
            self._parser.feed_data(self.raw[self._read : end])
        except _FAULTS as error:
            raise Garbled(f"its answer is not HTTP: {error}") from None
        self._read = max(self._read, end)

    # What llhttp tells.

    def on_message_begin(self) -> None:
        """Begin an answer, or an interim one before it."""
        self._reason, self._headers = b"", []

    def on_status(self, status: bytes) -> None:
        """Keep the reason phrase."""
        self._reason += status

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header."""
        self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """Take the head; that of an interim answer is not the answer's."""
        parser = self._parser
        if (status := parser.get_status_code()) >= 200:  # noqa: PLR2004  (1xx)
            self.head = AnswerHead(status, self._reason, tuple(self._headers), parser.should_keep_alive())


class Chunks:
    """Follows a chunked body: ``has_ended``, and whether something may be put between two of its chunks."""

    def __init__(self) -> None:
        self.has_ended = False
        self._was_between = True
        self._begun, self._done = count(), count()
        # Called for every chunk: as methods in Python they would be most of what a chunk costs.
        self.on_chunk_header, self.on_chunk_complete = self._begun.__next__, self._done.__next__
        self._parser = httptools.HttpResponseParser(self)
        self._parser.feed_data(_ANY_CHUNKED)

    @property
    def is_between(self) -> bool:
        """Whether what was fed without a fault ended behind a chunk."""
        return self._was_between and not self.has_ended

    def feed(self, data: bytes) -> None:
        """Follow on. Raises ``Garbled``."""
        try:
            self._parser.feed_data(data)
        except _FAULTS as error:
            raise Garbled(f"its answer is not HTTP: {error}") from None
        self._was_between = next(self._begun) == next(self._done)  # each is one further, so they stay comparable

    def on_message_begin(self) -> None:
        """Refuse a second answer where one was asked for: its bytes must not reach the client."""
        if self.has_ended:
            raise ValueError("more than one answer")

    def on_message_complete(self) -> None:
        """Note the end of the body."""
        self.has_ended = True


class Unchunked:
    """A sink that takes chunks off their framing: for clients of HTTP/1.0, and for reading an answer here."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._error: Exception | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._parser.feed_data(_ANY_CHUNKED)

    def write(self, data: bytes) -> None:
        """Take framed bytes. Raises what its own sink raises, and ``Garbled``."""
        try:
            self._parser.feed_data(data)
        except _FAULTS as error:
            raise self._error or Garbled(f"its answer is not HTTP: {error}") from None

    def on_body(self, data: bytes) -> None:
        """Hand on what was in a chunk; llhttp would hide what is raised here."""
        try:
            self._sink.write(data)
        except Exception as error:
            self._error = error
            raise
