"""The command line as processes of its own, and a tiny engine for the process runtime."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import hal0
from hal0.host.process_child import Folders

REPO = Path(hal0.__file__).parents[1]
DEADLINE = 60.0
ENGINE = """
import http.server, os, sys

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    do_POST = do_GET

    def log_message(self, *_):
        pass

print("engine", os.getpid(), *sys.argv[2:], flush=True)
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""
MODEL = "kind: Model\nname: m\npath: m.gguf\n"


@dataclass
class Place:
    """A folder that holds everything of one hal0: manifests, state, sockets."""

    folder: Path

    def __post_init__(self) -> None:
        self.root.mkdir(parents=True)
        (self.folder / "state" / "models").mkdir(parents=True)
        (self.folder / "state" / "models" / "m.gguf").touch()
        (self.folder / "engine.py").write_text(ENGINE)

    @property
    def root(self) -> Path:
        return self.folder / "manifests"

    @property
    def env(self) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("HAL0_", "XDG_", "NOTIFY_"))}
        paths = {"HAL0_STATE": str(self.folder / "state"), "HAL0_RUN": str(self.folder / "run")}
        return kept | paths | {"PYTHONPATH": str(REPO), "PYTHONWARNINGS": "error", "COLUMNS": "200"}

    def put(self, file: str, text: str) -> Path:
        """Write a manifest as a careful editor does."""
        new = self.folder / "new"
        new.write_text(text)
        return new.rename(self.root / file)

    def put_slots(self, *names: str, **settings: object) -> None:
        """Declare slots that the tiny engine serves."""
        command = json.dumps([sys.executable, "-S", str(self.folder / "engine.py")])
        self.put("m.yaml", MODEL)
        self.put(
            "p.yaml", f'kind: Profile\nname: tiny\nengine: custom\ncommand: {command}\nargs: ["{{port}}", "{{name}}"]\n'
        )
        for name in names:
            self.put(f"{name}.yaml", slot(name, **settings))

    def hal0(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run one command to its end."""
        argv = [sys.executable, "-m", "hal0.cli", *words]
        return subprocess.run(
            argv, capture_output=True, text=True, env=self.env, timeout=DEADLINE, cwd=self.folder, check=False
        )

    def json(self, *words: str) -> Any:
        done = self.hal0(*words, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    @contextmanager
    def serving(self, *, listen: bool = True) -> Iterator[subprocess.Popen[str]]:
        """Run the daemon, and end it and its engines whatever happens."""
        argv = [sys.executable, "-m", "hal0.cli", "serve", str(self.root), "--runtime", "process"]
        argv += ["--listen", f"127.0.0.1:{free_port()}"] if listen else []
        with (self.folder / "log").open("a") as log:
            daemon = subprocess.Popen(argv, env=self.env, stderr=log, text=True, cwd=self.folder)
        try:
            yield daemon
        finally:
            if daemon.poll() is None:
                daemon.send_signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                daemon.wait(DEADLINE)
            daemon.kill()
            daemon.wait()

    def log(self) -> str:
        return (self.folder / "log").read_text()

    def ask(self, path: str) -> Any:
        """Ask the daemon without the cost of a command."""
        with socket.socket(socket.AF_UNIX) as connection, connection.makefile("rb") as answer:
            connection.settimeout(DEADLINE)
            connection.connect(str(self.folder / "run" / "hal0.sock"))
            connection.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())
            return json.loads(answer.read().partition(b"\r\n\r\n")[2])

    def states(self) -> dict[str, str]:
        """Return the slots' states as the daemon tells them."""
        return {slot["name"]: slot["state"] for slot in self.ask("/api/slots")["slots"]}

    def until(self, what: Callable[[], object]) -> None:
        end = time.monotonic() + DEADLINE
        while not what():
            if time.monotonic() > end:
                pytest.fail(f"never came true; the daemon's log:\n{self.log()}")
            time.sleep(0.05)

    def until_ready(self, *names: str) -> None:
        self.until((self.folder / "run" / "hal0.sock").exists)
        self.until(lambda: self.states() == dict.fromkeys(names, "ready"))

    def running(self) -> list[int]:
        """Return the pids of all engines of this place that run now, whoever started them."""
        script = str(self.folder / "engine.py").encode()
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with suppress(OSError):
                found += [int(path.parent.name)] if script in path.read_bytes().split(b"\0") else []
        return found

    def engines(self, name: str) -> list[int]:
        """Return the pids of a slot's engines, oldest first."""
        log = Folders(self.folder / "state").log(name)
        lines = log.read_text().splitlines() if log.exists() else []
        return [int(line.split()[1]) for line in lines if line.startswith("engine ")]


def slot(name: str, **settings: object) -> str:
    extra = "".join(f"{key}: {value}\n" for key, value in settings.items())
    return f"kind: Slot\nname: {name}\nmodel: m\nprofile: tiny\nport: {free_port()}\n{extra}"


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
        return port


def lives(pid: int) -> bool:
    """Return whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "here")
