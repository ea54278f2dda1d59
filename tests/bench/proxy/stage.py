"""An engine, hal0 and nginx in front of it, each on its core, for as long as a measurement takes."""

from __future__ import annotations

import http.client
import json
import os
import signal
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

from bench.local import daemon, environment, free_port, server
from bench.measure import Skipped
from bench.proxy import bodies, processes
from bench.proxy.tools import Tools, make

CHAT = "/v1/chat/completions"
_DEADLINE_S = 60.0
_POLL_S = 0.05
_SETTLE_S = 0.1
_NGINX = Path(__file__).with_name("nginx.conf.in")


@dataclass(frozen=True)
class Kit:
    """What every stage needs. The client and the engine share one core, what is measured has the other."""

    tools: Tools
    folder: Path
    load_core: int
    proxy_core: int


@dataclass(frozen=True)
class Way:
    """A way to the engine. ``root`` is the process that serves it; the engine itself has none but itself."""

    name: str
    port: int
    engine: int
    root: int | None = None

    @property
    def pids(self) -> tuple[int, ...]:
        """What is measured: everything that descends from the root, but the engine."""
        return tuple(pid for pid in processes.tree(self.root) if pid != self.engine) if self.root else ()


@dataclass(frozen=True)
class Stage:
    """A running set of ways to one engine."""

    kit: Kit
    direct: Way
    hal0: Way
    nginx: Way | None = None

    @property
    def ways(self) -> tuple[Way, ...]:
        """Return all ways, the limit first."""
        return (self.direct, self.nginx, self.hal0) if self.nginx else (self.direct, self.hal0)

    @contextmanager
    def alone(self, way: Way) -> Iterator[None]:
        """Freeze every other way, so that it costs nothing."""
        frozen = [pid for other in self.ways if other is not way for pid in other.pids]
        try:
            processes.send(frozen, signal.SIGSTOP)
            time.sleep(_SETTLE_S)
            yield
        finally:
            processes.send(frozen, signal.SIGCONT)


@contextmanager
def kit() -> Iterator[Kit]:
    """Make the tools in a folder of their own, and keep this process off the measured core."""
    cores = sorted(os.sched_getaffinity(0))
    if not cores[1:]:
        raise Skipped("one core for the load and one for what is measured: this machine gives one")
    with tempfile.TemporaryDirectory(prefix="hal0-bench-") as name:
        folder = Path(name).resolve()
        bodies.write(folder)
        tools = make(folder)
        with processes.on_core(cores[0]):
            yield Kit(tools, folder, cores[0], cores[1])


@contextmanager
def stage(
    kit: Kit, *, beside_nginx: bool, env: Mapping[str, str] | None = None, model: Path | None = None
) -> Iterator[Stage]:
    """Serve one slot whose engine is the mock, with ``env`` for it; or hal0's own engine, with a real ``model``."""
    port = free_port()
    manifest = _manifest(kit.tools.mock, port, env or {}) if model is None else _real_manifest(model, port)
    with _no_engine_left(kit), daemon({"one.yaml": manifest}) as running:
        _await_answer(running.port)
        (engine,) = processes.running(kit.tools.mock) if model is None else processes.tree(running.pid)[1:]
        hal0 = Way("hal0", running.port, engine, running.pid)
        direct = Way("the engine itself", port, engine)
        processes.move(hal0.pids, kit.proxy_core)
        processes.move((engine,), kit.load_core)
        if not beside_nginx:
            yield Stage(kit, direct, hal0)
            return
        with _nginx(kit, direct) as nginx:
            yield Stage(kit, direct, hal0, nginx)


@contextmanager
def _nginx(kit: Kit, direct: Way) -> Iterator[Way]:
    port, config = free_port(), kit.folder / "nginx.conf"
    config.write_text(_NGINX.read_text().replace("@PORT@", str(port)).replace("@ENGINE@", str(direct.port)))
    argv = [str(kit.tools.nginx), "-p", str(kit.folder), "-e", "stderr", "-c", str(config)]
    with server(argv, port, environment(), kit.folder / "nginx.log") as pid:
        processes.move((pid,), kit.proxy_core)
        yield Way("nginx", port, direct.engine, pid)


@contextmanager
def _no_engine_left(kit: Kit) -> Iterator[None]:
    """hal0 stops its engine; one that had to be killed leaves it behind."""
    try:
        yield
    finally:
        processes.send(processes.running(kit.tools.mock), signal.SIGKILL)


def _manifest(mock: Path, port: int, env: Mapping[str, str]) -> str:
    command = json.dumps([str(mock), "{port}"])
    profile = f"kind: Profile\nname: mock\nengine: custom\ncommand: {command}\nenv: {json.dumps(dict(env))}\n"
    slot = f"kind: Slot\nname: {bodies.MODEL}\nmodel: m\nprofile: mock\nport: {port}\n"
    return f"kind: Model\nname: m\npath: m.gguf\n---\n{profile}---\n{slot}"


def _real_manifest(model: Path, port: int) -> str:
    slot = f"kind: Slot\nname: {bodies.MODEL}\nmodel: m\nport: {port}\ncontext_size: 1024\n"
    return f"kind: Model\nname: m\npath: {model.resolve()}\n---\n{slot}"


def _await_answer(port: int) -> None:
    deadline, status = time.monotonic() + _DEADLINE_S, 0
    while status != HTTPStatus.OK:
        if time.monotonic() > deadline:
            raise RuntimeError(f"hal0 does not serve the slot: status {status}")
        time.sleep(_POLL_S)
        with suppress(OSError, http.client.HTTPException):
            status = _ask(port)


def _ask(port: int) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_DEADLINE_S)
    try:
        connection.request("POST", CHAT, json.dumps(bodies.HELLO), {"Content-Type": "application/json"})
        return connection.getresponse().status
    finally:
        connection.close()
