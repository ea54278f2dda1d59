from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator

import pytest

from .conftest import DEADLINE, Place, free_port

pytestmark = pytest.mark.daemon


@pytest.fixture
def up(place: Place) -> Iterator[Place]:
    place.put_slots("chat")
    with place.serving():
        place.until_ready("chat")
        yield place


def answered(place: Place, answer: str, *words: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "hal0.cli", *words]
    return subprocess.run(
        argv, input=answer, capture_output=True, text=True, env=place.env, timeout=DEADLINE, check=False
    )


def test_a_slot_is_created_edited_and_deleted(up: Place) -> None:
    port = free_port()
    made = up.hal0(
        "slot", "create", "embed", "--type", "embedding", "--model", "m", "--profile", "tiny", "--port", str(port)
    )
    assert (made.returncode, made.stderr) == (0, "")
    assert made.stdout == f"slot embed: created in {up.root}/embed.toml\ntakes effect when it next starts\n"
    assert up.states()["embed"] == "offline"
    edited = up.json("slot", "edit", "embed", "--ctx-size", "512", "--port", "0")
    assert edited["changes"] == [
        {"key": "port", "before": port, "after": None},
        {"key": "context_size", "before": None, "after": 512},
    ]
    again = up.hal0("slot", "edit", "embed", "--ctx-size", "512")
    assert again.stdout == f"slot embed: {up.root}/embed.toml says so already\n"
    deleted = up.hal0("slot", "delete", "embed", "--force")
    assert deleted.returncode == 0
    assert deleted.stdout.endswith("takes effect now: it is removed\n")
    assert up.states() == {"chat": "ready"}
    assert not (up.root / "embed.toml").exists()


def test_a_deletion_asks_and_the_only_slot_goes_when_it_is_meant(up: Place) -> None:
    for answer in ("n\n", ""):
        kept = answered(up, answer, "slot", "delete", "chat")
        assert kept.returncode == 1
        assert "Traceback" not in kept.stderr
    assert up.states() == {"chat": "ready"}
    assert answered(up, "y\n", "slot", "delete", "chat").returncode == 0
    assert up.states() == {}
    assert up.running() == []


def test_what_does_not_fit_is_told_with_what_to_do(up: Place) -> None:
    nothing = up.hal0("slot", "edit", "chat")
    assert nothing.returncode == 1
    assert "at least one of --model, --port, --ctx-size, --provider, --hardware" in nothing.stderr
    unknown = up.hal0("slot", "edit", "chat", "--model", "mm")
    assert unknown.returncode == 1
    assert "no Model 'mm' (did you mean 'm'?)" in unknown.stderr
    assert up.hal0("slot", "edit", "caht", "--port", "9").returncode == 1


def test_without_a_daemon_the_process_runtime_is_told_what_to_run(place: Place) -> None:
    place.put_slots("chat")
    done = place.hal0("slot", "edit", "chat", "--port", "9000", "--runtime", "process", "--scope", "user")
    assert done.returncode == 1
    assert "hal0 serve" in done.stderr
    assert "9000" not in (place.root / "chat.yaml").read_text()


def test_the_log_of_a_slot_without_lines_is_empty_in_json_too(place: Place) -> None:
    done = place.hal0("slot", "logs", "chat", "--json", "--runtime", "process")
    assert (done.returncode, json.loads(done.stdout)["lines"]) == (0, [])
    assert done.stderr.startswith("hint: no lines of chat")
