from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hal0.errors import HostUnreachable, LockHeld
from hal0.host.lock import host_lock

HOLDER = """
import sys, time
from pathlib import Path
from hal0.host.lock import host_lock

with host_lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(3600)
"""


@contextmanager
def held(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Let another process hold the lock."""
    words = [sys.executable, "-c", HOLDER, str(folder)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout
            assert holder.stdout.readline() == "held\n"
            yield holder
        finally:
            holder.kill()


def test_a_second_holder_is_refused_and_told_who_the_first_is(tmp_path: Path) -> None:
    with held(tmp_path) as holder, pytest.raises(LockHeld, match=rf"pid {holder.pid}\)"), host_lock(tmp_path):
        pytest.fail("two hold the lock")


def test_a_killed_holder_lets_go(tmp_path: Path) -> None:
    with held(tmp_path) as holder:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        with host_lock(tmp_path):
            assert (tmp_path / "lock").read_text() == str(os.getpid())


def test_a_patient_one_gets_the_lock_when_it_is_let_go(tmp_path: Path) -> None:
    with held(tmp_path) as holder:
        ending = threading.Timer(0.3, holder.kill)
        ending.start()
        said: list[str] = []
        with host_lock(tmp_path, patience=60, told=said.append):
            assert holder.wait() == -signal.SIGKILL
        assert set(said) == {f"another hal0 (pid {holder.pid}) is acting on this host: waiting for it"}
        ending.join()


def test_the_lock_can_be_taken_again(tmp_path: Path) -> None:
    for _ in range(2):
        with host_lock(tmp_path):
            pass


def test_an_error_of_the_holder_lets_go(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), host_lock(tmp_path):
        raise RuntimeError
    with host_lock(tmp_path):
        pass


def test_a_state_folder_that_is_made_is_its_owners_alone(tmp_path: Path) -> None:
    with host_lock(tmp_path / "deep" / "state"):
        assert stat.S_IMODE((tmp_path / "deep" / "state").stat().st_mode) == 0o700


def test_a_state_folder_that_cant_be_made_is_said_plainly(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(HostUnreachable, match="can't use the state directory"), host_lock(tmp_path / "file" / "state"):
        pytest.fail("there is no lock to hold")
