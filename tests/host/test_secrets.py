from __future__ import annotations

import os
import traceback
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hal0.core.secretref import SecretRef
from hal0.errors import Hal0Error
from hal0.host.secrets import SecretMissing, Secrets

TEXT = "sk-topsecret"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "key"
    path.write_text(f"{TEXT}\n")
    return path


@pytest.fixture(autouse=True)
def credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "credentials"
    folder.mkdir()
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(folder))
    return folder


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Return a list that each file is added to when its content is read."""
    read, real = [], Path.read_bytes

    def read_bytes(path: Path) -> bytes:
        read.append(path)
        return real(path)

    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    return read


def in_file(path: Path) -> SecretRef:
    return SecretRef("file", str(path))


def rewrite(path: Path, text: str) -> None:
    """Write a file in place, at least a tick of the file system's clock later."""
    at = path.stat().st_mtime_ns + 1_000_000_000
    path.write_text(text)
    os.utime(path, ns=(at, at))


def refusal(ref: SecretRef) -> SecretMissing:
    with pytest.raises(SecretMissing) as caught:
        Secrets().read(ref)
    return caught.value


def test_a_place_is_shown_as_it_is_written() -> None:
    refs = [SecretRef("env", "KEY"), SecretRef("file", "/etc/key"), SecretRef("credential", "openai")]
    assert [str(ref) for ref in refs] == ["env KEY", "file /etc/key", "credential openai"]


def test_a_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEY", TEXT)
    assert Secrets().read(SecretRef("env", "KEY")) == TEXT
    monkeypatch.setenv("KEY", "other")
    assert Secrets().read(SecretRef("env", "KEY")) == "other"


def test_a_file(file: Path) -> None:
    assert Secrets().read(in_file(file)) == TEXT


def test_a_credential(credentials: Path) -> None:
    (credentials / "openai").write_text(TEXT)
    assert Secrets().read(SecretRef("credential", "openai")) == TEXT


@pytest.mark.parametrize("content", [b"a key", b"a key\n", b"a key\r\n"])
def test_one_newline_at_the_end_is_the_editors(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    assert Secrets().read(in_file(file)) == "a key"


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "it is empty"),
        (b"\n", "it is empty"),
        (b"  \n", "it is empty"),
        (b"sk-topsecret\n\n", "it is not one line of plain text"),
        (b"sk-topsecret\nsk-topsecret", "it is not one line of plain text"),
        (b"sk-topsecret\0", "it is not one line of plain text"),
        (b"sk-top\tsecret", "it is not one line of plain text"),
        (b"sk-topsecret\x7f", "it is not one line of plain text"),
        (b"sk-topsecret\xff", "it is not one line of plain text"),
        (b"\xef\xbb\xbfsk-topsecret", "it is not one line of plain text"),
        (b"sk-topsecret" * 10_000, "it is larger than 64 KiB"),
    ],
)
def test_what_is_no_secret_is_refused_and_not_shown(file: Path, content: bytes, why: str) -> None:
    file.write_bytes(content)
    error = refusal(in_file(file))
    assert str(error) == f"no secret in file {file}: {why}"
    assert isinstance(error, Hal0Error)
    assert error.hint == f"Put the secret into {file}, as one line that hal0's user may read."


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=20))
def test_a_file_holds_one_line_of_plain_text_or_nothing_that_is_used(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    try:
        secret = Secrets().read(in_file(file))
    except SecretMissing:
        return
    assert secret.isprintable()
    assert secret.strip()
    assert content.decode().removesuffix("\n").removesuffix("\r") == secret


@pytest.mark.parametrize("content", [b"sk-topsecret\xff\n", b"sk-topsecret\nsk-topsecret\0\n"])
def test_no_traceback_and_no_repr_holds_a_secret(file: Path, content: bytes) -> None:
    file.write_bytes(b"sk-topsecret\n")
    secrets = Secrets()
    secrets.read(in_file(file))
    file.write_bytes(content)
    for read in (secrets.read, secrets.lines):
        with pytest.raises(SecretMissing) as caught:
            read(in_file(file))
        assert "topsecret" not in "".join(traceback.format_exception(caught.value))
        assert caught.value.__context__ is None
    assert "topsecret" not in f"{secrets!r} {vars(secrets)!r}"


def test_a_variable_that_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KEY", raising=False)
    error = refusal(SecretRef("env", "KEY"))
    assert str(error) == "no secret in env KEY: the variable is not set"
    assert error.hint.startswith("Set KEY where hal0 is started: ")
    monkeypatch.setenv("KEY", "")
    assert str(refusal(SecretRef("env", "KEY"))) == "no secret in env KEY: it is empty"


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    path = tmp_path / "none"
    assert str(refusal(in_file(path))) == f"no secret in file {path}: No such file or directory"
    assert str(refusal(in_file(path / "none\0"))).endswith("that is no path")


def test_a_file_that_may_not_be_read(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", denied)
    assert str(refusal(in_file(file))) == f"no secret in file {file}: Permission denied"


def test_what_may_block_its_reader_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, Path("/dev/zero")):
        assert str(refusal(in_file(path))) == f"no secret in file {path}: it is not a file"


def test_a_credential_that_was_not_passed() -> None:
    error = refusal(SecretRef("credential", "openai"))
    assert str(error) == "no secret in credential openai: No such file or directory"
    assert "LoadCredential=openai:/path/of/the/secret" in error.hint


def test_a_process_without_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY")
    error = refusal(SecretRef("credential", "openai"))
    assert str(error) == "no secret in credential openai: this process was started without credentials"


@pytest.mark.parametrize("name", ["../key", "/etc/passwd", "a/b", "", ".", ".."])
def test_a_credential_is_a_name_not_a_path(name: str, file: Path) -> None:
    assert file.exists()
    assert str(refusal(SecretRef("credential", name))).endswith(": that is no name of a credential")


def test_several_keys_one_a_line(file: Path) -> None:
    file.write_text("# ann\n  key-1 \n\n\t# bob, until May\r\nkey-2\r\nkey#3")
    assert Secrets().lines(in_file(file)) == ("key-1", "key-2", "key#3")


@pytest.mark.parametrize(
    ("text", "why"), [("", "it is empty"), ("\n# none\n", "it is empty"), ("key\n\nk\0y\n", "line 3 is not plain text")]
)
def test_a_file_without_keys_is_refused(file: Path, text: str, why: str) -> None:
    file.write_text(text)
    with pytest.raises(SecretMissing, match=why):
        Secrets().lines(in_file(file))


def test_a_file_is_read_once_while_it_is_the_same(file: Path, reads: list[Path]) -> None:
    secrets = Secrets()
    assert [secrets.read(in_file(file)) for _ in range(3)] == [TEXT] * 3
    assert secrets.lines(in_file(file)) == (TEXT,)
    assert reads == [file]


def test_rotation_is_noticed(file: Path) -> None:
    secrets = Secrets()
    assert secrets.read(in_file(file)) == TEXT
    rewrite(file, TEXT[::-1])
    assert secrets.read(in_file(file)) == TEXT[::-1]


def test_a_file_that_is_replaced_by_one_of_the_same_size_and_time_is_noticed(file: Path) -> None:
    secrets, old, new = Secrets(), file.stat(), file.with_name("new")
    assert secrets.read(in_file(file)) == TEXT
    new.write_text(TEXT[::-1])
    os.utime(new, ns=(old.st_atime_ns, old.st_mtime_ns))
    new.rename(file)
    assert secrets.read(in_file(file)) == TEXT[::-1]


def test_a_file_that_goes_away_is_missing_until_it_is_back(file: Path) -> None:
    secrets, aside = Secrets(), file.with_name("aside")
    assert secrets.read(in_file(file)) == TEXT
    file.rename(aside)
    with pytest.raises(SecretMissing):
        secrets.read(in_file(file))
    aside.rename(file)
    assert secrets.read(in_file(file)) == TEXT


def test_a_secret_that_is_written_late_is_found(file: Path) -> None:
    secrets = Secrets()
    file.write_text("")
    with pytest.raises(SecretMissing):
        secrets.read(in_file(file))
    file.write_text(TEXT)
    assert secrets.read(in_file(file)) == TEXT
