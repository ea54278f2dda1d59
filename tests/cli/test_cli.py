from __future__ import annotations

import http.server
import json
import socket
import socketserver
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import hal0
from hal0.host.lock import host_lock

from .conftest import DEADLINE, MODEL, Place, free_port

HEAVY = ("aiohttp", "podman", "dbus_next", "prometheus_client", "pydantic", "jinja2", "ruamel", "asyncio")


def test_the_command_line_is_there_without_the_heavy_modules() -> None:
    code = f"import hal0.cli.app, sys; print(*(name for name in {HEAVY} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_the_version_is_told(place: Place) -> None:
    done = place.hal0("--version")
    assert (done.returncode, done.stdout) == (0, f"hal0 {hal0.__version__}\n")


def test_no_command_at_all_shows_the_help(place: Place) -> None:
    done = place.hal0()
    assert "Usage" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("words", [("nothing",), ("slot", "logs", "x", "-n", "-1")])
def test_a_command_that_cant_be_taken_is_1(place: Place, words: tuple[str, ...]) -> None:
    done = place.hal0(*words)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr


def test_a_slot_of_the_process_runtime_is_loaded_by_a_daemon_only(place: Place) -> None:
    place.put_slots("chat")
    done = place.hal0("slot", "load", "chat", "--runtime", "process")
    assert (done.returncode, done.stdout) == (1, "")
    assert "the process runtime lives inside the daemon" in done.stderr
    assert not (place.folder / "state" / "hal0.db").exists()


# Manifests.


def test_good_manifests_are_valid(place: Place) -> None:
    place.put_slots("chat", "embed")
    before = sorted(place.folder.rglob("*"))
    done = place.hal0("validate", str(place.root), "--runtime", "process")
    assert done.stdout == f"{place.root}: 2 slots, 1 models: valid\n"
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(place.folder.rglob("*")) == before


def test_bad_manifests_are_named_with_file_and_line_as_one_would_type_it(place: Place) -> None:
    place.put_slots("chat")
    place.put("bad.yaml", "kind: Slot\nname: bad\nmodel: n\nprofile: tiny\n")
    place.put("worse.toml", 'kind = "Slot"\nname = "Worse"\nmodel = "m"\n')
    done = place.hal0("validate", str(place.root), "--runtime", "process")
    assert done.returncode == 1
    first, second, last = done.stdout.splitlines()
    assert first.startswith("manifests/bad.yaml:3: model: no Model 'n'")
    assert second.startswith("manifests/worse.toml:2: name: ")
    assert last == "2 problems"


def test_problems_can_be_read_by_programs(place: Place) -> None:
    place.put("bad.yaml", "kind: Slot\nname: bad\nmodel: n\n")
    done = place.hal0("validate", str(place.root), "--json", "--runtime", "process")
    found = json.loads(done.stdout)
    assert (done.returncode, found["version"], found["slots"]) == (1, 1, [])
    assert [(problem["file"], problem["line"]) for problem in found["problems"]] == [("manifests/bad.yaml", 3)]


def test_the_schema_is_json_and_knows_every_kind(place: Place) -> None:
    done = place.hal0("schema")
    found = json.loads(done.stdout)
    assert done.returncode == 0
    assert {"SlotManifest", "ModelManifest", "ProfileManifest", "HostManifest"} <= set(found["$defs"])


# Plans.


def plan(place: Place, *words: str) -> subprocess.CompletedProcess[str]:
    return place.hal0("plan", str(place.root), "--runtime", "process", *words)


def test_a_plan_of_an_empty_host_creates_and_shows_what_it_would_write_and_writes_nothing(place: Place) -> None:
    place.put_slots("chat")
    done = plan(place, "--detailed-exitcode")
    assert done.returncode == 2
    assert "  + chat  create" in done.stdout
    assert "+[process]" in done.stdout
    assert done.stdout.splitlines()[-1] == "Plan: 1 to create, 0 to change, 0 to delete."
    assert "\x1b" not in done.stdout
    assert not list((place.folder / "state").rglob("*.toml"))
    assert not (place.folder / "state" / "hal0.db").exists()


def test_a_plan_can_be_read_by_programs(place: Place) -> None:
    place.put_slots("chat")
    found = json.loads(plan(place, "--json").stdout)
    (change,) = found["changes"]
    assert (found["version"], change["slot"], change["action"]) == (1, "chat", "create")
    assert change["steps"] == ["write", "reload", "reset_failed", "start"]


def test_a_plan_without_changes_is_0_even_where_changes_would_be_2(place: Place) -> None:
    done = plan(place, "--detailed-exitcode")
    assert done.returncode == 0
    assert done.stdout.splitlines()[0] == "Nothing to change: the host is what the manifests say."


def test_a_plan_of_a_limit_is_of_that_slot_alone(place: Place) -> None:
    place.put_slots("chat", "embed")
    found = json.loads(plan(place, "--limit", "embed", "--json").stdout)
    assert [change["slot"] for change in found["changes"]] == ["embed"]
    wrong = plan(place, "--limit", "embde")
    assert wrong.returncode == 1
    assert wrong.stderr.startswith("error: there is no slot 'embde'\nhint: ")


def test_a_diff_is_the_diffs_alone(place: Place) -> None:
    place.put_slots("chat")
    done = place.hal0("diff", str(place.root), "--runtime", "process", "--detailed-exitcode")
    assert done.returncode == 2
    assert done.stdout.startswith("--- /dev/null\n+++ ")


def test_apply_with_check_is_a_plan(place: Place) -> None:
    place.put_slots("chat")
    done = place.hal0("apply", str(place.root), "--check", "--runtime", "process", "--detailed-exitcode")
    assert done.returncode == 2
    assert "1 to create" in done.stdout
    assert "[process]" not in done.stdout


def test_an_apply_needs_the_daemon_where_it_is_the_engines_parent(place: Place) -> None:
    place.put_slots("chat")
    done = place.hal0("apply", str(place.root), "--runtime", "process")
    assert done.returncode == 1
    assert done.stderr.startswith("error: the process runtime lives inside the daemon")
    assert f"hal0 serve {place.root}" in done.stderr


# Errors.


def test_an_error_is_a_sentence_and_a_hint(place: Place) -> None:
    done = place.hal0("plan", str(place.folder / "nowhere"), "--runtime", "process")
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        f"error: there is no {place.folder}/nowhere",
        "hint: name the folder that holds your manifests",
    ]


def test_debug_shows_where_an_error_comes_from(place: Place) -> None:
    done = place.hal0("--debug", "plan", str(place.folder / "nowhere"), "--runtime", "process")
    assert "Traceback" in done.stderr
    assert done.returncode == 1


def test_invalid_manifests_are_no_plan(place: Place) -> None:
    place.put("bad.yaml", "kind: Slot\nname: bad\nmodel: n\n")
    done = plan(place)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"error: {place.root}/bad.yaml:3: model: " in done.stderr
    assert "1 problem: nothing was changed" in done.stderr


@pytest.mark.parametrize("command", [("plan",), ("serve",)])
def test_an_unknown_runtime_is_named_with_those_there_are(place: Place, command: tuple[str, ...]) -> None:
    done = place.hal0(*command, "--runtime", "docker")
    assert done.returncode == 1
    assert done.stderr == "error: runtime 'docker' is not known\nhint: use auto, systemd or process\n"


def test_an_unknown_scope_is_named_with_those_there_are(place: Place) -> None:
    done = place.hal0("status", "--scope", "galaxy")
    assert done.returncode == 1
    assert done.stderr.startswith("error: scope 'galaxy' is not known\nhint: ")


# Looks without a daemon.


def test_slots_are_listed_without_a_daemon(place: Place) -> None:
    place.put_slots("chat")
    found = place.json("status", str(place.root), "--runtime", "process")
    assert [slot["state"] for slot in found["slots"]] == ["offline"]


def test_a_slot_list_without_a_daemon_and_without_manifests_says_what_is_missing(place: Place) -> None:
    done = place.hal0("slot", "list", "--runtime", "process", "--scope", "user")
    assert done.returncode == 1
    assert done.stderr.startswith("error: there is no ")


def test_the_log_of_a_slot_that_never_ran_is_empty_and_says_so(place: Place) -> None:
    done = place.hal0("slot", "logs", "chat", "--runtime", "process")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.startswith("hint: no lines of chat")


# Serving, where it can't.


def test_a_second_daemon_is_refused_and_told_of_the_first(place: Place) -> None:
    place.put_slots("chat")
    with place.serving() as daemon:
        place.until_ready("chat")
        done = place.hal0("serve", str(place.root), "--runtime", "process", "--listen", f"127.0.0.1:{free_port()}")
        assert done.returncode == 4
        assert f"another hal0 (pid {daemon.pid}) is acting on this host" in done.stderr
        assert place.states() == {"chat": "ready"}


# A daemon that comes up, and one that goes away.


class Verifying(http.server.BaseHTTPRequestHandler):
    """Answers as a daemon that was asked to hash a model."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))  # what is left unread resets the connection
        event = {"event": "end", "model": self.path, "files": [], "verified": True, "by": "manifest", "sha256": "f"}
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(event).encode() + b"\n")

    def log_message(self, *_: object) -> None:
        pass

    def address_string(self) -> str:
        return "unix"


def test_a_command_that_waits_to_act_asks_the_daemon_that_comes_up_meanwhile(place: Place) -> None:
    """It held the host before it listened: the command waited for a lock that was never to be free."""
    argv = [sys.executable, "-m", "hal0.cli", "model", "verify", "m", "--runtime", "process"]
    path = place.folder / "run" / "hal0.sock"
    path.parent.mkdir()
    place.put("m.yaml", MODEL)
    with (
        host_lock(place.folder / "state"),
        subprocess.Popen(argv, env=place.env, cwd=place.folder, stdout=-1, stderr=-1, text=True) as waiting,
    ):
        assert waiting.stderr is not None
        assert "is acting on this host: waiting for it" in waiting.stderr.readline()
        with socketserver.ThreadingUnixStreamServer(str(path), Verifying) as daemon:
            serving = threading.Thread(target=daemon.serve_forever)
            serving.start()
            said, _ = waiting.communicate(timeout=DEADLINE)
            daemon.shutdown()
            serving.join()
    assert (waiting.returncode, said) == (0, "/api/models/verify: as its manifest says\n")


@pytest.fixture
def dying_daemon(place: Place) -> Path:
    """A daemon that dies in the middle of its answer."""
    path = place.folder / "run" / "hal0.sock"
    path.parent.mkdir()
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(path))
    server.listen()

    def serve() -> None:
        for _ in range(2):  # the first is the question whether there is one
            connection, _address = server.accept()
            with connection:
                if connection.recv(65536):
                    connection.sendall(b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10\r\n{"half')
        server.close()

    threading.Thread(target=serve, daemon=True).start()
    return path


@pytest.mark.usefixtures("dying_daemon")
@pytest.mark.parametrize("words", [("apply",), ("status",)])
def test_a_daemon_that_dies_while_it_answers_is_unreachable(place: Place, words: tuple[str, ...]) -> None:
    done = place.hal0(*words)
    assert done.returncode == 4
    assert done.stderr.startswith("error: the daemon went away")
    assert "Traceback" not in done.stderr
