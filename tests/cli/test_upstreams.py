"""``hal0 upstream`` as a process, with a daemon and without one."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator

import pytest

from .conftest import Place, free_port

KEY = "sk-very-secret-0123456789"


class _Far(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        is_known = self.headers["Authorization"] == f"Bearer {KEY}"
        body = json.dumps({"data": [{"id": "big"}]}).encode() if is_known else b"{}"
        self.send_response(200 if is_known else 401)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def far(place: Place) -> Iterator[str]:
    """Declare an upstream that wants its key; return its address."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Far)
    threading.Thread(target=server.serve_forever).start()
    address = f"http://127.0.0.1:{server.server_port}/v1"
    key = place.put("../key", KEY)
    place.put("far.yaml", f"kind: Upstream\nname: far\nbase_url: {address}\napi_key: {{file: {key}}}\n")
    yield address
    server.shutdown()
    server.server_close()


WORDS = ("--runtime", "process")


@pytest.fixture
def env_root(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have commands without a daemon find the manifests where the user's own lie."""
    monkeypatch.setattr(Place, "env", {**place.env, "XDG_CONFIG_HOME": str(place.folder), "HAL0_SCOPE": "user"})
    (place.folder / "hal0").mkdir()
    (place.folder / "hal0" / "manifests").symlink_to(place.root)


@pytest.mark.usefixtures("env_root")
def test_without_a_daemon_upstreams_are_tried_by_the_command_itself(place: Place, far: str) -> None:
    done = place.hal0("upstream", "test", "far", *WORDS)
    first, *rest = done.stdout.splitlines()
    assert (done.returncode, done.stderr, first) == (0, "", "far  ok")
    assert [line.split()[0] for line in rest] == ["address", "answer", "key", "models"]
    assert far in rest[0]
    assert "accepted" in rest[2]
    assert KEY not in done.stdout
    listed = place.hal0("upstream", "list", *WORDS)
    assert listed.stdout.splitlines()[1].split()[:5] == ["far", "openai", "far/", "closed", "-"]


@pytest.mark.usefixtures("env_root", "far")
def test_an_upstream_that_cant_be_used_is_3_and_one_that_is_not_there_is_1(place: Place) -> None:
    place.put("gone.yaml", f"kind: Upstream\nname: gone\nbase_url: http://127.0.0.1:{free_port()}/v1\n")
    done = place.hal0("upstream", "test", "gone", *WORDS)
    assert (done.returncode, done.stdout.splitlines()[0]) == (3, "gone  can't be used")
    wrong = place.hal0("upstream", "test", "fra", *WORDS)
    assert wrong.returncode == 1
    assert "far" in wrong.stderr


@pytest.mark.usefixtures("env_root")
def test_no_upstreams_are_told_with_how_to_declare_one(place: Place) -> None:
    assert place.hal0("upstream", "list", *WORDS).stdout.startswith("No upstreams: ")


@pytest.mark.daemon
@pytest.mark.usefixtures("far")
def test_a_daemon_tries_it_itself(place: Place) -> None:
    with place.serving():
        place.until_ready()
        found = place.json("upstream", "test", "far")
        assert (found["ok"], found["key"], found["models"]) == (True, "accepted", ["big"])
        place.until(lambda: place.json("upstream", "list")["upstreams"][0]["models"] == ["big"])
