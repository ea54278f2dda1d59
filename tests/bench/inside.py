"""Runs inside the box, where the clock of the events is: does something to a slot, or runs hal0, and says when.

``inside.py time ROUNDS COMMAND...``, ``inside.py kill SLOT``, ``inside.py save FILE SLOT < TEXT`` or
``inside.py answer PORT MODEL [COMMAND...]``; prints JSON.
"""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Any

DEADLINE_S = 60.0
ANSWER_DEADLINE_S = 240.0
POLL_S = 0.25
ASK_POLL_S = 0.01
QUESTION = {"messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 1, "stream": True}


def main(verb: str, *words: str) -> object:
    """Do what is asked and return the figures."""
    if verb == "time":
        return timed(int(words[0]), words[1:])
    if verb == "answer":
        return answered(int(words[0]), words[1], words[2:])
    return killed(words[0]) if verb == "kill" else saved(Path(words[0]), words[1])


def timed(rounds: int, argv: tuple[str, ...]) -> list[list[float]]:
    """Run a command some times, the first of which does not count; return wall and CPU seconds of each."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from bench.measure import spend

    spent = [spend(argv) for _ in range(rounds + 1)][1:]
    return [[one.wall, one.cpu] for one in spent]


def killed(slot: str) -> dict[str, float]:
    """Kill a slot's container; return the seconds until that was seen, until another ran, and until it was ready."""
    begun = time.time()
    subprocess.run(["podman", "kill", f"hal0-slot-{slot}"], check=True, capture_output=True)
    gone = time.time()
    moves = awaited(slot, begun)
    seen = min(move["at"] for move in moves)
    ready = min(move["at"] for move in moves if move["after"] == "ready")
    started = container_start(slot)
    return {"command": gone - begun, "noticed": seen - begun, "running": started - begun, "ready": ready - begun}


def saved(manifest: Path, slot: str) -> dict[str, float]:
    """Put a manifest in place; return the seconds until hal0 began to carry it out, and until the slot was ready."""
    beside = manifest.with_name(f".{manifest.name}")
    beside.write_text(sys.stdin.read())
    begun = time.time()
    beside.rename(manifest)
    moves = awaited(slot, begun)
    acted = min(act["at"] for act in look(slot)["acts"] if act["at"] > begun)
    ready = min(move["at"] for move in moves if move["after"] == "ready")
    return {"planned": acted - begun, "ready": ready - begun}


def answered(port: int, model: str, command: tuple[str, ...]) -> dict[str, float]:
    """Do something, then ask until there is a whole answer; return the seconds until its first byte.

    ``failed`` is how many requests came to nothing before it.
    """
    failed, begun = 0, time.monotonic()
    if command:
        subprocess.run(command, check=True, capture_output=True)
    while (first := first_byte(port, model)) is None:
        failed += 1
        if time.monotonic() - begun > ANSWER_DEADLINE_S:
            raise SystemExit(f"{model} on port {port} does not answer in {ANSWER_DEADLINE_S} s")
        time.sleep(ASK_POLL_S)
    return {"seconds": first - begun, "failed": failed}


def first_byte(port: int, model: str) -> float | None:
    """Ask once, streamed, and return when the first byte came; None where the answer is not whole."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=ANSWER_DEADLINE_S)
    try:
        body = json.dumps({"model": model, **QUESTION})
        connection.request("POST", "/v1/chat/completions", body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        beginning, first = answer.read(1), time.monotonic()
        is_whole = (beginning + answer.read()).endswith(b"data: [DONE]\n\n")
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
    return first if is_whole else None


def awaited(slot: str, begun: float) -> list[dict[str, Any]]:
    """Return a slot's transitions since a time, newest first, once the last of them is that to ready.

    The pause between two looks keeps them from taking the daemon's time.
    """
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        time.sleep(POLL_S)
        moves = [move for move in look(slot)["transitions"] if move["at"] > begun]
        if moves and moves[0]["after"] == "ready":
            return moves
    raise SystemExit(f"{slot} is not ready again in {DEADLINE_S} s:\n{json.dumps(look(slot), indent=1)}")


def look(slot: str) -> dict[str, Any]:
    """Return what the daemon knows of a slot."""
    from hal0.cli import client

    found: dict[str, Any] = client.get("system", f"/api/slots/{slot}")
    return found


def container_start(slot: str) -> float:
    """Return when a slot's container was started, in seconds since the epoch."""
    inspect = ["podman", "inspect", f"hal0-slot-{slot}"]
    text = json.loads(subprocess.run(inspect, check=True, capture_output=True).stdout)[0]["State"]["StartedAt"]
    return datetime.fromisoformat(text).timestamp()


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
