"""The daemon, as the command line talks to it: HTTP over its unix socket, with nothing but the standard library."""

from __future__ import annotations

import http.client
import json
import os
import socket
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hal0.errors import Hal0Error, HostUnreachable
from hal0.host.scope import Scope
from hal0.host.sockets import listens, short_path

_DEADLINE = 30.0


class DaemonError(Hal0Error):
    """The daemon answered no."""

    def __init__(self, message: str, *, hint: str = "", exit_code: int = 1) -> None:
        super().__init__(message, hint=hint)
        self.exit_code = exit_code


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float | None) -> None:
        super().__init__("hal0", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def place(scope: str | None) -> Scope:
    """Return the scope of a name; without one, the system's for root and the user's own for anyone else."""
    return Scope.of(scope or ("system" if os.getuid() == 0 else "user"))


def socket_path(scope: str | None) -> Path:
    """Return where the daemon of a scope listens."""
    return place(scope).run_dir / "hal0.sock"


def is_running(scope: str | None) -> bool:
    """Return whether a daemon answers."""
    path = socket_path(scope)
    try:
        return listens(path)
    except OSError as error:
        hint = "run this as the daemon's user" if isinstance(error, PermissionError) else ""
        raise HostUnreachable(f"can't reach the daemon at {path}: {error.strerror}", hint=hint) from error


def get(scope: str | None, path: str, *, timeout: float = _DEADLINE) -> Any:
    """Return the JSON that the daemon answers."""
    with _answer(scope, "GET", path, None, timeout) as answer:
        return json.load(answer)


def lines(
    scope: str | None, method: str, path: str, body: dict[str, Any] | None = None, *, timeout: float | None = None
) -> Generator[str]:
    """Yield the lines of a streamed answer as they come; being closed, as by an interrupt, cuts it."""
    with _answer(scope, method, path, body, timeout) as answer:
        while line := answer.readline():
            yield line.decode().rstrip("\n")


@contextmanager
def _answer(
    scope: str | None, method: str, path: str, body: dict[str, Any] | None, timeout: float | None
) -> Iterator[http.client.HTTPResponse]:
    with short_path(socket_path(scope)) as name:
        connection = _Connection(name, timeout)
        try:
            connection.request(method, path, body=json.dumps(body) if body is not None else None)
            answer = connection.getresponse()
            if answer.status != http.HTTPStatus.OK:
                raise _refusal(answer)
            yield answer
        except (OSError, http.client.HTTPException) as error:
            raise HostUnreachable(
                f"the daemon went away: {error}", hint="see its log: hal0-api.service in the journal"
            ) from error
        finally:
            connection.close()


def _refusal(answer: http.client.HTTPResponse) -> DaemonError:
    try:
        message = json.load(answer)["error"]["message"]
    except (ValueError, KeyError, TypeError):
        message = f"the daemon answered {answer.status}"
    return DaemonError(message, exit_code=4 if answer.status >= 500 else 1)  # noqa: PLR2004  (5xx)
