from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from hal0.errors import Conflict
from hal0.host import edits
from hal0.host.edits import NotWritten

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
EVE = 4711


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "root" / "chat.toml"
    path.parent.mkdir()
    path.write_bytes(b"a = 1\r\n")
    return path


def owner(path: Path) -> tuple[int, int]:
    return path.stat().st_uid, path.stat().st_gid


def test_a_text_is_read_with_its_line_ends(file: Path) -> None:
    assert edits.read(file) == "a = 1\r\n"
    assert edits.read(file.with_name("none.toml")) is None


def test_what_is_no_text_is_refused(file: Path) -> None:
    file.write_bytes(b"\xff")
    with pytest.raises(NotWritten, match="is not UTF-8"):
        edits.read(file)


def test_a_text_is_put_in_the_place_of_another_and_its_mode_stays(file: Path) -> None:
    file.chmod(0o660)
    edits.replace(file, "a = 1\r\n", "a = 2\r\n")
    assert file.read_bytes() == b"a = 2\r\n"
    assert stat.S_IMODE(file.stat().st_mode) == 0o660
    assert list(file.parent.iterdir()) == [file]


@needs_root
def test_the_owner_stays_and_what_is_new_is_the_folders_owners(file: Path) -> None:
    os.chown(file, EVE, EVE + 1)
    os.chown(file.parent, EVE + 2, EVE + 3)
    edits.replace(file, "a = 1\r\n", "b")
    new = file.with_name("new.toml")
    edits.replace(new, None, "c")
    assert (owner(file), owner(new)) == ((EVE, EVE + 1), (EVE + 2, EVE + 3))
    assert stat.S_IMODE(new.stat().st_mode) == 0o644


def test_a_file_is_removed(file: Path) -> None:
    edits.replace(file, "a = 1\r\n", None)
    assert list(file.parent.iterdir()) == []


@pytest.mark.parametrize("after", ["mine", None])
def test_what_was_changed_meanwhile_is_left_as_it_is(file: Path, after: str | None) -> None:
    file.write_text("theirs")
    with pytest.raises(Conflict, match="changed meanwhile"):
        edits.replace(file, "a = 1\r\n", after)
    assert file.read_text() == "theirs"


def test_a_file_that_came_meanwhile_is_not_overwritten(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edits, "read", lambda _: None)  # it comes right after the last look
    with pytest.raises(Conflict, match="made meanwhile"):
        edits.replace(file, None, "mine")
    assert file.read_bytes() == b"a = 1\r\n"
    assert list(file.parent.iterdir()) == [file]


@pytest.mark.parametrize("after", ["mine", None])
def test_a_read_only_file_is_respected_also_by_root(file: Path, after: str | None) -> None:
    file.chmod(0o444)
    with pytest.raises(NotWritten, match="is read-only"):
        edits.replace(file, "a = 1\r\n", after)
    assert file.read_bytes() == b"a = 1\r\n"


def test_a_write_that_fails_leaves_the_file_and_nothing_beside_it(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(NotWritten, match="No space left on device"):
        edits.replace(file, "a = 1\r\n", "b")
    assert file.read_bytes() == b"a = 1\r\n"
    assert list(file.parent.iterdir()) == [file]


def test_a_link_within_the_root_is_followed_and_stays(file: Path) -> None:
    link = file.with_name("link.toml")
    link.symlink_to("chat.toml")
    edits.replace(edits.place(file.parent, link), "a = 1\r\n", "b")
    assert link.is_symlink()
    assert file.read_text() == "b"


def test_a_link_out_of_the_root_is_refused(file: Path, tmp_path: Path) -> None:
    (tmp_path / "rooted.toml").write_text("outside, with a name that begins alike")
    link = file.with_name("link.toml")
    link.symlink_to(tmp_path / "rooted.toml")
    with pytest.raises(NotWritten, match="outside of"):
        edits.place(file.parent, link)


def test_a_root_that_is_one_file_is_its_own_place(file: Path) -> None:
    assert edits.place(file, file) == file


def test_links_in_a_circle_are_told(file: Path) -> None:
    link = file.with_name("link.toml")
    link.symlink_to("link.toml")
    with pytest.raises(NotWritten):
        edits.read(edits.place(file.parent, link))
