"""One file of a web server, from some byte on.

Redirects are followed here, not by ``requests``: a token goes to the host that it is for and to no other, and neither
it nor the query of an address, which may be signed, is ever part of an error.
"""

from __future__ import annotations

import os
import re
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import urljoin, urlsplit

import requests
from urllib3.exceptions import HTTPError

from hal0.errors import StepFailed
from hal0.host.threads import Wire

_MOST_HOPS = 10
_BLOCK = 1 << 18  # bytes of a read at the most; a read returns what has come
_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")
_PORTS = {"http": 80, "https": 443}
_OK, _PARTIAL = 200, 206
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_GATED = frozenset({401, 403})
_GONE = frozenset({404, 410})
_BEYOND = 416
_BUSY = 429


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a server may take to be connected to, and to send the next bytes, in seconds."""

    connect_s: float = 10.0
    silence_s: float = 60.0


@dataclass(frozen=True, slots=True)
class Remote:
    """A file of a server, and what is known of it beforehand: its bytes, and its sha256, empty where not known.

    ``token`` is for the host of ``url`` alone. ``gated`` says what a person does who may not have the file.
    """

    url: str
    size: int | None = None
    sha256: str = ""
    token: str = field(default="", repr=False)
    gated: str = "hal0 sends no password to a plain address; a file of the hub is named by its repo and file."

    @property
    def shown(self) -> str:
        """Its address as an error may show it."""
        return shown(self.url)


class Lost(Exception):
    """The server can't be reached, broke off or fell silent: what has come is good. The message says how."""


class NotResumed(Exception):
    """The server does not go on from where it was asked to: the file has to be begun anew."""


@dataclass(frozen=True, slots=True)
class Body:
    """An answer's bytes. ``start`` is where they begin, ``total`` the size of the whole file where it is said.

    ``is_framed`` is false where nothing but the end of the connection ends them: then a cut can't be told from an end.
    ``validator`` is an ETag or a date, which changes with the file; empty where there is none.
    """

    start: int
    total: int | None
    is_framed: bool
    validator: str
    _response: requests.Response

    def read(self) -> bytes:
        """Return the next bytes, as soon as there are some; nothing at the end. Raises ``Lost``."""
        try:
            block: bytes = self._response.raw.read1(_BLOCK, decode_content=False)
        except (HTTPError, OSError) as error:
            raise Lost(f"{_host(self._response.url)}: {reason(error)}") from None
        return block


@contextmanager
def opened(remote: Remote, start: int, condition: str, wire: Wire, patience: Patience) -> Iterator[Body]:
    """Ask for a file from byte ``start`` on; ``condition`` is a validator that has to be true for that still.

    Raises ``Lost``, ``NotResumed``, and ``StepFailed`` where the server says no.
    """
    headers = {"Range": f"bytes={start}-"} if start else {}
    if start and condition:
        headers["If-Range"] = condition
    with _session(headers) as session, _answer(session, "GET", remote, patience) as response:
        wire.attach(response.raw)
        yield _body(response, remote, start)


def size_of(remote: Remote, patience: Patience) -> int | None:
    """Return how large a file is, by its headers alone; None where its server does not say so.

    Raises ``StepFailed`` where the server can't be reached, or says that there is no such file.
    """
    try:
        with _session({}) as session, _answer(session, "HEAD", remote, patience) as response:
            if response.status_code in _GONE:
                _check_status(response, remote, 0)
            return _length(response) if response.status_code == _OK else None
    except Lost as error:
        raise StepFailed(f"{remote.shown} can't be asked for: {error}", hint="Look at the network.") from None


def shown(url: str) -> str:
    """Return an address without what may be secret in it: password, query."""
    found = urlsplit(url)
    return f"{found.scheme}://{found.netloc.rpartition('@')[2]}{found.path}"


def reason(error: BaseException) -> str:
    """Return why a connection failed, in words that hold no part of an address."""
    for each in _chain(error):
        match each:
            case ssl.SSLCertVerificationError():
                return f"its certificate is not trusted: {each.verify_message}"
            case requests.ConnectTimeout() | requests.ReadTimeout() | TimeoutError():
                return "no answer in time"
            case socket.gaierror():
                return "its name leads to no address"
            case OSError() if each.strerror:
                return each.strerror
    return "the connection broke"


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and those that it was made of, the innermost first."""
    found: list[BaseException] = []
    waiting: list[object] = [error]
    while waiting:
        each = waiting.pop()
        if isinstance(each, BaseException) and each not in found:
            found.append(each)
            waiting += [each.__context__, each.__cause__, getattr(each, "reason", None), *each.args]
    return reversed(found)


def _session(headers: dict[str, str]) -> requests.Session:
    session = requests.Session()
    session.headers.update({"Accept-Encoding": "identity", "User-Agent": "hal0"} | headers)
    return session


@contextmanager
def _answer(session: requests.Session, method: str, remote: Remote, patience: Patience) -> Iterator[requests.Response]:
    """Follow redirects to the answer that is none."""
    url = remote.url
    for _ in range(_MOST_HOPS):
        with _sent(session, method, url, _Bearer(remote, url), patience) as response:
            if response.status_code not in _REDIRECTS or "Location" not in response.headers:
                yield response
                return
            url = _next(url, response.headers["Location"])
    raise StepFailed(f"{remote.shown} leads through more than {_MOST_HOPS} redirects", hint="Name another source.")


def _sent(session: requests.Session, method: str, url: str, bearer: _Bearer, patience: Patience) -> requests.Response:
    try:
        return session.request(
            method,
            url,
            auth=bearer,
            stream=True,
            allow_redirects=False,
            timeout=(patience.connect_s, patience.silence_s),
            # requests knows REQUESTS_CA_BUNDLE alone; the hub's client, and most else, knows this one.
            verify=os.environ.get("SSL_CERT_FILE") or True,
        )
    except (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema, UnicodeError):
        raise StepFailed(f"{shown(url)} is no address of a file", hint="Mend the model's source.") from None
    except (requests.RequestException, HTTPError, OSError) as error:
        raise Lost(f"{_host(url)}: {reason(error)}") from None


class _Bearer(requests.auth.AuthBase):
    """Sends the token to the host that it is for. That there is one keeps ``requests`` from looking for another."""

    def __init__(self, remote: Remote, url: str) -> None:
        self._token = remote.token if _origin(url) == _origin(remote.url) else ""

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._token:
            request.headers["Authorization"] = f"Bearer {self._token}"
        return request


def _origin(url: str) -> tuple[str, str, int | None]:
    found = urlsplit(url)
    return found.scheme, (found.hostname or "").lower(), found.port or _PORTS.get(found.scheme)


def _host(url: str) -> str:
    return urlsplit(url).netloc.rpartition("@")[2]


def _next(url: str, location: str) -> str:
    try:
        target = urljoin(url, location)
        scheme, _, _ = _origin(target)
    except ValueError:
        raise StepFailed(f"{shown(url)} leads to what is no address", hint="Name another source.") from None
    if scheme not in _PORTS or (scheme == "http" and urlsplit(url).scheme == "https"):
        why = f"{shown(url)} leads to {shown(target)}, which anyone on the way could change"
        raise StepFailed(why, hint="Name another source.")
    return target


def _body(response: requests.Response, remote: Remote, start: int) -> Body:
    _check_status(response, remote, start)
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise StepFailed(f"{_host(response.url)} sends {remote.shown} compressed only", hint="Name another source.")
    length = _length(response)
    total = length
    if response.status_code == _PARTIAL:
        said = _RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if not said or int(said[1]) != start:
            raise NotResumed
        total = None if said[2] == "*" else int(said[2])
        start = int(said[1])
    else:
        start = 0
    return Body(
        start=start,
        total=total,
        is_framed=length is not None or response.headers.get("Transfer-Encoding", "").lower() == "chunked",
        validator=response.headers.get("ETag") or response.headers.get("Last-Modified", ""),
        _response=response,
    )


def _check_status(response: requests.Response, remote: Remote, start: int) -> None:
    status, host = response.status_code, _host(response.url)
    if status == _OK or (status == _PARTIAL and start):
        return
    if status in {_BEYOND, _PARTIAL} and start:
        raise NotResumed
    said = f"{host} answered {status} for {remote.shown}"
    if status in _GATED:
        raise StepFailed(f"{said}: it may not be had by whoever asks", hint=remote.gated)
    if status in _GONE:
        raise StepFailed(f"{said}: it is not there", hint="Mend the model's source.")
    if status == _BUSY:
        later = response.headers.get("Retry-After", "")
        when = f" in {later} s" if later.isdecimal() else " later"
        raise StepFailed(f"{said}: too many requests", hint=f"Try again{when}; what has come is kept.")
    raise StepFailed(said, hint="Try again later, or name another source; what has come is kept.")


def _length(response: requests.Response) -> int | None:
    length = response.headers.get("Content-Length", "")
    return int(length) if length.isdecimal() else None
