from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from hal0.errors import Conflict, Hal0Error
from hal0.host import rewrite as module
from hal0.host.rewrite import put, rewrite


@pytest.fixture
def base(tmp_path: Path) -> Path:
    folder = tmp_path / "root"
    (folder / "deep").mkdir(parents=True)
    for file, text in BEFORE.items():
        (folder / file).write_text(text)
    (folder / "README.md").write_text("not hal0's")
    return folder


BEFORE = {"a.toml": "a", "deep/b.toml": "b", "c.toml": "c"}
AFTER = {"a.toml": "other\r\n", "c.toml": "c", "new/d.toml": "dé"}


def texts(base: Path) -> dict[str, str]:
    files = [path for path in base.rglob("*") if path.is_file()]
    return {path.relative_to(base).as_posix(): path.read_bytes().decode() for path in files}


def test_files_are_made_what_they_shall_be_and_others_stay(base: Path) -> None:
    kept = (base / "c.toml").stat()
    rewrite(base, BEFORE, AFTER)
    assert texts(base) == AFTER | {"README.md": "not hal0's"}
    after = (base / "c.toml").stat()
    assert (after.st_ino, after.st_mtime_ns) == (kept.st_ino, kept.st_mtime_ns)


def test_mode_and_owner_stay(base: Path) -> None:
    (base / "a.toml").chmod(0o640)
    if os.geteuid() == 0:
        os.chown(base / "a.toml", 12, 34)
        os.chown(base, 56, 78)
    owner, folder = (base / "a.toml").stat(), base.stat()
    put(base / "a.toml", "other")
    put(base / "new.toml", "new")
    after, new = (base / "a.toml").stat(), (base / "new.toml").stat()
    assert (stat.S_IMODE(after.st_mode), after.st_uid, after.st_gid) == (0o640, owner.st_uid, owner.st_gid)
    assert (stat.S_IMODE(new.st_mode), new.st_uid, new.st_gid) == (0o644, folder.st_uid, folder.st_gid)


def test_a_link_below_the_folder_stays_a_link(base: Path) -> None:
    (base / "l.toml").symlink_to("deep/b.toml")
    rewrite(base, {"l.toml": "b"}, {"l.toml": "other"})
    assert (base / "l.toml").is_symlink()
    assert (base / "deep" / "b.toml").read_text() == "other"
    rewrite(base, {"l.toml": "other"}, {})
    assert not (base / "l.toml").is_symlink()
    assert (base / "deep" / "b.toml").exists()


def test_nothing_is_changed_where_a_file_leads_outside(base: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside.toml"
    outside.write_text("theirs")
    (base / "z.toml").symlink_to(outside)
    before = texts(base)
    for after in ({"a.toml": "other", "z.toml": "mine"}, {"a.toml": "other"}):
        with pytest.raises(Conflict, match=r"z\.toml leads to .*outside\.toml, outside"):
            rewrite(base, BEFORE | {"z.toml": "theirs"}, after)
    assert (texts(base), outside.read_text()) == (before, "theirs")


def test_what_is_written_comes_before_what_is_removed(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[set[str]] = []

    def noting(path: Path, text: str) -> None:
        seen.append(set(texts(base)))
        put(path, text)

    monkeypatch.setattr(module, "put", noting)
    rewrite(base, BEFORE, AFTER)
    assert all("deep/b.toml" in files for files in seen)
    assert "deep/b.toml" not in texts(base)


def test_a_write_that_fails_leaves_the_old_file_and_no_other(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    before = texts(base)
    with pytest.raises(Hal0Error, match=r"can't write .*a\.toml: No space left on device"):
        rewrite(base, BEFORE, AFTER)
    assert texts(base) == before
