"""What `make run` gives: the quickstart's manifests, the embedded engine and a real model, from file to answer."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from embedded.daemon import Daemon, free_port, serving

pytestmark = pytest.mark.embedded
REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def daemon(tmp_path: Path, model_path: Path) -> Iterator[Daemon]:
    shutil.copytree(REPOSITORY / "manifests" / "quickstart", tmp_path / "manifests")
    port, slot = free_port(), free_port()
    host = f'kind = "Host"\nlisten = "127.0.0.1:{port}"\nslot_ports = "{slot}-{slot}"\n'
    (tmp_path / "manifests" / "host.toml").write_text(host)
    with serving(Daemon(tmp_path, model_path, port)) as found:
        yield found


def ask(daemon: Daemon) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{daemon.url}/v1", api_key="local", max_retries=0)


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


def test_an_engine_that_hangs_is_proved_to_and_started_again(daemon: Daemon) -> None:
    pid = daemon.until_ready()["service"]["pid"]
    os.kill(pid, signal.SIGSTOP)
    daemon.until("another engine", lambda: daemon.slot()["ready"] and daemon.slot()["service"]["pid"] != pid)
    (act,) = [act for act in daemon.slot()["acts"] if act["drift"]]
    assert act["why"] == "engine: does not answer -> running"
    assert not is_alive(pid)
    with ask(daemon) as client:
        assert client.completions.create(model="chat", prompt="One, two,", max_tokens=4).choices[0].text


def test_a_crash_of_hal0_leaves_the_engine_to_the_next_one(daemon: Daemon) -> None:
    pid = daemon.until_ready()["service"]["pid"]
    daemon.end(signal.SIGKILL)
    assert is_alive(pid)
    daemon.start()
    assert daemon.until_ready()["service"]["pid"] == pid
    daemon.end(signal.SIGTERM)
    assert not is_alive(pid)


def test_an_edit_is_applied_and_a_broken_one_stops_nothing(daemon: Daemon) -> None:
    pid = daemon.until_ready()["service"]["pid"]
    manifest = daemon.manifests / "chat.toml"
    good = manifest.read_text()
    manifest.write_text(good.replace("context_size", "context_sise"))
    daemon.until("the error", lambda: daemon.fetch_locally("/api/status").json["problems"])
    assert "did you mean 'context_size'?" in daemon.hal0("status")
    assert daemon.slot()["service"]["pid"] == pid
    manifest.write_text(good.replace("4096", "1024"))
    daemon.until("another engine", lambda: "1024" in (daemon.slot()["instance"] or {"command": []})["command"])
    daemon.until_ready()
