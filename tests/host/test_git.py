from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from hal0.host.git import NotCommitted, Repository

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root writes as another user")
EVE = 4711


def git(folder: Path, *words: str) -> str:
    options = ("-c", "safe.directory=*", "-c", "user.name=eve", "-c", "user.email=eve@here")
    argv = ["git", "-C", str(folder), *options, *words]
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()


def repository_in(folder: Path) -> Path:
    (folder / "site").mkdir(parents=True)
    git(folder, "init", "-q")
    for name in ("chat", "other"):
        (folder / "site" / f"{name}.toml").write_text("a = 1\n")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "first")
    return folder


@pytest.fixture
def top(tmp_path: Path) -> Path:
    return repository_in(tmp_path / "repository")


@pytest.fixture
def eves() -> Iterator[Path]:
    """A repository of another user, with a filter, where that user can go: pytest's own folders are closed."""
    with TemporaryDirectory() as name:
        folder = repository_in(Path(name) / "repository")
        (folder / ".gitattributes").write_text("*.toml filter=spy\n")
        git(folder, "config", "filter.spy.clean", f"sh -c 'id -u > {name}/ran; cat'")
        for path in (Path(name), folder, *folder.rglob("*")):
            os.chown(path, EVE, EVE, follow_symlinks=False)
        yield folder


def found(path: Path) -> Repository:
    repository = Repository.of(path)
    assert repository is not None
    return repository


def test_only_the_file_is_committed_and_what_is_staged_stays_so(top: Path) -> None:
    chat, other = top / "site" / "chat.toml", top / "site" / "other.toml"
    other.write_text("staged\n")
    git(top, "add", "site/other.toml")
    chat.write_text("a = 2\n")
    commit = found(chat).commit(chat, "slot chat: a 1 -> 2 (eve)")
    assert git(top, "log", "-1", "--format=%s") == "slot chat: a 1 -> 2 (eve)"
    assert git(top, "rev-parse", "--short=12", "HEAD") == commit
    assert git(top, "show", "--name-only", "--format=", "HEAD") == "site/chat.toml"
    assert git(top, "diff", "--cached", "--name-only") == "site/other.toml"


def test_a_new_file_and_a_removed_one_are_committed(top: Path) -> None:
    new, chat = top / "site" / "new.toml", top / "site" / "chat.toml"
    assert found(new).is_clean(new)
    new.write_text("b\n")
    found(new).commit(new, "new")
    chat.unlink()
    found(chat).commit(chat, "gone")
    assert git(top, "ls-tree", "-r", "--name-only", "HEAD").split() == ["site/new.toml", "site/other.toml"]
    assert git(top, "status", "--porcelain") == ""


def test_a_file_is_clean_while_it_is_as_it_was_committed(top: Path) -> None:
    chat = top / "site" / "chat.toml"
    assert found(chat).is_clean(chat)
    (top / "site" / "other.toml").write_text("b\n")
    assert found(chat).is_clean(chat)
    chat.write_text("b\n")
    assert not found(chat).is_clean(chat)


def test_an_ignored_file_is_not_clean(top: Path) -> None:
    (top / ".gitignore").write_text("*.local.toml\n")
    mine = top / "site" / "mine.local.toml"
    mine.write_text("x\n")
    assert not found(mine).is_clean(mine)


def test_a_repository_that_cant_be_asked_is_not_clean(top: Path) -> None:
    repository = found(top / "site" / "chat.toml")
    (top / ".git" / "index").write_bytes(b"broken")
    assert not repository.is_clean(top / "site" / "chat.toml")


def test_no_hook_is_run(top: Path, tmp_path: Path) -> None:
    for name in ("pre-commit", "post-commit", "commit-msg", "post-index-change"):
        hook = top / ".git" / "hooks" / name
        hook.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\nexit 1\n")
        hook.chmod(0o755)
    chat = top / "site" / "chat.toml"
    chat.write_text("b\n")
    assert found(chat).commit(chat, "x")
    assert not (tmp_path / "ran").exists()


def test_the_author_is_the_owners_or_hal0(top: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hal0.host.git._home", lambda _: str(tmp_path))
    chat = top / "site" / "chat.toml"
    chat.write_text("b\n")
    found(chat).commit(chat, "x")
    assert git(top, "log", "-1", "--format=%an") == "hal0"
    git(top, "config", "user.name", "frank")
    git(top, "config", "user.email", "frank@here")
    chat.write_text("c\n")
    found(chat).commit(chat, "y")
    assert git(top, "log", "-1", "--format=%an <%ae>") == "frank <frank@here>"


def test_a_commit_that_fails_says_why_and_loses_nothing(top: Path) -> None:
    chat = top / "site" / "chat.toml"
    chat.write_text("b\n")
    (top / ".git" / "index.lock").touch()
    with pytest.raises(NotCommitted, match=r"index\.lock"):
        found(chat).commit(chat, "x")
    assert chat.read_text() == "b\n"


def test_nothing_of_our_environment_steers_git(top: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chat = top / "site" / "chat.toml"
    repository = found(chat)
    chat.write_text("b\n")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    repository.commit(chat, "x")
    monkeypatch.delenv("GIT_DIR")
    assert git(top, "log", "-1", "--format=%s") == "x"


def test_a_folder_outside_of_git_has_no_repository(tmp_path: Path) -> None:
    assert Repository.of(tmp_path / "chat.toml") is None


def test_a_machine_without_git_has_no_repository(top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    assert Repository.of(top / "site" / "chat.toml") is None


@needs_root
def test_anothers_repository_is_written_by_nobody_but_its_owner(eves: Path) -> None:
    chat = eves / "site" / "chat.toml"
    chat.write_text("b\n")
    assert not found(chat).is_clean(chat)
    found(chat).commit(chat, "x")
    assert git(eves, "log", "-1", "--format=%s") == "x"
    assert {path.stat().st_uid for path in (eves / ".git").rglob("*")} == {EVE}
    assert (eves.parent / "ran").read_text() == f"{EVE}\n"  # what the repository runs is not run by root
