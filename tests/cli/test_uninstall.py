"""``hal0 uninstall`` where systemd does not run: what is remembered goes with --purge alone.

In this process: a test must never uninstall the hal0 of the machine that it runs on.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
from pathlib import Path

import pytest
import typer

from hal0.cli import uninstall as command
from hal0.errors import Conflict, UsageError
from hal0.host.lock import host_lock
from hal0.host.process import ProcessRuntime
from hal0.host.store import Store


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a state directory as a daemon of the process runtime leaves it."""
    monkeypatch.setattr(command, "is_booted", lambda: False)
    monkeypatch.setenv("HAL0_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("HAL0_RUN", str(tmp_path / "run"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    for file in ("state/hal0.db", "state/logs/chat.log", "state/models/m.gguf", "config/hal0/manifests/chat.yaml"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(file)
    (tmp_path / "run").mkdir()
    return tmp_path / "state"


def files(state: Path) -> set[str]:
    return {path.relative_to(state.parent).as_posix() for path in state.parent.rglob("*") if path.is_file()}


def test_without_purge_everything_is_kept_and_told(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = files(state)
    assert command.uninstall(purge=False, force=False, scope="user") == 0
    assert files(state) - {"state/lock"} == before
    assert capsys.readouterr().out.splitlines() == [
        f"left     {state.parent / 'config' / 'hal0' / 'manifests'}",
        f"left     {state}",
    ]


def test_purge_takes_all_but_models_and_manifests(state: Path) -> None:
    assert command.uninstall(purge=True, force=True, scope="user") == 0
    assert files(state) == {"state/models/m.gguf", "config/hal0/manifests/chat.yaml"}


def test_purge_leaves_what_hal0_did_not_put_there(state: Path) -> None:
    (state / "weights").mkdir()
    (state / "weights" / "big.gguf").touch()  # a model_dir of the manifests' own
    (state / "notes.txt").touch()
    assert command.uninstall(purge=True, force=True, scope="user") == 0
    assert {"state/weights/big.gguf", "state/notes.txt"} < files(state)


async def test_purge_leaves_nothing_of_what_hal0_makes(state: Path) -> None:
    shutil.rmtree(state)
    with host_lock(state):
        await ProcessRuntime(state).close()
    (state / "hal0.db").write_bytes(b"damaged" * 1000)
    with contextlib.closing(Store(state / "hal0.db")) as store:
        store.set_generation(1, "content")
        made = {path.name for path in state.iterdir()}
        assert any(name.startswith("hal0.corrupt-") for name in made)
        assert made >= {"hal0.db", "hal0.db-wal", "lock", "slots", "run", "logs"}
        await asyncio.to_thread(command.uninstall, purge=True, force=True, scope="user")
    assert not state.exists()


def test_purge_takes_the_folder_too_where_nothing_is_left_in_it(state: Path) -> None:
    (state / "models" / "m.gguf").unlink()
    (state / "models").rmdir()
    assert command.uninstall(purge=True, force=True, scope="user") == 0
    assert not state.exists()


def test_a_link_in_the_state_directory_is_removed_and_not_followed(state: Path, tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").touch()
    (state / "link").symlink_to(tmp_path / "precious")
    assert command.uninstall(purge=True, force=True, scope="user") == 0
    assert (tmp_path / "precious" / "file").exists()


def test_purge_asks_and_no_means_no(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(typer, "confirm", lambda text, **_: asked.append(text))
    before = files(state)
    with pytest.raises(UsageError, match="nothing was changed"):
        command.uninstall(purge=True, force=False, scope="user")
    assert files(state) == before
    assert str(state) in asked[0]


def test_a_daemon_that_systemd_does_not_keep_has_to_be_ended_first(state: Path) -> None:
    with socket.socket(socket.AF_UNIX) as daemon:
        daemon.bind(str(state.parent / "run" / "hal0.sock"))
        daemon.listen()
        with pytest.raises(Conflict):
            command.uninstall(purge=True, force=True, scope="user")
    assert "state/hal0.db" in files(state)


def test_where_nothing_ever_was_there_is_nothing_to_do(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAL0_STATE", str(state / "nowhere"))
    assert command.uninstall(purge=True, force=True, scope="user") == 0
    assert not (state / "nowhere").exists()
