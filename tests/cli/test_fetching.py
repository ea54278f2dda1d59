"""A daemon that fetches models from a real server."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from host.file_server import FileServer, serving

from .conftest import Place

CONTENT = bytes(range(256)) * 40_000
SHA = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def files() -> Iterator[FileServer]:
    with serving() as found:
        yield found


def declare(place: Place, url: str, **keys: str) -> Path:
    """Declare a model that is fetched, and return where it is put."""
    extra = "".join(f"{key}: {value}\n" for key, value in keys.items())
    place.put("m.yaml", f"kind: Model\nname: m\nsource: {{url: '{url}/far.gguf'}}\n{extra}")
    return place.folder / "state" / "models" / "far.gguf"


@pytest.mark.daemon
def test_a_slot_fetches_its_model_over_a_killed_daemon(place: Place, files: FileServer) -> None:
    gate = threading.Event()
    files.put("/far.gguf", CONTENT, gate=gate)
    place.put_slots("chat")
    path = declare(place, files.url, sha256=SHA)
    half = path.with_name("far.gguf.part")
    with place.serving() as daemon:
        place.until(lambda: half.exists() and half.stat().st_size >= len(CONTENT) // 2)
        assert place.states() == {"chat": "pulling"}
        place.until(lambda: "of 9.8 MiB" in place.ask("/api/slots/chat")["message"])
        assert place.ask("/api/models")["models"][0]["state"] == "fetching"
        daemon.kill()
        daemon.wait()
    assert not path.exists()
    (place.folder / "run" / "hal0.sock").unlink()  # it was left behind, and nobody listens
    gate.set()
    with place.serving():
        place.until_ready("chat")
        assert place.ask("/api/models")["models"][0]["verified"] is True
    assert path.read_bytes() == CONTENT
    assert files.ranges[1] == f"bytes={len(CONTENT) // 2}-"


@pytest.mark.daemon
def test_a_pull_shows_how_far_it_is_and_says_what_went_wrong(place: Place, files: FileServer) -> None:
    files.put("/far.gguf", CONTENT)
    place.put_slots("chat")
    path = declare(place, files.url, fetch="manual")
    with place.serving():
        place.until((place.folder / "run" / "hal0.sock").exists)
        place.until(lambda: place.states() == {"chat": "offline"})
        assert "hal0 model pull m" in place.ask("/api/slots/chat")["message"]
        done = place.hal0("model", "pull", "m")
        place.until_ready("chat")
        files.put("/far.gguf", status=404)
        path.unlink()
        lost = place.hal0("model", "pull", "m")
    assert (done.returncode, done.stdout) == (0, f"m: fetched, {path}\n")
    assert done.stderr.startswith("fetching m")
    assert lost.returncode == 3
    assert "404" in lost.stderr
    assert "Traceback" not in lost.stderr
