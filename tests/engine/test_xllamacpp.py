from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import hal0

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.embedded

REPO = Path(hal0.__file__).parents[1]
DEADLINE = 120


@dataclass
class Engine:
    process: subprocess.Popen[bytes]
    port: int
    log: Path

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def get(self, path: str) -> Any:
        return urllib.request.urlopen(self.url(path), timeout=DEADLINE)  # noqa: S310  (loopback)

    def health(self) -> int:
        try:
            with self.get("/health") as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            with error:
                return int(error.code)
        except OSError:
            return 0

    def sleeps(self) -> bool:
        with self.get("/props") as answer:
            return bool(json.load(answer)["is_sleeping"])

    def seen_until_ready(self) -> set[int]:
        seen = set()
        end = time.monotonic() + DEADLINE
        while time.monotonic() < end and self.process.poll() is None:
            seen.add(self.health())
            if 200 in seen:
                return seen
            time.sleep(0.02)
        pytest.fail(f"not ready; its log says:\n{self.log.read_text()}")

    def until_logged(self, text: str) -> None:
        """Wait for a line that is written a moment after the port answers."""
        end = time.monotonic() + DEADLINE
        while text not in self.log.read_text():
            assert time.monotonic() < end, f"never logged {text!r}:\n{self.log.read_text()}"
            time.sleep(0.02)

    def post(self, path: str, **body: object) -> Any:
        request = urllib.request.Request(  # noqa: S310  (loopback)
            self.url(path), json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        return urllib.request.urlopen(request, timeout=DEADLINE)  # noqa: S310


def spawn(log: Path, *argv: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "hal0.engine.xllamacpp", *argv]
    with log.open("ab") as file:
        return subprocess.Popen(command, cwd=REPO, stdout=subprocess.DEVNULL, stderr=file)


@contextmanager
def running(tmp_path: Path, model: Path, *argv: str) -> Iterator[Engine]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    log = tmp_path / "engine.log"
    process = spawn(log, "--model", str(model), "--port", str(port), "--ctx-size", "512", "--alias", "smol", *argv)
    try:
        yield Engine(process, port, log)
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory, model_path: Path) -> Iterator[Engine]:
    with running(tmp_path_factory.mktemp("engine"), model_path, "--metrics") as engine:
        engine.seen_until_ready()
        yield engine


def test_health_is_503_until_the_model_is_loaded(tmp_path: Path, model_path: Path) -> None:
    with running(tmp_path, model_path) as engine:
        assert engine.seen_until_ready() <= {0, 503, 200}
        engine.until_logged(f"ready on http://127.0.0.1:{engine.port}")


def test_a_chat_completion(engine: Engine) -> None:
    messages = [{"role": "user", "content": "Say hello."}]
    with engine.post("/v1/chat/completions", messages=messages, max_tokens=4) as answer:
        body = json.load(answer)
    assert body["model"] == "smol"
    assert body["usage"]["completion_tokens"] >= 1
    assert body["timings"]["predicted_n"] >= 1


def test_a_streamed_chat_completion(engine: Engine) -> None:
    messages = [{"role": "user", "content": "Say hello."}]
    with engine.post("/v1/chat/completions", messages=messages, max_tokens=4, stream=True) as answer:
        events = [line[6:].strip() for line in answer if line.startswith(b"data: ")]
    assert events[-1] == b"[DONE]"
    assert any(json.loads(event)["choices"][0]["delta"].get("content") for event in events[:-1])


def test_metrics_and_the_models_name(engine: Engine) -> None:
    with engine.get("/metrics") as answer:
        assert b"llamacpp:requests_processing" in answer.read()
    with engine.get("/v1/models") as answer:
        assert json.load(answer)["data"][0]["id"] == "smol"


def test_embeddings(tmp_path: Path, model_path: Path) -> None:
    with running(tmp_path, model_path, "--embedding", "--pooling", "mean") as engine:
        engine.seen_until_ready()
        with engine.post("/v1/embeddings", input="hello") as answer:
            assert len(json.load(answer)["data"][0]["embedding"]) == 576


def test_an_engine_that_sleeps_is_not_woken_by_probes_and_answers_the_next_request(
    tmp_path: Path, model_path: Path
) -> None:
    with running(tmp_path, model_path, "--sleep-idle-seconds", "1") as engine:
        engine.seen_until_ready()
        end = time.monotonic() + DEADLINE
        while not engine.sleeps():
            assert engine.health() == 200
            assert time.monotonic() < end, engine.log.read_text()
        assert [engine.health() for _ in range(20)] == [200] * 20
        assert engine.sleeps()
        with engine.post("/v1/chat/completions", messages=[{"role": "user", "content": "Hi"}], max_tokens=2) as answer:
            assert json.load(answer)["choices"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_signal_ends_it_while_loading(tmp_path: Path, model_path: Path, number: int) -> None:
    with running(tmp_path, model_path) as engine:
        while engine.health() == 0 and engine.process.poll() is None:
            time.sleep(0.005)
        engine.process.send_signal(number)
        assert engine.process.wait(DEADLINE) == -number


def test_sigterm_ends_it_while_a_stream_is_open(tmp_path: Path, model_path: Path) -> None:
    with running(tmp_path, model_path) as engine:
        engine.seen_until_ready()
        with engine.post("/completion", prompt="One, two,", n_predict=400, stream=True, ignore_eos=True) as answer:
            answer.readline()
            engine.process.send_signal(signal.SIGTERM)
            assert engine.process.wait(DEADLINE) == -signal.SIGTERM


def test_a_truncated_model_is_said_in_one_line(tmp_path: Path, model_path: Path) -> None:
    path = tmp_path / "cut.gguf"
    with model_path.open("rb") as file:
        path.write_bytes(file.read(20_000_000))
    log = tmp_path / "log"
    assert spawn(log, "--model", str(path), "--port", "0").wait(DEADLINE) == 1
    assert f"error: can't load {path}" in log.read_text().splitlines()[-1]
    assert "Traceback" not in log.read_text()


def test_a_missing_model_is_said_in_one_line(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert spawn(log, "--model", str(tmp_path / "no.gguf")).wait(DEADLINE) == 1
    assert log.read_text().count("\n") == 1
    assert "can't read the model" in log.read_text()
