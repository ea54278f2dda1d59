from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest

from hal0.core.facts import Known, Unknown
from hal0.core.observed import Definition
from hal0.errors import StepFailed
from hal0.host.dropins import Dropins

if TYPE_CHECKING:
    from pathlib import Path

TEXT = "[Service]\nExecStart=\nExecStart=/bin/true\n"


@pytest.fixture
def dropins(tmp_path: Path) -> Dropins:
    return Dropins(tmp_path / "units")


def test_what_is_written_is_read(dropins: Dropins) -> None:
    dropins.write("chat", TEXT)
    path = dropins.path("chat")
    assert dropins.read("chat") == Known(Definition(str(path), TEXT))
    assert path.name == "50-hal0.conf"
    assert path.parent.name == "hal0-slot@chat.service.d"
    assert path.stat().st_mode & 0o777 == 0o644


def test_nothing_but_the_drop_in_is_left(dropins: Dropins) -> None:
    dropins.write("chat", "old")
    dropins.write("chat", TEXT)
    assert [path.name for path in dropins.path("chat").parent.iterdir()] == ["50-hal0.conf"]


def test_a_failed_write_keeps_the_old_one(dropins: Dropins, monkeypatch: pytest.MonkeyPatch) -> None:
    dropins.write("chat", TEXT)

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StepFailed, match="No space left") as caught:
        dropins.write("chat", "new")
    assert "disk is full" in caught.value.hint
    assert dropins.read("chat") == Known(Definition(str(dropins.path("chat")), TEXT))
    assert [path.name for path in dropins.path("chat").parent.iterdir()] == ["50-hal0.conf"]


def test_no_drop_in_is_known_absence(dropins: Dropins) -> None:
    assert dropins.read("chat") == Known(None)
    assert dropins.names() == Known(frozenset())


def test_what_cannot_be_read_is_unknown(dropins: Dropins, monkeypatch: pytest.MonkeyPatch) -> None:
    dropins.path("chat").mkdir(parents=True)
    assert isinstance(dropins.read("chat"), Unknown)
    dropins.write("embed", TEXT)
    dropins.path("embed").write_bytes(b"\xff")
    assert isinstance(dropins.read("embed"), Unknown)

    def forbidden(_: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("os.scandir", forbidden)
    assert isinstance(dropins.names(), Unknown)


def test_names_are_those_with_our_file(dropins: Dropins) -> None:
    dropins.write("chat", TEXT)
    dropins.write("embed-2", TEXT)
    dropins.path("theirs").parent.mkdir()
    (dropins.path("theirs").parent / "override.conf").touch()
    (dropins.path("chat").parent.parent / "ssh.service").touch()
    assert dropins.names() == Known(frozenset({"chat", "embed-2"}))


def test_removing_leaves_what_is_the_operators(dropins: Dropins) -> None:
    dropins.write("chat", TEXT)
    dropins.write("embed", TEXT)
    theirs = dropins.path("embed").parent / "override.conf"
    theirs.touch()
    for slot in ("chat", "embed", "never-there"):
        dropins.remove(slot)
    assert not dropins.path("chat").parent.exists()
    assert theirs.exists()
    assert dropins.names() == Known(frozenset())


def test_a_name_that_leads_elsewhere_is_refused(dropins: Dropins) -> None:
    for name in ("../x", "", "A", "a/b", "-a", "a.b", "a\n"):
        with pytest.raises(StepFailed):
            dropins.write(name, TEXT)


def test_permission_says_what_to_do(dropins: Dropins, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("pathlib.Path.unlink", forbidden)
    monkeypatch.setattr("pathlib.Path.mkdir", forbidden)
    with pytest.raises(StepFailed, match="Permission denied") as writing:
        dropins.write("chat", TEXT)
    with pytest.raises(StepFailed, match="Permission denied") as removing:
        dropins.remove("chat")
    assert "root" in writing.value.hint
    assert "root" in removing.value.hint


def test_what_is_put_aside_is_kept_under_a_name_that_nothing_reads(dropins: Dropins) -> None:
    for text in ("one", "two"):
        dropins.write("chat", text)
        dropins.put_aside("chat")
    dropins.put_aside("chat")
    folder = dropins.path("chat").parent
    assert {path.name: path.read_text() for path in folder.iterdir()} == {
        "50-hal0.conf.bak": "one",
        "50-hal0.conf.bak2": "two",
    }
    assert dropins.names() == Known(frozenset())


def test_what_can_not_be_put_aside_is_told(dropins: Dropins, monkeypatch: pytest.MonkeyPatch) -> None:
    dropins.write("chat", TEXT)
    monkeypatch.setattr("pathlib.Path.rename", _denied)
    with pytest.raises(StepFailed, match="can't rename"):
        dropins.put_aside("chat")


def _denied(*_: object) -> None:
    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
