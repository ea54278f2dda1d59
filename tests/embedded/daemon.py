"""``hal0 serve`` as a process, with the embedded engine behind it, and plain HTTP to ask it with."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hal0.host.sockets import short_path

DEADLINE_S = 120.0
_POLL_S = 0.1
_NOT_YET = (OSError, LookupError, http.client.HTTPException, subprocess.CalledProcessError)


@dataclass(frozen=True)
class Reply:
    """A whole answer; names of headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        found: dict[str, Any] = self.json["error"]
        return found


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("hal0", timeout=DEADLINE_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        with short_path(self._path) as name:
            self.sock.connect(name)


def fetch(
    connection: http.client.HTTPConnection, path: str, body: object = None, headers: Mapping[str, str] | None = None
) -> Reply:
    """GET a path, or POST a body to it as JSON, over a connection that is closed then."""
    with contextlib.closing(connection):
        text = None if body is None else json.dumps(body)
        said = {"Content-Type": "application/json"} if text else {}
        connection.request("POST" if text else "GET", path, text, {**said, **(headers or {})})
        answer = connection.getresponse()
        found = {name.lower(): value for name, value in answer.getheaders()}
        return Reply(answer.status, found, answer.read())


def fetch_from(port: int, path: str, body: object = None, headers: Mapping[str, str] | None = None) -> Reply:
    """The same, from a port of this machine."""
    return fetch(http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE_S), path, body, headers)


@dataclass
class Daemon:
    """A daemon over the manifests of a folder, which holds everything else of it as well."""

    folder: Path
    model: Path
    port: int
    process: subprocess.Popen[bytes] | None = None

    @property
    def manifests(self) -> Path:
        return self.folder / "manifests"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        places = {
            "HAL0_STATE": self.folder / "state",
            "HAL0_RUN": self.folder / "run",
            "HAL0_MODELS": self.model.parent,
        }
        return os.environ | {name: str(path) for name, path in places.items()}

    def start(self) -> None:
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "hal0.cli", "serve", str(self.manifests), "--runtime=process"],
                env=self.environment | {"HAL0_GREET": "1"},
                stdout=log,
                stderr=log,
            )

    def log(self) -> str:
        return (self.folder / "log").read_text()

    def engine_log(self, slot: str) -> str:
        return (self.folder / "state" / "logs" / f"{slot}.log").read_text(errors="replace")

    def end(self, by: signal.Signals) -> int:
        assert self.process
        self.process.send_signal(by)
        return self.process.wait(DEADLINE_S)

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a command of hal0."""
        command = [sys.executable, "-m", "hal0.cli", *words]
        return subprocess.run(
            command, env=self.environment, check=False, capture_output=True, text=True, timeout=DEADLINE_S
        )

    def hal0(self, *words: str) -> str:
        """Run a command of hal0 that does not fail, and return what it printed."""
        done = self.run(*words)
        done.check_returncode()
        return done.stdout

    def fetch(self, path: str, body: object = None, headers: Mapping[str, str] | None = None) -> Reply:
        """Ask on the address for clients."""
        return fetch_from(self.port, path, body, headers)

    def fetch_locally(self, path: str, body: object = None) -> Reply:
        """Ask on the unix socket."""
        return fetch(UnixConnection(self.folder / "run" / "hal0.sock"), path, body)

    def slot(self, name: str = "chat") -> dict[str, Any]:
        """Return a slot in full, without the cost of a command."""
        reply = self.fetch_locally(f"/api/slots/{name}")
        found: dict[str, Any] = reply.json
        if reply.status != http.HTTPStatus.OK:
            raise LookupError(reply.body)
        return found

    def until(self, what: str, found: Callable[[], Any]) -> Any:
        """Return what ``found`` returns once it is true; the log tells why it never was."""
        deadline = time.monotonic() + DEADLINE_S
        while time.monotonic() < deadline:
            with contextlib.suppress(*_NOT_YET):
                if value := found():
                    return value
            time.sleep(_POLL_S)
        raise AssertionError(f"never: {what}\n{self.log()}")

    def until_ready(self, name: str = "chat") -> dict[str, Any]:
        found: dict[str, Any] = self.until(f"{name} ready", lambda: (slot := self.slot(name))["ready"] and slot)
        return found


@contextlib.contextmanager
def serving(daemon: Daemon) -> Iterator[Daemon]:
    """Run a daemon, and end it whatever happens."""
    daemon.start()
    try:
        yield daemon
    finally:
        if daemon.process and daemon.process.poll() is None:
            daemon.end(signal.SIGTERM)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port
