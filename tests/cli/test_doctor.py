"""``hal0 doctor`` as a process: without a daemon, beside one, without a place to write."""

from __future__ import annotations

import json
import os
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from hal0.cli.doctor import card_text

from .conftest import MODEL, Place, free_port

COUNTS = ("ok", "warn", "fail", "unknown")


def card(place: Place, *words: str) -> dict[str, list[dict[str, Any]]]:
    """Return the checks by name; the exit code is held to be what they say."""
    done = place.hal0("doctor", *words, "--json", "--runtime", "process")
    found = json.loads(done.stdout)
    assert (done.returncode, done.stderr) == (3 if found["counts"]["fail"] else 0, "")
    assert sum(found["counts"].values()) == len(found["checks"])
    by_name: dict[str, list[dict[str, Any]]] = {}
    for check in found["checks"]:
        by_name.setdefault(check["name"], []).append(check)
    return by_name


def test_on_a_narrow_terminal_what_was_found_stays_beside_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("NO_COLOR", "1")
    check = {
        "area": "hal0",
        "name": "disk",
        "verdict": "warn",
        "found": "1 GiB of 200 GiB free at /var",
        "mend": "x " * 30,
    }
    card = {"scope": "user", "runtime": "process", "checks": [check], "counts": dict.fromkeys(COUNTS, 0)}
    piped = [*card_text(card)]
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    shown = [*card_text(card)]
    assert shown[3:5] == ["  warn  disk  1 GiB of 200 GiB free at", "              /var"]
    assert shown[5:] == piped[4:]


def files(place: Place) -> list[Path]:
    return sorted(path for path in place.folder.rglob("*") if path.is_file())


def test_a_machine_is_looked_at_without_a_daemon_and_nothing_is_written(place: Place) -> None:
    place.put_slots("chat")
    before = files(place)
    found = card(place, str(place.root))
    assert files(place) == before
    for name in ("systemd", "valid", "ports", "models"):
        assert [check["verdict"] for check in found[name]] == ["ok"], found[name]
    assert found["daemon"][0]["mend"] == "hal0 serve"


def test_what_manifests_lack_on_this_machine_fails_with_what_to_do(place: Place) -> None:
    key = place.put("../key", "s3cret\n")
    key.chmod(0o644)
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        place.put_slots("chat")
        place.put("m.yaml", MODEL.replace("m.gguf", "gone.gguf"))
        place.put("host.yaml", f"kind: Host\nlisten: 127.0.0.1:{taken}\n")
        address = f"http://127.0.0.1:{free_port()}/v1"
        place.put("up.yaml", f"kind: Upstream\nname: cloud\nbase_url: {address}\napi_key: {{file: {key}}}\n")
        done = place.hal0("doctor", str(place.root), "--runtime", "process")
        found = card(place, str(place.root))
    (port,) = found["ports"]
    assert port["found"].startswith(f"hal0's {taken} is taken by ")
    assert port["found"].endswith(f"(pid {os.getpid()})")
    assert found["models"][0]["verdict"] == "fail"
    assert found["models"][0]["found"].endswith("gone.gguf")
    assert found["secrets"][0]["mend"] == f"chmod 600 {key}"
    assert done.returncode == 3
    assert "FAIL  models" in done.stdout
    assert "-> put the file there, or give Model m a source" in done.stdout
    assert "s3cret" not in done.stdout + json.dumps(found)


def test_models_are_whole_and_those_that_hal0_fetches_do_not_fail(place: Place) -> None:
    place.put_slots("chat")
    place.put("m.yaml", MODEL + "mmproj: eyes.gguf\n")
    assert card(place, str(place.root))["models"][0]["found"].endswith("eyes.gguf")
    place.put("m.yaml", "kind: Model\nname: m\nsource: {repo: org/repo, file: far.gguf}\n")
    assert "it is fetched when the slot needs it" in card(place, str(place.root))["models"][0]["found"]
    place.put("m.yaml", "kind: Model\nname: m\nfetch: manual\nsource: {repo: org/repo, file: far.gguf}\n")
    assert card(place, str(place.root))["models"][0]["mend"] == "hal0 model pull m"


def test_no_manifests_at_all_are_no_crash(place: Place) -> None:
    found = card(place, str(place.folder / "nowhere"))
    assert found["valid"][0]["verdict"] == "unknown"
    assert "ports" not in found


@pytest.mark.daemon
def test_beside_a_daemon_its_root_its_slots_and_its_ports_are_those_that_count(place: Place) -> None:
    place.put_slots("chat")
    with place.serving():
        place.until_ready("chat")
        found = card(place)
    assert str(place.root) in found["valid"][0]["found"]
    assert [check["verdict"] for check in found["ports"] + found["daemon"]] == ["ok", "ok"]
