"""Downloads that can't be: servers and disks that say no, whom a token is for, whose certificate is trusted."""

from __future__ import annotations

import errno
import os
import socket
import ssl
import subprocess
import threading
from pathlib import Path

import pytest
import requests

from hal0.errors import StepFailed
from hal0.host import download as module
from hal0.host import webfile
from hal0.host.download import download
from hal0.host.threads import Wire
from hal0.host.webfile import Remote

from .downloads import DATA, PATH, failure, fetch, free_are, half, left, limits, sha
from .file_server import FileServer, serving

TOKEN = "tok"  # noqa: S105 - the test's own


@pytest.mark.parametrize(
    ("status", "headers", "says", "hint"),
    [
        (404, {}, "it is not there", "source"),
        (410, {}, "it is not there", "source"),
        (401, {}, "answered 401", "repo"),
        (403, {}, "answered 403", "repo"),
        (429, {"Retry-After": "30"}, "too many requests", "in 30 s"),
        (429, {}, "too many requests", "later"),
        (500, {}, "answered 500", "later"),
        (302, {}, "answered 302", "later"),
        (302, {"Location": PATH}, "more than 10 redirects", "source"),
        (302, {"Location": "ftp://example.com/a"}, "anyone on the way", "source"),
        (302, {"Location": "http://example.com:port/a"}, "no address", "source"),
    ],
)
def test_a_server_that_says_no_leaves_nothing(
    server: FileServer, path: Path, *, status: int, headers: dict[str, str], says: str, hint: str
) -> None:
    server.put(PATH, status=status, headers=headers)
    error = failure(server, path)
    assert says in str(error)
    assert hint in error.hint
    assert left(path) == []


def test_a_no_in_between_keeps_what_has_come(server: FileServer, path: Path) -> None:
    server.put(PATH, DATA, cuts=[100_000])
    failure(server, path)
    server.put(PATH, status=503)
    failure(server, path)
    server.put(PATH, DATA)
    fetch(server, path)
    assert server.ranges == [None, "bytes=100000-", "bytes=100000-"]


def test_a_server_that_is_not_there(server: FileServer, path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        server.url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        error = failure(server, path)
    assert "Connection refused; nothing has come" in str(error)
    assert left(path) == []


def test_a_server_that_falls_silent_is_not_waited_for(server: FileServer, path: Path) -> None:
    server.put(PATH, DATA, gate=threading.Event())
    error = failure(server, path, within=limits(silence=0.3))
    assert "no answer in time" in str(error)


def test_reasons_of_failed_connections_hold_no_address() -> None:
    error = requests.ConnectionError("http://host/?sig=s3cret")
    assert webfile.reason(error) == "the connection broke"
    error.__context__ = socket.gaierror(-2, "Name or service not known")
    assert webfile.reason(error) == "its name leads to no address"
    assert webfile.reason(requests.ReadTimeout("s3cret")) == "no answer in time"


def test_a_compressed_answer_is_refused(server: FileServer, path: Path) -> None:
    server.put(PATH, DATA, headers={"Content-Encoding": "gzip"})
    assert "compressed" in str(failure(server, path))
    assert left(path) == []


def test_an_answer_whose_end_can_t_be_told_needs_a_sha256(server: FileServer, path: Path) -> None:
    server.put(PATH, DATA, framing="none")
    error = failure(server, path)
    assert "does not say where it ends" in str(error)
    assert "sha256" in error.hint
    fetch(server, path, sha256=sha(DATA))
    assert path.read_bytes() == DATA


@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("size", [len(DATA) - 1, len(DATA) + 1])
def test_a_file_of_another_size_than_the_hub_said(server: FileServer, path: Path, framing: str, size: int) -> None:
    server.put(PATH, DATA, framing=framing)
    failure(server, path, size=size)


def test_a_disk_without_room_is_told_before_anything_is_fetched(server: FileServer, path: Path) -> None:
    server.put(PATH, DATA)
    error = failure(server, path, within=limits(reserve=1 << 60))
    assert f"no room in {path.parent}" in str(error)
    assert "293.0 KiB are to come" in str(error)
    assert left(path) == []


def test_only_what_is_still_to_come_needs_room(server: FileServer, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server.put(PATH, DATA, cuts=[100_000])
    failure(server, path)
    free_are(monkeypatch, 199_999)
    failure(server, path)
    free_are(monkeypatch, 200_000)
    fetch(server, path)
    assert path.read_bytes() == DATA


def test_a_disk_that_others_fill_meanwhile_ends_the_download(
    server: FileServer, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.put(PATH, DATA)
    monkeypatch.setattr(module, "_LOOK_BYTES", 0)
    free_are(monkeypatch, 2_000_000)
    told: list[int] = []

    def tell(done: int, *_: object) -> None:
        told.append(done)
        free_are(monkeypatch, 400_000)

    with pytest.raises(StepFailed, match="no room"):
        download(Remote(server.url + PATH), path, tell, Wire(), limits(reserve=1_000_000))
    assert half(path).stat().st_size >= told[-1]
    assert not path.exists()


def test_a_disk_that_is_full_keeps_what_has_come(
    server: FileServer, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.put(PATH, DATA)
    with monkeypatch.context() as patch:
        real = os.pwrite

        def pwrite(descriptor: int, data: bytes, offset: int) -> int:
            if offset >= 100_000:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return real(descriptor, data[: 100_000 - offset], offset)

        patch.setattr(os, "pwrite", pwrite)
        error = failure(server, path)
    assert "No space left on device" in str(error)
    fetch(server, path)
    assert server.ranges == [None, "bytes=100000-"]
    assert path.read_bytes() == DATA


def test_a_folder_that_can_t_be_written(server: FileServer, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server.put(PATH, DATA)

    def refuse(*_: object) -> int:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(os, "open", refuse)
    error = failure(server, path)
    assert str(error) == f"can't write {path}: Read-only file system"
    assert "ProtectHome" in error.hint
    assert server.asked == []


def test_a_link_in_the_place_of_the_half_file_is_not_followed(server: FileServer, path: Path) -> None:
    server.put(PATH, DATA)
    path.parent.mkdir()
    theirs = path.with_name("theirs")
    theirs.write_text("precious")
    half(path).symlink_to(theirs)
    failure(server, path)
    assert theirs.read_text() == "precious"


def test_a_token_goes_to_its_own_host_alone(server: FileServer, path: Path) -> None:
    with serving() as elsewhere:
        server.put(PATH, status=307, headers={"Location": "/here"})
        server.put("/here", status=302, headers={"Location": f"{elsewhere.url}/there?sig=theirs"})
        elsewhere.put("/there", status=302, headers={"Location": f"{server.url}/back"})
        server.put("/back", DATA)
        fetch(server, path, token=TOKEN)
        assert [each.token for each in elsewhere.asked] == [None]
    assert [each.token for each in server.asked] == ["Bearer tok"] * 3
    assert path.read_bytes() == DATA


def test_no_password_of_a_netrc_is_sent(
    server: FileServer, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login a password s3cret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    server.put(PATH, DATA)
    fetch(server, path)
    assert [each.token for each in server.asked] == [None]


def test_a_token_is_in_no_repr() -> None:
    assert TOKEN not in repr(Remote("https://example.com/a", token=TOKEN))


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    made = tmp_path / "cert.pem"
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", str(made)]
    name = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run(["openssl", "req", "-x509", *key, "-out", f"{made}.crt", *name], check=True, capture_output=True)
    with made.open("a") as file:
        file.write(Path(f"{made}.crt").read_text())
    return made


def test_certificates_are_checked_and_a_host_s_own_are_heeded(
    path: Path, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with serving(context) as server:
        server.put(PATH, DATA)
        assert "its certificate is not trusted: self-signed certificate" in str(failure(server, path))
        monkeypatch.setenv("SSL_CERT_FILE", f"{certificate}.crt")
        fetch(server, path)
        assert path.read_bytes() == DATA
        path.unlink()
        server.put(PATH, status=302, headers={"Location": "http://127.0.0.1/plain"})
        assert "anyone on the way" in str(failure(server, path))
