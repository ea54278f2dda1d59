"""Clients of /v1 in the box that ask one thing after the other, and what becomes of each request."""

from __future__ import annotations

import json
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, Self

from .host import DEADLINE_S

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .host import Host

CLIENTS = 8
# Half of the clients stream, and of each kind half keep their connection. The end of stdin ends them.
_ASK_ON = """
import http.client, json, sys, threading, time

def asked(streams):
    question = [{"role": "user", "content": "Say hello."}]
    return json.dumps({"model": "chat", "messages": question, "max_tokens": 4, "stream": streams})

def is_whole(body, streams):
    if streams:
        return body.endswith(b"data: [DONE]\\n\\n") and b'data: {"error"' not in body
    return bool(json.loads(body).get("choices"))

def ask(connection, streams):
    found = {"began": time.monotonic(), "streams": streams, "status": 0, "whole": False}
    try:
        connection.request("POST", "/v1/chat/completions", asked(streams), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        found["status"] = answer.status
        body = answer.read()
        found["whole"] = is_whole(body, streams)
        found["end"] = body[-400:].decode()
    except Exception as error:
        found["error"] = repr(error)
        connection.close()
    found["ended"] = time.monotonic()
    return found

def ask_on(number, ended):
    streams, keeps = number % 2 == 1, number % 4 < 2
    connection = http.client.HTTPConnection("127.0.0.1", 8080, timeout=90)
    while not ended.is_set():
        found = ask(connection, streams)
        with printing:
            print(json.dumps(found), flush=True)
        if not (keeps and found["whole"]):
            connection.close()
        ended.wait(0.1)

printing, ended = threading.Lock(), threading.Event()
clients = [threading.Thread(target=ask_on, args=(number, ended)) for number in range(int(sys.argv[1]))]
for client in clients:
    client.start()
sys.stdin.readline()
ended.set()
for client in clients:
    client.join()
"""


class Load:
    """Clients that ask one thing after the other for as long as the context lasts, and what became of each."""

    def __init__(self, host: Host) -> None:
        self.answers: list[dict[str, Any]] = []
        self._host = host

    def __enter__(self) -> Self:
        self._clients = self._host.shell.popen(sys.executable, "-c", _ASK_ON, str(CLIENTS))
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.go_on()
        return self

    def __exit__(self, *_: object) -> None:
        assert self._clients.stdin
        self._clients.stdin.close()
        self._clients.wait(DEADLINE_S)
        self._reader.join(DEADLINE_S)

    def _read(self) -> None:
        assert self._clients.stdout
        self.answers.extend(map(json.loads, self._clients.stdout))

    def since(self, moment: float) -> list[dict[str, Any]]:
        """Return what became of the requests that began after a moment of the monotonic clock."""
        return [answer for answer in self.answers if answer["began"] > moment]

    def go_on(self) -> None:
        """Wait for answers to requests that began after this."""
        now = time.monotonic()
        self._host.until("further answers", lambda: len(self.since(now)) >= 2 * CLIENTS)


def lost(answers: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the requests without a whole answer."""
    return [answer for answer in answers if answer["status"] != 200 or not answer["whole"]]


def code(answer: dict[str, Any]) -> str:
    """Return the code of the error that a client read at the end of an answer; empty where it read none."""
    _, _, said = answer.get("end", "").rpartition('{"error": ')
    return str(json.JSONDecoder().raw_decode(said)[0]["code"]) if said else ""
