from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from hal0.core.documents import Document, ManifestError, parse_file
from hal0.host import manifests
from hal0.host.git import revision
from hal0.host.manifests import ManifestRoot, seed_manifests

SLOT = 'kind = "Slot"\nname = "{}"\nmodel = "m"\n'


def put(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def names(root: ManifestRoot) -> list[str]:
    return [found.manifest.name for found in root.read().manifests]


@pytest.fixture
def root(tmp_path: Path) -> ManifestRoot:
    put(tmp_path / "root" / "chat.toml", SLOT.format("chat"))
    return ManifestRoot(tmp_path / "root")


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Note each file that is parsed."""
    seen: list[str] = []

    def parse(file: str, text: str) -> tuple[list[Document], list[ManifestError]]:
        seen.append(Path(file).name)
        return parse_file(file, text)

    monkeypatch.setattr(manifests, "parse_file", parse)
    return seen


def test_toml_and_yaml_at_any_depth_are_read(root: ManifestRoot) -> None:
    put(root.path / "deep" / "er" / "embed.yaml", "kind: Slot\nname: embed\nmodel: m\n")
    put(root.path / "rank.yml", "kind: Slot\nname: rank\nmodel: m\n")
    put(root.path / "README.md", "kind: none of ours")
    found = root.read()
    assert sorted(located.manifest.name for located in found.manifests) == ["chat", "embed", "rank"]
    assert (found.errors, found.files) == ((), 3)


@pytest.mark.parametrize("hidden", [".git/config.toml", ".chat.toml", "deep/.venv/x.yaml", ".#chat.yaml"])
def test_hidden_files_and_folders_are_no_manifests(root: ManifestRoot, hidden: str) -> None:
    put(root.path / hidden, "not = [valid")
    assert names(root) == ["chat"]


def test_a_single_file_is_a_root(root: ManifestRoot) -> None:
    put(root.path / "other.toml", "not = [valid")
    assert names(ManifestRoot(root.path / "chat.toml")) == ["chat"]


def test_a_broken_file_is_an_error_beside_the_good_ones(root: ManifestRoot) -> None:
    broken = put(root.path / "broken.toml", "a = 1\nnot = [valid")
    found = root.read()
    assert [located.manifest.name for located in found.manifests] == ["chat"]
    assert [(error.file, error.line) for error in found.errors] == [(str(broken), 2)]


def test_a_file_that_is_no_text_is_an_error(root: ManifestRoot) -> None:
    (root.path / "broken.toml").write_bytes(b"\xff\xfe\x00")
    assert "can't be read" in root.read().errors[0].message


def test_a_file_that_cant_be_opened_is_an_error(root: ManifestRoot) -> None:
    (root.path / "lost.toml").symlink_to("nowhere")
    (error,) = root.read().errors
    assert str(error) == f"{root.path}/lost.toml:0: can't be read: No such file or directory"


def test_a_root_that_is_not_there_is_an_error_and_not_an_empty_one(tmp_path: Path) -> None:
    found = ManifestRoot(tmp_path / "nowhere").read()
    assert [error.message for error in found.errors] == ["can't be read: No such file or directory"]


def test_only_changed_files_are_parsed_again(root: ManifestRoot, parsed: list[str]) -> None:
    put(root.path / "embed.toml", SLOT.format("embed"))
    root.read()
    root.read()
    assert parsed == ["chat.toml", "embed.toml"]
    put(root.path / "embed.toml", SLOT.format("other"))
    assert names(root) == ["chat", "other"]
    assert parsed == ["chat.toml", "embed.toml", "embed.toml"]


def test_a_file_that_was_removed_is_forgotten(root: ManifestRoot, parsed: list[str]) -> None:
    root.read()
    (root.path / "chat.toml").rename(root.path / "hidden")
    assert names(root) == []
    (root.path / "hidden").rename(root.path / "chat.toml")
    assert names(root) == ["chat"]
    assert parsed == ["chat.toml", "chat.toml"]


def test_an_error_of_an_unchanged_file_is_told_every_time(root: ManifestRoot) -> None:
    put(root.path / "broken.toml", "not = [valid")
    assert root.read().errors == root.read().errors != ()


async def test_loading_is_reading(root: ManifestRoot) -> None:
    assert (await root.load()).manifests == root.read().manifests


def test_the_seeds_are_valid() -> None:
    assert {"llama-server-cpu", "embedded", "whisper-base"} <= {found.manifest.name for found in seed_manifests()}


# Git.


def git(folder: Path, *words: str) -> str:
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "GIT_CONFIG_NOSYSTEM": "1",
        **{f"GIT_{who}_{what}": f"{what.lower()}@x" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
    }
    done = subprocess.run(
        ["git", "-C", str(folder), *words], check=True, capture_output=True, text=True, env=environment
    )
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    put(tmp_path / "site" / "chat.toml", SLOT.format("chat"))
    put(tmp_path / "other" / "notes", "x")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "first")
    return tmp_path


def test_the_revision_is_the_commit(repository: Path) -> None:
    head = git(repository, "rev-parse", "HEAD")
    found = ManifestRoot(repository / "site").read().revision
    assert len(found) == 12
    assert head.startswith(found)


@pytest.mark.parametrize("change", ["site/chat.toml", "site/new.toml"])
def test_uncommitted_changes_below_the_root_make_it_dirty(repository: Path, change: str) -> None:
    put(repository / change, "x")
    assert revision(repository / "site").endswith("-dirty")


def test_a_removed_manifest_makes_it_dirty(repository: Path) -> None:
    (repository / "site" / "chat.toml").unlink()
    assert revision(repository / "site").endswith("-dirty")


def test_changes_elsewhere_in_the_repository_do_not(repository: Path) -> None:
    put(repository / "other" / "notes", "y")
    assert not revision(repository / "site").endswith("-dirty")


def test_a_single_file_is_as_dirty_as_it_is_itself(repository: Path) -> None:
    put(repository / "site" / "new.toml", "x")
    assert not revision(repository / "site" / "chat.toml").endswith("-dirty")
    put(repository / "site" / "chat.toml", "x")
    assert revision(repository / "site" / "chat.toml").endswith("-dirty")


def test_a_root_outside_of_git_has_no_revision(tmp_path: Path) -> None:
    assert revision(tmp_path) == ""


def test_a_repository_without_a_commit_has_no_revision(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    assert revision(tmp_path) == ""


def test_a_machine_without_git_has_no_revision(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    assert revision(repository) == ""


def test_no_program_of_the_repository_is_run(repository: Path) -> None:
    spy = put(repository / "spy.sh", f"#!/bin/sh\ntouch {repository}/ran\n")
    spy.chmod(0o755)
    git(repository, "config", "core.fsmonitor", str(spy))
    assert revision(repository / "site") != ""
    assert not (repository / "ran").exists()
