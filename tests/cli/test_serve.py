"""The daemon as a process, with real engines as its children."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from .conftest import Place, free_port, lives, slot

pytestmark = pytest.mark.daemon


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A daemon that runs, for tests that only look."""
    place = Place(tmp_path_factory.mktemp("up") / "here")
    place.put_slots("chat")
    with place.serving():
        place.until_ready("chat")
        yield place


def test_the_status_is_the_daemons(up: Place) -> None:
    found = up.json("status")
    assert (found["runtime"], found["root"], found["generation"]) == ("process", str(up.root), 1)
    assert [(slot["name"], slot["state"], slot["ready"]) for slot in found["slots"]] == [("chat", "ready", True)]
    text = up.hal0("status").stdout
    assert f"manifests  {up.root}  generation 1" in text
    assert "chat  ready" in text


def test_slots_are_a_table(up: Place) -> None:
    head, row = up.hal0("slot", "list").stdout.splitlines()
    assert head.split() == ["NAME", "STATE", "MODEL", "BACKEND", "KIND", "PORT", "SINCE", "MEMORY"]
    assert row.split()[:5] == ["chat", "ready", "m", "cpu", "llm"]


def test_a_slot_is_shown_with_its_process_and_transitions(up: Place) -> None:
    found = up.json("slot", "show", "chat")
    assert found["service"]["pid"] in up.engines("chat")
    assert lives(found["service"]["pid"])
    moves = [(move["before"], move["after"]) for move in reversed(found["transitions"])]
    assert moves == [("offline", "starting"), ("starting", "warming"), ("warming", "ready")]
    text = up.hal0("slot", "show", "chat").stdout
    assert text.splitlines()[0] == "chat  ready"
    assert "  Ready        True     ProbeUp" in text


def test_a_slot_that_is_not_there_is_answered_with_the_closest_one(up: Place) -> None:
    done = up.hal0("slot", "show", "caht")
    assert done.returncode == 1
    assert "there is no slot 'caht'" in done.stderr
    assert "chat" in done.stderr.replace("caht", "")


def test_the_engines_lines_are_its_log(up: Place) -> None:
    pid = up.ask("/api/slots/chat")["service"]["pid"]
    assert up.hal0("slot", "logs", "chat", "-n", "1").stdout == f"engine {pid} chat\n"
    assert up.json("slot", "logs", "chat")["lines"][-1] == f"engine {pid} chat"


def test_an_apply_through_the_daemon_with_nothing_to_do_ends_with_a_recap(up: Place) -> None:
    done = up.hal0("apply", "--detailed-exitcode")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-2:] == [
        "SLOT RECAP",
        "chat : ok=1    changed=0    unreachable=0    failed=0    skipped=0    waiting=0",
    ]


def test_an_apply_can_be_read_by_programs(up: Place) -> None:
    done = up.hal0("apply", str(up.root), "--json")
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert [event["event"] for event in events] == ["plan", "recap"]


def test_an_apply_of_another_root_is_refused(up: Place, tmp_path: Path) -> None:
    done = up.hal0("apply", str(tmp_path))
    assert done.returncode == 1
    assert f"error: the daemon serves {up.root}, not {tmp_path}" in done.stderr


def test_a_plan_beside_the_daemon_sees_what_it_has_done(up: Place) -> None:
    done = up.hal0("plan", str(up.root), "--runtime", "process", "--detailed-exitcode")
    assert done.returncode == 0, done.stdout
    assert "Nothing to change" in done.stdout


# Daemons of their own.


def test_an_edited_manifest_is_picked_up_and_a_broken_one_leaves_the_slot_running(place: Place) -> None:
    place.put_slots("chat")
    with place.serving():
        place.until_ready("chat")
        place.put("embed.yaml", slot("embed"))
        place.until_ready("chat", "embed")
        (pid,) = place.engines("chat")
        place.put("chat.yaml", "kind: Slot\nname: chat\nmodel: {\n")
        place.until(lambda: place.ask("/api/status")["problems"])
        accepted = place.ask("/api/slots/chat")["conditions"][0]
        assert (accepted["type"], accepted["status"]) == ("Accepted", False)
        assert f"{place.root}/chat.yaml:" in accepted["message"]
        assert place.states() == {"chat": "ready", "embed": "ready"}
        assert place.engines("chat") == [pid]
        done = place.hal0("apply")
        assert done.returncode == 1
        assert "nothing was changed" in done.stderr


def test_an_apply_through_the_daemon_makes_what_was_just_written(place: Place) -> None:
    place.put_slots("chat")
    with place.serving():
        place.until_ready("chat")
        place.put("chat.yaml", slot("chat", args='["--more"]'))
        done = place.hal0("apply", "--diff", "--timeout", "60")
        assert done.returncode == 0, done.stderr
        assert place.states() == {"chat": "ready"}
        first, second = place.engines("chat")
        assert not lives(first)
        assert lives(second)
        assert place.hal0("slot", "logs", "chat", "-n", "1").stdout == f"engine {second} chat --more\n"


def test_a_killed_engine_is_started_again(place: Place) -> None:
    place.put_slots("chat")
    with place.serving():
        place.until_ready("chat")
        (first,) = place.engines("chat")
        os.kill(first, signal.SIGKILL)
        place.until(lambda: len(place.engines("chat")) == 2)
        place.until_ready("chat")


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_daemon_that_is_told_to_end_takes_its_engines_and_its_socket_with_it(
    place: Place, how: signal.Signals
) -> None:
    place.put_slots("chat", "embed")
    with place.serving() as daemon:
        place.until_ready("chat", "embed")
        pids = place.engines("chat") + place.engines("embed")
        daemon.send_signal(how)
        assert daemon.wait(30) == 0
    assert not any(lives(pid) for pid in pids)
    assert not (place.folder / "run" / "hal0.sock").exists()
    assert "Traceback" not in place.log()


def test_a_killed_daemon_leaves_its_engines_and_the_next_one_adopts_them(place: Place) -> None:
    place.put_slots("chat")
    with place.serving() as daemon:
        place.until_ready("chat")
        (pid,) = place.engines("chat")
        daemon.kill()
        daemon.wait()
    assert lives(pid)
    (place.folder / "run" / "hal0.sock").unlink()
    with place.serving():
        place.until_ready("chat")
        found = place.ask("/api/slots/chat")
        assert found["service"]["pid"] == pid
        assert place.engines("chat") == [pid]
        assert found["transitions"][0]["after"] == "ready"
        assert len(found["transitions"]) == 3
    assert not lives(pid)


def test_a_daemon_that_cant_listen_says_so_and_leaves_no_engine_behind(place: Place) -> None:
    place.put_slots("chat")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = place.hal0("serve", str(place.root), "--runtime", "process", "--listen", address)
    assert done.returncode == 1
    assert f"error: can't listen on {address}" in done.stderr
    assert "Traceback" not in done.stderr
    assert place.running() == []


def test_the_host_manifest_says_where_to_listen(place: Place) -> None:
    port = free_port()
    place.put_slots("chat")
    place.put("host.yaml", f"kind: Host\nlisten: 127.0.0.1:{port}\n")
    with place.serving(listen=False):
        place.until_ready("chat")
        with socket.create_connection(("127.0.0.1", port), timeout=10):
            pass


def test_a_store_that_rotted_while_hal0_was_dead_costs_no_slot_its_engine(place: Place) -> None:
    first = next(port for port in iter(free_port, None) if port % 2 and port < 65_000)
    place.put_slots()
    place.put("host.yaml", f"kind: Host\nslot_ports: {first}-{first + 1}\n")
    with place.serving() as daemon:
        place.put("x.yaml", "kind: Slot\nname: x\nmodel: m\nprofile: tiny\n")
        place.until_ready("x")
        place.put("a.yaml", "kind: Slot\nname: a\nmodel: m\nprofile: tiny\n")  # a new hal0 would give it the port of x
        place.until_ready("a", "x")
        engines = {name: place.engines(name) for name in ("a", "x")}
        daemon.kill()
        daemon.wait()
    (place.folder / "run" / "hal0.sock").unlink()
    for file in (place.folder / "state").glob("hal0.db*"):  # its journal too: that alone would mend it
        file.write_bytes(b"rotten" * 1000)
    with place.serving():
        place.until_ready("a", "x")
        place.until(lambda: place.ask("/api/history")["applies"][0]["result"] == "converged")
        assert {name: place.engines(name) for name in ("a", "x")} == engines
        assert all(lives(pid) for pids in engines.values() for pid in pids)
    assert "the store was damaged" in place.log()
    assert "the store knows nothing of a, x: ports are read back from the host" in place.log()


# Acts on a slot.


def test_a_slot_is_loaded_and_unloaded_by_hand_and_goes_back_to_its_manifest(place: Place) -> None:
    place.put_slots("chat", run="never")
    with place.serving():
        place.until((place.folder / "run" / "hal0.sock").exists)
        place.until(lambda: place.states() == {"chat": "offline"})
        loaded = place.hal0("slot", "load", "chat", "--for", "2h")
        assert (loaded.returncode, loaded.stderr) == (0, "")
        assert "  = chat  run: never -> up (by " in loaded.stdout
        assert loaded.stdout.splitlines()[-1].startswith("chat : ok=")
        assert place.states() == {"chat": "ready"}
        assert "overridden by hand" in place.hal0("status").stdout
        assert "overridden by hand" in place.hal0("slot", "show", "chat").stdout
        plan = place.hal0("plan", "--detailed-exitcode")
        assert (plan.returncode, "  = chat  run: never -> up" in plan.stdout) == (0, True)
        assert place.hal0("slot", "reset", "chat").returncode == 0
        assert place.states() == {"chat": "offline"}
    assert place.running() == []


def test_an_override_outlives_the_daemon(place: Place) -> None:
    place.put_slots("chat")
    with place.serving():
        place.until_ready("chat")
        assert place.hal0("slot", "unload", "chat", "--json").returncode == 0
    with place.serving():
        place.until((place.folder / "run" / "hal0.sock").exists)
        place.until(lambda: place.states() == {"chat": "offline"})
        (told,) = place.json("slot", "show", "chat")["overrides"]
        assert (told["aspect"], told["value"], told["until"]) == ("run", "down", None)
        assert place.hal0("slot", "load", "chat").returncode == 0
        place.until_ready("chat")


def test_a_model_is_swapped_beside_the_old_one_and_written_to_the_manifest(place: Place) -> None:
    place.put_slots("chat")
    profile = (place.root / "p.yaml").read_text()
    place.put("p.yaml", profile.replace("{name}", "{model}"))
    place.put("n.yaml", "kind: Model\nname: n\npath: n.gguf\n")
    (place.folder / "state" / "models" / "n.gguf").touch()
    with place.serving():
        place.until_ready("chat")
        done = place.hal0("slot", "swap", "chat", "--model", "n")
        assert (done.returncode, done.stderr) == (0, "")
        assert "  + chat.next  create" in done.stdout
        assert "  chat.next    start ok" in done.stdout
        assert "  chat         serves n\n" in done.stdout
        assert f"  chat         written to {place.root / 'chat.yaml'}\n" in done.stdout
        assert "model: n\n" in (place.root / "chat.yaml").read_text()
        plan = place.hal0("plan", "--detailed-exitcode")
        assert (plan.returncode, "overridden" in plan.stdout) == (0, False)
        (engine,) = place.running()
        wrong = place.hal0("slot", "swap", "chat", "--model", "x")
        assert (wrong.returncode, "there is no Model 'x'" in wrong.stderr) == (1, True)
        (place.folder / "engine.py").write_text("raise SystemExit('bad magic')")
        failed = place.hal0("slot", "swap", "chat", "--model", "m", "--timeout", "50")
        assert failed.returncode == 3
        assert "not swapped to m: the old model serves on" in failed.stdout
        assert "bad magic" in failed.stdout
        assert place.running() == [engine]
    assert "model: n\n" in (place.root / "chat.yaml").read_text()


def test_what_is_asked_wrongly_of_a_slot_is_said_with_what_is_close(up: Place) -> None:
    for words, said in [
        (("load", "caht"), "there is no slot 'caht' (did you mean 'chat'?)"),
        (("load", "chat", "--model", "n"), "there is no Model 'n'"),
        (("load", "chat", "--for", "soon"), "--for: 'soon' is not a duration"),
    ]:
        done = up.hal0("slot", *words)
        assert (done.returncode, done.stdout) == (1, "")
        assert said in done.stderr.replace("\nhint:", "")


def test_a_slot_is_restarted_once(place: Place) -> None:
    place.put_slots("chat")
    with place.serving():
        place.until_ready("chat")
        assert place.hal0("slot", "restart", "chat").returncode == 0
        place.until_ready("chat")
        assert len(place.engines("chat")) == 2
