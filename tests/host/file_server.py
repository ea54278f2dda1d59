"""A web server with faults, in a thread: what each path answers with, and what it was asked."""

from __future__ import annotations

import re
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple


class Asked(NamedTuple):
    """A request: its path has the query, ``token`` is all of its Authorization."""

    method: str
    path: str
    range: str | None
    condition: str | None
    token: str | None


@dataclass
class Served:
    """What a path answers with.

    ``cuts``: after how many bytes each next body breaks off; when they are used up, none does. ``ranges``: how a Range
    is answered: yes, ignored, shifted (another one comes), refused (416), halved (some of it, of an unknown whole).
    ``framing``: length, chunked, or none. ``gate``: the body stops half way until it is set. ``head``: the status of a
    HEAD, where it is another one.
    """

    data: bytes = b""
    etag: str = '"one"'
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    cuts: list[int] = field(default_factory=list)
    ranges: str = "yes"
    framing: str = "length"
    gate: threading.Event | None = None
    head: int | None = None


@dataclass
class FileServer:
    """A server's address, what it serves by path, and the requests that it got."""

    url: str
    served: dict[str, Served] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)

    def put(self, path: str, data: bytes = b"", **how: object) -> Served:
        self.served[path] = served = Served(data, **how)  # type: ignore[arg-type]
        return served

    @property
    def ranges(self) -> list[str | None]:
        """The Range of each GET."""
        return [each.range for each in self.asked if each.method == "GET"]


@contextmanager
def serving(tls: ssl.SSLContext | None = None) -> Iterator[FileServer]:
    """Serve on a port of this machine, until the block ends; with a context, over TLS."""
    server = _Server(("127.0.0.1", 0), _Handler)
    if tls:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    server.files = FileServer(f"{'https' if tls else 'http'}://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server.files
    finally:
        for each in server.files.served.values():
            if each.gate:
                each.gate.set()
        server.shutdown()
        thread.join()
        server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    files: FileServer

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: clients that hang up are what is tested."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    @property
    def _files(self) -> FileServer:
        assert isinstance(self.server, _Server)
        return self.server.files

    def _asked(self) -> Served:
        known = self.headers.get
        self._files.asked.append(
            Asked(self.command, self.path, known("Range"), known("If-Range"), known("Authorization"))
        )
        return self._files.served.get(self.path.partition("?")[0], Served(status=404))

    def do_HEAD(self) -> None:
        served = self._asked()
        self.send_response(served.head or served.status)
        self._say(served, len(served.data))
        self.end_headers()

    def do_GET(self) -> None:
        served = self._asked()
        start, total = self._start(served), len(served.data)
        if served.ranges == "refused" and start:
            self._empty(416)
        elif served.status != 200:
            self._empty(served.status, served.headers)
        else:
            self._answer(served, start, total)

    def _answer(self, served: Served, start: int, total: int) -> None:
        first = start + 1 if served.ranges == "shifted" and start else start
        is_halved = served.ranges == "halved" and start
        end = first + max(1, (total - first) // 2) if is_halved else total
        body = served.data[first:end]
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {first}-{end - 1}/{'*' if is_halved else total}")
        self._say(served, len(body))
        self.end_headers()
        self._send(served, body)

    def _start(self, served: Served) -> int:
        """Return the byte that is asked for, 0 for the whole."""
        found = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        condition = self.headers.get("If-Range")
        if not found or served.ranges == "ignored" or (condition and condition != served.etag):
            return 0
        return int(found[1])

    def _say(self, served: Served, length: int) -> None:
        if served.framing == "length":
            self.send_header("Content-Length", str(length))
        elif served.framing == "chunked":
            self.send_header("Transfer-Encoding", "chunked")
        else:
            self.send_header("Connection", "close")
        if served.etag:
            self.send_header("ETag", served.etag)
        for name, value in served.headers.items():
            self.send_header(name, value)

    def _send(self, served: Served, body: bytes) -> None:
        cut = served.cuts.pop(0) if served.cuts else None
        middle = len(body) // 2
        for piece in (body[:cut],) if cut is not None else (body[:middle], body[middle:]):
            self._write(piece, is_chunk=served.framing == "chunked")
            if served.gate:
                served.gate.wait()
        if cut is None and served.framing == "chunked":
            self.wfile.write(b"0\r\n\r\n")
        if cut is not None or served.framing == "none":
            self.close_connection = True

    def _write(self, piece: bytes, *, is_chunk: bool) -> None:
        if is_chunk and piece:
            self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
        elif piece:
            self.wfile.write(piece)
        self.wfile.flush()

    def _empty(self, status: int, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()
