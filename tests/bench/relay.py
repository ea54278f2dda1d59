"""What passing through hal0 costs a request: one connection, a tiny engine, both ways in turn."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path

from bench.local import daemon, free_port
from bench.measure import Row, ratios

_BLOCKS = 15
_REQUESTS = 100
_DEADLINE_S = 60.0
_POLL_S = 0.1
_ENGINE = Path(__file__).with_name("engine.py")
_BODY = json.dumps(
    {"model": "tiny", "messages": [{"role": "user", "content": "Say hello. " * 20}], "max_tokens": 8}
).encode()


def rows() -> Iterator[Row]:
    """Measure requests straight to the engine and through hal0, block by block."""
    engine = free_port()
    manifests = {"tiny.yaml": _manifest(engine)}
    with daemon(manifests) as running:
        _await_answer(running.port)
        direct, through = _Client(engine), _Client(running.port)
        blocks = [(direct.block(), through.block()) for _ in range(_BLOCKS + 1)][1:]
    near, far = [one for one, _ in blocks], [other for _, other in blocks]
    yield Row("a request straight to the engine", "ms", tuple(near), note=f"means of {_REQUESTS}")
    yield Row("the same through hal0", "ms", tuple(far), note=f"means of {_REQUESTS}")
    yield Row("hal0 adds to a request", "ms", tuple(b - a for a, b in blocks))
    yield Row("through hal0 / straight", "x", ratios(far, near))


def _manifest(port: int) -> str:
    profile = f'kind: Profile\nname: tiny\nengine: custom\ncommand: ["{{python}}", {_ENGINE}, "{{port}}"]\n'
    slot = f"kind: Slot\nname: tiny\nmodel: m\nprofile: tiny\nport: {port}\n"
    return f"kind: Model\nname: m\npath: m.gguf\n---\n{profile}---\n{slot}"


class _Client:
    """One kept connection."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_DEADLINE_S)

    def ask(self) -> int:
        self._connection.request("POST", "/v1/chat/completions", _BODY, {"Content-Type": "application/json"})
        answer = self._connection.getresponse()
        answer.read()
        return answer.status

    def block(self) -> float:
        """Return the mean of a block of requests, in milliseconds."""
        begun = time.perf_counter()
        for _ in range(_REQUESTS):
            status = self.ask()
            assert status == HTTPStatus.OK, status
        return (time.perf_counter() - begun) / _REQUESTS * 1e3


def _await_answer(port: int) -> None:
    client, deadline = _Client(port), time.monotonic() + _DEADLINE_S
    while (status := client.ask()) != HTTPStatus.OK:
        if time.monotonic() > deadline:
            raise RuntimeError(f"the tiny engine's slot does not serve: status {status}")
        time.sleep(_POLL_S)
