"""What `make run` gives: the quickstart's manifests, the embedded engine and a real model, from file to answer."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai
import pytest

pytestmark = pytest.mark.embedded
REPOSITORY = Path(__file__).resolve().parents[2]
DEADLINE_S = 60.0


@dataclass
class Daemon:
    """``hal0 serve`` over a copy of the quickstart, on ports of its own."""

    folder: Path
    model: Path
    port: int
    process: subprocess.Popen[bytes] | None = None

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
                [sys.executable, "-m", "hal0.cli", "serve", str(self.folder / "manifests"), "--runtime=process"],
                env=self.environment | {"HAL0_GREET": "1"},
                stdout=log,
                stderr=log,
            )

    def log(self) -> str:
        return (self.folder / "log").read_text()

    def end(self, by: signal.Signals) -> int:
        assert self.process
        self.process.send_signal(by)
        return self.process.wait(DEADLINE_S)

    def hal0(self, *words: str) -> str:
        command = [sys.executable, "-m", "hal0.cli", *words]
        return subprocess.run(
            command, env=self.environment, check=True, capture_output=True, text=True, timeout=DEADLINE_S
        ).stdout

    def slot(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.hal0("slot", "show", "chat", "--json"))
        return found

    def until(self, what: str, found: Callable[[], Any]) -> Any:
        deadline = time.monotonic() + DEADLINE_S
        while time.monotonic() < deadline:
            with contextlib.suppress(subprocess.CalledProcessError):
                if value := found():
                    return value
            time.sleep(0.1)
        raise AssertionError(f"never: {what}\n{self.log()}")

    def until_ready(self) -> dict[str, Any]:
        found: dict[str, Any] = self.until("chat ready", lambda: (slot := self.slot())["ready"] and slot)
        return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture
def daemon(tmp_path: Path, model_path: Path) -> Iterator[Daemon]:
    shutil.copytree(REPOSITORY / "manifests" / "quickstart", tmp_path / "manifests")
    port, slot = free_port(), free_port()
    host = f'kind = "Host"\nlisten = "127.0.0.1:{port}"\nslot_ports = "{slot}-{slot}"\n'
    (tmp_path / "manifests" / "host.toml").write_text(host)
    found = Daemon(tmp_path, model_path, port)
    found.start()
    yield found
    if found.process and found.process.poll() is None:
        found.end(signal.SIGTERM)


def ask(daemon: Daemon) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"http://127.0.0.1:{daemon.port}/v1", api_key="local", max_retries=0)


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]
    except OSError:
        return False
    return state != "Z"


def test_the_quickstart_answers_whole_and_streamed_and_ends_with_ctrl_c(daemon: Daemon) -> None:
    pid = daemon.until_ready()["service"]["pid"]
    question: Any = {"model": "chat", "messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 8}
    with ask(daemon) as client:
        whole = client.chat.completions.create(**question, temperature=0).choices[0].message.content
        stream = client.chat.completions.create(**question, temperature=0, stream=True)
        parts = [chunk.choices[0].delta.content or "" for chunk in stream]
        assert whole
        assert "".join(parts) == whole
        assert len(parts) > 1
        assert client.completions.create(model="gpt-4o-mini", prompt="One, two,", max_tokens=4).choices[0].text
        assert {"chat", "smollm2-135m"} <= {model.id for model in client.models.list()}
    assert "curl http://127.0.0.1" in daemon.log()
    assert daemon.end(signal.SIGINT) == 0
    assert not is_alive(pid)


def test_a_killed_engine_is_started_again(daemon: Daemon) -> None:
    pid = daemon.until_ready()["service"]["pid"]
    os.kill(pid, signal.SIGKILL)
    daemon.until("another engine", lambda: daemon.slot()["ready"] and daemon.slot()["service"]["pid"] != pid)


def test_a_crash_of_hal0_leaves_the_engine_to_the_next_one(daemon: Daemon) -> None:
    pid = daemon.until_ready()["service"]["pid"]
    daemon.end(signal.SIGKILL)
    assert is_alive(pid)
    daemon.start()
    daemon.until("the daemon", lambda: "generation" in daemon.hal0("status"))
    assert daemon.until_ready()["service"]["pid"] == pid
    daemon.end(signal.SIGTERM)
    assert not is_alive(pid)


def test_an_edit_is_applied_and_a_broken_one_stops_nothing(daemon: Daemon) -> None:
    pid = daemon.until_ready()["service"]["pid"]
    manifest = daemon.folder / "manifests" / "chat.toml"
    good = manifest.read_text()
    manifest.write_text(good.replace("context_size", "context_sise"))
    daemon.until("the error", lambda: "did you mean 'context_size'?" in daemon.hal0("status"))
    assert daemon.slot()["service"]["pid"] == pid
    manifest.write_text(good.replace("4096", "1024"))
    daemon.until("another engine", lambda: "1024" in (daemon.slot()["instance"] or {"command": []})["command"])
    daemon.until_ready()
