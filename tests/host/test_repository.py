"""Whole repositories of the hub, fetched into a folder from a server here."""

from __future__ import annotations

import asyncio
import hashlib
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from hal0.core.facts import Known, Unknown
from hal0.core.model import Progress, Source, SourceKind
from hal0.errors import StepFailed
from hal0.host.download import Limits
from hal0.host.fetcher import HttpFetcher
from hal0.host.folder import files_in
from hal0.host.models import is_there

from .downloads import wait_for
from .file_server import FileServer, serving

WEIGHTS = bytes(range(256)) * 1000
FILES = {
    "config.json": b'{"model_type": "tiny"}',
    "model.safetensors": WEIGHTS,
    "deep/vocab.json": b"{}",
    "pytorch_model.bin": b"the same again",
}
SOURCE = Source(SourceKind.HUB, repo="org/repo", include=("*.json", "*.safetensors"))
WANTED = ["config.json", "deep/vocab.json", "model.safetensors"]
FIRST, SECOND = "c0" * 20, "d0" * 20


@pytest.fixture(autouse=True)
def endpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    with serving() as files:
        monkeypatch.setenv("HF_ENDPOINT", files.url)
        monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "token"))
        publish(files, FILES)
        yield files


@pytest.fixture
def fetcher() -> HttpFetcher:
    return HttpFetcher(Limits(reserve=0))


def publish(server: FileServer, files: dict[str, bytes], commit: str = FIRST) -> None:
    """Have the branch main be at a commit with these files."""
    siblings = []
    for name, content in files.items():
        said = {"rfilename": name, "size": len(content), "blobId": blob(content)}
        if name.endswith((".safetensors", ".bin")):
            said["lfs"] = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 1}
        siblings.append(said)
        server.put(f"/org/repo/resolve/{commit}/{name}", content)
    answer = {"id": "org/repo", "sha": commit, "siblings": siblings}
    server.put("/api/models/org/repo/revision/main", json.dumps(answer).encode())


def blob(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def names(folder: Path) -> list[str]:
    return sorted(str(file.relative_to(folder)) for file in files_in(folder))


def ignore(_: Progress) -> None: ...


async def test_a_repository_is_put_in_place_whole(endpoint: FileServer, fetcher: HttpFetcher, tmp_path: Path) -> None:
    path, told = tmp_path / "m" / "repo", list[Progress]()
    await fetcher.fetch(SOURCE, str(path), "", told.append)
    assert names(path) == WANTED
    assert (path / "model.safetensors").read_bytes() == WEIGHTS
    assert [each.name for each in path.parent.iterdir()] == ["repo"]
    total = sum(len(FILES[name]) for name in WANTED)
    assert (told[-1].done, told[-1].total) == (total, total)
    assert is_there(str(path)) == Known(value=True)
    asked = len(endpoint.asked)
    await fetcher.fetch(SOURCE, str(path), "", ignore)
    assert len(endpoint.asked) == asked
    assert await fetcher.size_of(SOURCE) == total


async def test_one_that_broke_off_is_gone_on_with(endpoint: FileServer, fetcher: HttpFetcher, tmp_path: Path) -> None:
    path = tmp_path / "repo"
    at = f"/org/repo/resolve/{FIRST}/model.safetensors"
    endpoint.put(at, WEIGHTS, cuts=[100_000])
    with pytest.raises(StepFailed, match="are kept"):
        await fetcher.fetch(SOURCE, str(path), "", ignore)
    assert not path.exists()
    assert is_there(str(path)) == Known(value=False)
    endpoint.asked.clear()
    await fetcher.fetch(SOURCE, str(path), "", ignore)
    assert names(path) == WANTED
    asked = [(each.path.rpartition("/")[2], each.range) for each in endpoint.asked if "/resolve/" in each.path]
    assert asked == [("model.safetensors", "bytes=100000-"), ("vocab.json", None)]


async def test_a_branch_that_moves_between_two_tries_does_not_mix_them(
    endpoint: FileServer, fetcher: HttpFetcher, tmp_path: Path
) -> None:
    path = tmp_path / "repo"
    publish(endpoint, {**FILES, "old.json": b"[]"})
    endpoint.put(f"/org/repo/resolve/{FIRST}/model.safetensors", WEIGHTS, cuts=[1000])
    with pytest.raises(StepFailed):
        await fetcher.fetch(SOURCE, str(path), "", ignore)
    later = {**FILES, "config.json": b'{"model_type": "new!"}', "model.safetensors": WEIGHTS[::-1]}
    publish(endpoint, later, SECOND)
    await fetcher.fetch(SOURCE, str(path), "", ignore)
    assert names(path) == WANTED
    assert [(path / name).read_bytes() for name in WANTED] == [later[name] for name in WANTED]


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
async def test_a_file_that_is_not_the_hub_s_keeps_the_folder_out(
    endpoint: FileServer, fetcher: HttpFetcher, tmp_path: Path, name: str
) -> None:
    path = tmp_path / "repo"
    endpoint.put(f"/org/repo/resolve/{FIRST}/{name}", FILES[name][::-1])
    with pytest.raises(StepFailed, match="removed"):
        await fetcher.fetch(SOURCE, str(path), "", ignore)
    assert not path.exists()
    assert not (tmp_path / "repo.part" / name).exists()


async def test_many_who_ask_are_one_download(endpoint: FileServer, fetcher: HttpFetcher, tmp_path: Path) -> None:
    gate, path = threading.Event(), tmp_path / "repo"
    endpoint.put(f"/org/repo/resolve/{FIRST}/model.safetensors", WEIGHTS, gate=gate)
    half = tmp_path / "repo.part" / "model.safetensors.part"
    tasks = [asyncio.create_task(fetcher.fetch(SOURCE, str(path), "", ignore)) for _ in range(3)]
    await asyncio.to_thread(wait_for, lambda: half.exists() and half.stat().st_size > 0)
    gate.set()
    await asyncio.gather(*tasks)
    assert names(path) == WANTED
    gets = [each.path for each in endpoint.asked if each.method == "GET" and "/resolve/" in each.path]
    assert len(gets) == len(set(gets))
    assert [each.name for each in tmp_path.iterdir()] == ["repo"]


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({"model.gguf": b"x"}, "has no config.json and"),
        ({"config.json": b"{}", "deep/model.safetensors": b"x"}, "has no config.json and"),
        ({**FILES, "../out.json": b"{}"}, "which is none of a folder"),
        ({**FILES, "/etc/out.json": b"{}"}, "which is none of a folder"),
    ],
)
async def test_what_is_no_folder_of_a_model_is_not_fetched(
    endpoint: FileServer, fetcher: HttpFetcher, tmp_path: Path, files: dict[str, bytes], says: str
) -> None:
    publish(endpoint, files)
    with pytest.raises(StepFailed, match=says) as caught:
        await fetcher.fetch(SOURCE, str(tmp_path / "repo"), "", ignore)
    assert caught.value.hint
    assert list(tmp_path.iterdir()) == []


async def test_what_is_in_the_way_is_left_alone(fetcher: HttpFetcher, tmp_path: Path) -> None:
    (tmp_path / "repo").mkdir()
    (tmp_path / "repo" / "other.gguf").touch()
    with pytest.raises(StepFailed, match="is no model's folder"):
        await fetcher.fetch(SOURCE, str(tmp_path / "repo"), "", ignore)
    assert names(tmp_path / "repo") == ["other.gguf"]


def test_a_folder_is_a_model_with_its_configuration_and_weights_only(tmp_path: Path) -> None:
    assert is_there(str(tmp_path)) == Known(value=False)
    (tmp_path / "config.json").touch()
    assert is_there(str(tmp_path)) == Known(value=False)
    (tmp_path / "a.safetensors").touch()
    assert is_there(str(tmp_path)) == Known(value=True)
    assert isinstance(is_there("/" + "x" * 300), Unknown)
