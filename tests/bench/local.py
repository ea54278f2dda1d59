"""A daemon with the process runtime, on this machine, for as long as a measurement takes."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from bench.measure import Skipped

HAL0 = Path(sys.prefix, "bin", "hal0")
_DEADLINE_S = 60.0
_POLL_S = 0.02


@dataclass(frozen=True)
class Daemon:
    """A running daemon. ``env`` makes the hal0 command talk to it, ``port`` serves /v1."""

    env: Mapping[str, str]
    port: int
    pid: int


def environment(**more: str) -> dict[str, str]:
    """Return this environment without what would make a start slower than a user's."""
    left_out = {"PYTHONDONTWRITEBYTECODE", "PYTHONPATH"}
    kept = {key: value for key, value in os.environ.items() if key not in left_out and not key.startswith("HAL0_")}
    return kept | more


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


@contextmanager
def daemon(manifests: Mapping[str, str]) -> Iterator[Daemon]:
    """Serve some manifests; at the end the daemon stops its slots and itself."""
    if not HAL0.exists():
        raise Skipped(f"hal0 is not installed beside this Python: no {HAL0}")
    with tempfile.TemporaryDirectory(prefix="hal0-bench-") as name:
        root, port = Path(name, "manifests"), free_port()
        root.mkdir()
        for file, text in manifests.items():
            (root / file).write_text(text)
        (Path(name) / "m.gguf").write_bytes(b"GGUF")
        env = environment(HAL0_STATE=f"{name}/state", HAL0_RUN=f"{name}/run", HAL0_MODELS=name)
        argv = [str(HAL0), "serve", str(root), "--runtime", "process", "--listen", f"127.0.0.1:{port}"]
        with server(argv, port, env, Path(name, "log")) as pid:
            yield Daemon(env, port, pid)


@contextmanager
def server(argv: Sequence[str], port: int, env: Mapping[str, str], log: Path) -> Iterator[int]:
    """Run a program until it is no longer wanted; its pid is given as soon as it listens."""
    with log.open("w") as out:
        child = subprocess.Popen(argv, env=dict(env), stdin=subprocess.DEVNULL, stdout=out, stderr=out)
    try:
        _await_port(port, child, f"{argv[0]} does not serve", log)
        yield child.pid
    finally:
        child.send_signal(signal.SIGTERM)
        try:
            with suppress(subprocess.TimeoutExpired):
                child.wait(_DEADLINE_S)
        finally:
            child.kill()
            child.wait()


def _await_port(port: int, child: subprocess.Popen[bytes], complaint: str, log: Path) -> None:
    deadline = time.monotonic() + _DEADLINE_S
    while time.monotonic() < deadline and child.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(_POLL_S)
    raise RuntimeError(f"{complaint}:\n{log.read_text()}")
