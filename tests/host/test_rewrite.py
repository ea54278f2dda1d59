from __future__ import annotations

import os
from pathlib import Path

import pytest

from hal0.errors import Conflict
from hal0.host import edits
from hal0.host.edits import NotWritten
from hal0.host.rewrite import rewrite


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
        with pytest.raises(Conflict, match=r"z\.toml leads to .*outside\.toml, outside of"):
            rewrite(base, BEFORE | {"z.toml": "theirs"}, after)
    assert (texts(base), outside.read_text()) == (before, "theirs")


def test_what_is_written_comes_before_what_is_removed(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[bool, set[str]]] = []
    real = edits.replace

    def noting(file: Path, before: str | None, after: str | None) -> None:
        seen.append((after is None, set(texts(base))))
        real(file, before, after)

    monkeypatch.setattr(edits, "replace", noting)
    rewrite(base, BEFORE, AFTER)
    assert [is_removed for is_removed, _ in seen] == [False, False, True]
    assert all("deep/b.toml" in files for _, files in seen)
    assert "deep/b.toml" not in texts(base)


def test_a_write_that_fails_leaves_the_old_file_and_no_other(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    before = texts(base)
    with pytest.raises(NotWritten, match=r"a\.toml can't be written: No space left on device"):
        rewrite(base, BEFORE, AFTER)
    assert texts(base) == before
