"""What a shell completes, asked as the shell does: by variables of the environment."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import threading

import pytest

import hal0

from .conftest import DEADLINE, Place

PROGRAM = "import sys; sys.argv[0] = 'hal0'; from hal0.cli import main; main()"


def completed(place: Place, line: str) -> list[str]:
    """Return what bash is told may come at the end of a line."""
    words = line.split(" ")
    env = {**place.env, "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1), "_HAL0_COMPLETE": "complete_bash"}
    argv = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(argv, capture_output=True, text=True, env=env, timeout=DEADLINE, check=True)
    assert done.stderr == ""
    return done.stdout.split()


def test_commands_are_completed(place: Place) -> None:
    assert completed(place, "hal0 slot re") == ["restart", "reset", "retry"]


def test_without_a_daemon_no_slot_is_completed_and_nothing_is_said(place: Place) -> None:
    assert completed(place, "hal0 slot show ") == []


@pytest.mark.parametrize("answer", [b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnull", b"nonsense\r\n", b""])
def test_a_daemon_that_answers_nonsense_or_nothing_completes_nothing(place: Place, answer: bytes) -> None:
    path = place.folder / "run" / "hal0.sock"
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()

        def serve() -> None:
            with server.accept()[0] as client:
                client.sendall(answer)
                while client.recv(4096):  # until the command gives up, however long it would wait
                    pass

        thread = threading.Thread(target=serve)
        thread.start()
        assert completed(place, "hal0 slot show ") == []
        thread.join()


@pytest.mark.daemon
def test_slots_of_the_daemon_are_completed(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.put_slots("chat", "embed")
    with place.serving():
        place.until_ready("chat", "embed")
        from hal0.cli import complete

        monkeypatch.setattr(complete, "_PATIENCE", DEADLINE)
        for name in ("HAL0_STATE", "HAL0_RUN"):
            monkeypatch.setenv(name, place.env[name])
        context = type("Context", (), {"params": {"scope": None}})()
        assert list(complete.slots(context, "ch")) == [("chat", "ready, m")]
        assert [name for name, _ in complete.slots(context, "")] == ["chat", "embed"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_gets_a_script_that_it_can_read(place: Place, shell: str) -> None:
    done = place.hal0("completion", shell)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"_HAL0_COMPLETE=complete_{shell}" in done.stdout
    if found := shutil.which(shell):
        subprocess.run([found, "-n"], input=done.stdout, text=True, check=True, env=os.environ | {"TERM": "dumb"})


def test_another_shell_is_refused_with_those_that_there_are(place: Place) -> None:
    done = place.hal0("completion", "tcsh")
    assert done.returncode == 1
    assert "fish" in done.stderr


def test_the_version_tells_what_it_runs_on(place: Place) -> None:
    found = place.json("version")
    assert (found["version"], found["hal0"], found["interpreter"]) == (1, hal0.__version__, sys.executable)
    lines = place.hal0("version").stdout.splitlines()
    assert [line.split()[0] for line in lines] == [key for key in found if key != "version"]
