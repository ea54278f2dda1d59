"""The hub, as a server here plays it: what its client asks, how it fails, and where tokens go."""

from __future__ import annotations

import hashlib
import json
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from hal0.core.model import Progress, Source, SourceKind, Version
from hal0.errors import StepFailed
from hal0.host import hub
from hal0.host.download import Limits
from hal0.host.fetcher import HttpFetcher

from .file_server import FileServer, serving

DATA = bytes(range(256)) * 1000
SHA256 = hashlib.sha256(DATA).hexdigest()
COMMIT = "c0" * 20
MODEL = Source(SourceKind.HUB, repo="org/repo", file="q4/small.gguf")
AT_MAIN = "/org/repo/resolve/main/q4/small.gguf"
AT_COMMIT = f"/org/repo/resolve/{COMMIT}/q4/small.gguf"
LFS = {"X-Repo-Commit": COMMIT, "X-Linked-Etag": f'"{SHA256}"', "X-Linked-Size": str(len(DATA))}
THERE = [{"rfilename": name, "size": 1, "blobId": "a"} for name in ("README.md", "q4/smaller.gguf")]
INFO = json.dumps({"id": "org/repo", "sha": COMMIT, "siblings": THERE}).encode()


@pytest.fixture(autouse=True)
def endpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    with serving() as files:
        monkeypatch.setenv("HF_ENDPOINT", files.url)
        monkeypatch.setenv("HF_TOKEN", "tok")
        monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "token"))
        yield files


@pytest.fixture
def cdn() -> Iterator[FileServer]:
    with serving() as files:
        yield files


def failure(source: Source = MODEL) -> StepFailed:
    with pytest.raises(StepFailed) as caught:
        hub.look(source)
    assert "tok" not in f"{caught.value} {caught.value.hint}".replace("a token", "")
    assert caught.value.hint
    return caught.value


def test_a_name_leads_to_the_file_of_a_commit(endpoint: FileServer) -> None:
    endpoint.put(AT_MAIN, headers=LFS)
    found = hub.look(MODEL)
    assert found.commit == COMMIT
    assert found.remote.url == endpoint.url + AT_COMMIT
    assert (found.remote.size, found.remote.sha256, found.remote.token) == (len(DATA), SHA256, "tok")
    # One question, with the token, and no word to anyone else.
    assert sys.modules["huggingface_hub.constants"].HF_HUB_DISABLE_TELEMETRY
    assert [(each.method, each.path, each.token) for each in endpoint.asked] == [("HEAD", AT_MAIN, "Bearer tok")]


def test_a_small_file_has_no_sha256_and_an_old_endpoint_no_commit(endpoint: FileServer) -> None:
    endpoint.put(AT_MAIN, DATA, etag='"7fd1a60b01f91b314f59955a4e4d4e80d8edf11d"')
    found = hub.look(MODEL)
    assert (found.commit, found.remote.sha256, found.remote.size) == ("", "", len(DATA))
    assert found.remote.url == endpoint.url + AT_MAIN


def test_without_a_token_none_is_sent(endpoint: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN")
    endpoint.put(AT_MAIN, headers=LFS)
    assert hub.look(MODEL).remote.token == ""
    assert endpoint.asked[0].token is None


async def test_the_bytes_come_from_elsewhere_and_the_token_stays(
    endpoint: FileServer, cdn: FileServer, tmp_path: Path
) -> None:
    moved = {"Location": f"{cdn.url}/blob?sig=s3cret"}
    endpoint.put(AT_MAIN, status=302, headers=LFS | moved)
    endpoint.put(AT_COMMIT, status=302, headers=moved)
    cdn.put("/blob", DATA, cuts=[100_000])
    path, fetcher = tmp_path / "org" / "repo" / "small.gguf", HttpFetcher(Limits(reserve=0))
    with pytest.raises(StepFailed, match=r"97\.7 KiB of 250\.0 KiB are kept") as caught:
        await fetcher.fetch(MODEL, str(path), "", ignore)
    assert "s3cret" not in str(caught.value)
    await fetcher.fetch(MODEL, str(path), SHA256, ignore)
    assert path.read_bytes() == DATA
    assert cdn.ranges == [None, "bytes=100000-"]
    assert [each.token for each in cdn.asked] == [None, None]


async def test_a_branch_that_moved_to_another_file_is_begun_anew(endpoint: FileServer, tmp_path: Path) -> None:
    endpoint.put(AT_MAIN, headers=LFS)
    endpoint.put(AT_COMMIT, DATA, cuts=[100_000])
    path, fetcher = tmp_path / "small.gguf", HttpFetcher(Limits(reserve=0))
    with pytest.raises(StepFailed):
        await fetcher.fetch(MODEL, str(path), "", ignore)
    other = DATA[::-1]
    later = {"X-Repo-Commit": "d0" * 20, "X-Linked-Etag": f'"{hashlib.sha256(other).hexdigest()}"'}
    endpoint.put(AT_MAIN, headers=LFS | later)
    endpoint.put(AT_COMMIT.replace(COMMIT, "d0" * 20), other)
    await fetcher.fetch(MODEL, str(path), "", ignore)
    assert path.read_bytes() == other
    assert endpoint.ranges == [None, None]


async def test_the_hub_s_sha256_counts_where_the_manifest_states_none(endpoint: FileServer, tmp_path: Path) -> None:
    endpoint.put(AT_MAIN, headers=LFS)
    endpoint.put(AT_COMMIT, DATA[::-1])
    with pytest.raises(StepFailed, match=f"not {SHA256}: removed"):
        await HttpFetcher(Limits(reserve=0)).fetch(MODEL, str(tmp_path / "small.gguf"), "", ignore)
    assert list(tmp_path.iterdir()) == []


async def test_a_sha256_that_the_hub_has_not_is_told_before_anything_is_fetched(
    endpoint: FileServer, tmp_path: Path
) -> None:
    endpoint.put(AT_MAIN, headers=LFS)
    with pytest.raises(StepFailed, match=f"has the sha256 {SHA256}, not {'0' * 64}: nothing was fetched"):
        await HttpFetcher().fetch(MODEL, str(tmp_path / "small.gguf"), "0" * 64, ignore)
    assert endpoint.ranges == []
    assert list(tmp_path.iterdir()) == []


def ignore(_: Progress) -> None: ...


def test_an_endpoint_that_leads_elsewhere_gets_no_token_sent_there(
    endpoint: FileServer, cdn: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The package takes some hosts for the hub wherever the endpoint is; this one is made one of them.
    origin = ("http", "127.0.0.1", int(cdn.url.rpartition(":")[2]))
    monkeypatch.setattr("huggingface_hub.utils._http._HUB_ORIGINS", frozenset({origin}), raising=False)
    endpoint.put(AT_MAIN, status=307, headers={"Location": cdn.url + AT_MAIN})
    cdn.put(AT_MAIN, headers=LFS)
    hub.look(MODEL)
    assert [each.token for each in cdn.asked] in ([None], [])
    assert endpoint.asked[0].token == "Bearer tok"  # noqa: S105 - the test's own


def test_a_repository_that_was_renamed_is_found(endpoint: FileServer) -> None:
    endpoint.put(AT_MAIN, status=307, headers={"Location": AT_MAIN.replace("org", "new")})
    endpoint.put(AT_MAIN.replace("org", "new"), headers=LFS)
    assert hub.look(MODEL).commit == COMMIT


@pytest.mark.parametrize(
    ("status", "code", "says", "hint"),
    [
        (403, "GatedRepo", "org/repo is gated", "accept its terms at http://127.0.0.1"),
        (401, "RepoNotFound", "has no repository org/repo that HF_TOKEN may see", "HF_TOKEN"),
        (401, "", "answered 401", "HF_TOKEN"),
        (404, "RepoNotFound", "has no repository org/repo", "Mend the model's source"),
        (404, "RevisionNotFound", "has no revision main", "a branch, a tag or a commit"),
        (404, "EntryNotFound", "org/repo at main has no file q4/small.gguf", "Mend the file"),
        (404, "", "org/repo at main has no file q4/small.gguf", "Mend the file"),
        (403, "", "answered 403", "HF_TOKEN"),
        (429, "", "answered 429", "later"),
        (500, "", "answered 500", "later"),
    ],
)
def test_what_the_hub_says_no_to_is_told_by_name(
    endpoint: FileServer, status: int, code: str, says: str, hint: str
) -> None:
    endpoint.put(AT_MAIN, status=status, headers={"X-Error-Code": code} if code else {})
    error = failure()
    assert says in str(error)
    assert hint in error.hint


def test_the_files_of_a_repository_are_those_of_a_commit(endpoint: FileServer) -> None:
    lfs = {"sha256": SHA256, "size": 7, "pointerSize": 1}
    siblings = [
        {"rfilename": "config.json", "size": 3, "blobId": "b10b"},
        {"rfilename": "q4/small.gguf", "size": 7, "blobId": "b10c", "lfs": lfs},
    ]
    answer = {"id": "org/repo", "sha": COMMIT, "siblings": siblings}
    endpoint.put("/api/models/org/repo/revision/v1", json.dumps(answer).encode())
    small, large = hub.repository(Source(SourceKind.HUB, repo="org/repo", revision="v1"))
    assert (small.path, small.remote.size, small.remote.sha256, small.blob) == ("config.json", 3, "", "b10b")
    assert (large.remote.url, large.remote.sha256, large.blob) == (endpoint.url + AT_COMMIT, SHA256, "")
    assert endpoint.asked[0].token == "Bearer tok"  # noqa: S105 - the test's own


@pytest.mark.parametrize(
    ("code", "says"),
    [("RepoNotFound", "has no repository org/repo"), ("RevisionNotFound", "no revision"), ("", "listed")],
)
def test_a_repository_that_cant_be_listed_is_told(endpoint: FileServer, code: str, says: str) -> None:
    headers = {"X-Error-Code": code} if code else {}
    endpoint.put("/api/models/org/repo/revision/main", status=404, headers=headers)
    with pytest.raises(StepFailed, match=says) as caught:
        hub.repository(Source(SourceKind.HUB, repo="org/repo"))
    assert caught.value.hint


def test_a_private_repository_is_another_matter_without_a_token(
    endpoint: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    endpoint.put(AT_MAIN, status=401, headers={"X-Error-Code": "RepoNotFound"})
    assert "that may be seen without a token" in str(failure())


def test_a_file_that_is_not_there_comes_with_the_names_of_those_that_are(endpoint: FileServer) -> None:
    endpoint.put("/api/models/org/repo/revision/main", INFO)
    assert failure().hint == "Mend the file of the model's source. There are: q4/smaller.gguf."


def test_a_hub_that_can_t_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{port}")
        error = failure()
    assert str(error) == f"127.0.0.1:{port} can't be asked for org/repo/q4/small.gguf: Connection refused"


def test_offline_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE is set" in str(failure())


def test_a_repository_of_no_name(endpoint: FileServer) -> None:
    assert "is no name of a repository" in str(failure(Source(SourceKind.HUB, repo="a/b/c", file="x")))
    assert endpoint.asked == []


def test_a_list_that_does_not_come_is_not_waited_for(endpoint: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "_SILENCE_S", 0.05)
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)  # between its own tries
    endpoint.put(AT_MAIN, status=404, headers={"X-Error-Code": "EntryNotFound"})
    endpoint.put("/api/models/org/repo/revision/main", INFO, gate=threading.Event())
    error = failure()
    assert "has no file q4/small.gguf" in str(error)
    assert error.hint == "Mend the file of the model's source."


@pytest.mark.parametrize("code", ["GatedRepo", "RepoNotFound", "Unknown"])
def test_a_password_of_the_endpoint_is_told_nowhere(
    endpoint: FileServer, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", endpoint.url.replace("://", "://me:s3cret@"))
    endpoint.put(AT_MAIN, status=403, headers={"X-Error-Code": code})
    error = failure()
    assert "s3cret" not in f"{error} {error.hint}"


async def test_a_look_says_the_commit_and_the_sum_and_fetches_nothing(endpoint: FileServer) -> None:
    endpoint.put(AT_MAIN, headers=LFS)
    fetcher = HttpFetcher()
    assert await fetcher.look(MODEL) == Version(COMMIT, SHA256, len(DATA))
    assert endpoint.ranges == []
    assert await fetcher.look(Source(SourceKind.URL, url="http://127.0.0.1:9/a.gguf")) == Version()
