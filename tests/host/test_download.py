"""Downloads against a real server with faults: in place are the server's bytes, or nothing."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hal0.core.model import Phase
from hal0.errors import StepFailed, WrongFile

from .downloads import DATA, NEVER, OTHER, PATH, failure, fetch, half, left, limits, sha
from .file_server import FileServer, serving


def test_a_file_is_put_in_place_and_nothing_is_left_beside_it(server: FileServer, path: Path) -> None:
    server.put(PATH, DATA)
    told = fetch(server, path, sha256=sha(DATA))
    assert path.read_bytes() == DATA
    assert left(path) == ["a.gguf"]
    assert told[-1] == (len(DATA), len(DATA), Phase.FETCHING)
    assert path.stat().st_mode & 0o444 == 0o444 & ~umask()


def umask() -> int:
    old = os.umask(0)
    os.umask(old)
    return old


@given(
    size=st.integers(0, 5000),
    cuts=st.lists(st.integers(0, 5000), max_size=6),
    worth=st.sampled_from([1, 700, NEVER]),
    is_known=st.booleans(),
    framing=st.sampled_from(["length", "chunked"]),
    ranges=st.sampled_from(["yes", "ignored", "shifted", "refused"]),
)
def test_whatever_is_cut_the_same_bytes_are_there_at_the_end(
    *, size: int, cuts: list[int], worth: int, is_known: bool, framing: str, ranges: str
) -> None:
    data = DATA[:size]
    known = {"sha256": sha(data) if is_known else "", "within": limits(worth=worth)}
    with serving() as server, tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.gguf"
        served = server.put(PATH, data, cuts=[cut for cut in cuts if cut < size], framing=framing, ranges=ranges)
        while served.cuts and not path.exists():
            with contextlib.suppress(StepFailed):
                fetch(server, path, **known)  # type: ignore[arg-type]
            assert not path.exists() or path.read_bytes() == data
        fetch(server, path, **known)  # type: ignore[arg-type]
        assert path.read_bytes() == data
        assert left(path) == ["a.gguf"]


def test_a_cut_download_says_what_is_kept_and_the_next_one_goes_on_from_there(server: FileServer, path: Path) -> None:
    server.put(PATH, DATA, cuts=[100_000])
    error = failure(server, path)
    assert "97.7 KiB of 293.0 KiB are kept" in str(error)
    assert left(path) == ["a.gguf.part", "a.gguf.part.json"]
    told = fetch(server, path)
    assert path.read_bytes() == DATA
    assert server.ranges == [None, "bytes=100000-"]
    assert server.asked[-1].condition == '"one"'
    assert told[0] == (100_000, len(DATA), Phase.CHECKING)


def test_a_connection_that_brought_enough_is_made_again_at_once(server: FileServer, path: Path) -> None:
    server.put(PATH, DATA, cuts=[100_000, 50_000])
    fetch(server, path, within=limits(worth=50_000))
    assert path.read_bytes() == DATA
    assert server.ranges == [None, "bytes=100000-", "bytes=150000-"]


@pytest.mark.parametrize("ranges", ["ignored", "shifted", "refused"])
def test_a_server_that_does_not_go_on_is_asked_for_all_of_it(server: FileServer, path: Path, ranges: str) -> None:
    server.put(PATH, DATA, cuts=[100_000], ranges=ranges)
    failure(server, path)
    fetch(server, path)
    assert path.read_bytes() == DATA


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_the_end_of_a_part_is_not_the_end_of_the_file(server: FileServer, path: Path, framing: str) -> None:
    server.put(PATH, DATA, cuts=[100_000], ranges="halved", framing=framing)
    failure(server, path)
    fetch(server, path, within=limits(worth=1))
    assert path.read_bytes() == DATA


def test_a_server_that_ignores_ranges_and_always_breaks_off_is_given_up(server: FileServer, path: Path) -> None:
    server.put(PATH, DATA, cuts=[100_000] * 9, ranges="ignored")
    failure(server, path, within=limits(worth=1000))
    assert server.ranges == [None, "bytes=100000-"]


@pytest.mark.parametrize(("before", "after"), [('"one"', '"two"'), ('W/"one"', 'W/"two"')])
def test_a_file_that_changed_meanwhile_is_begun_anew(server: FileServer, path: Path, before: str, after: str) -> None:
    server.put(PATH, DATA, etag=before, cuts=[100_000])
    failure(server, path)
    server.put(PATH, OTHER, etag=after)
    fetch(server, path)
    assert path.read_bytes() == OTHER
    # A weak one is no condition of a range: a server would have to send all of it.
    assert server.asked[1].condition == (None if before.startswith("W/") else before)


def test_a_file_of_another_size_is_another_file(server: FileServer, path: Path) -> None:
    server.put(PATH, DATA, cuts=[100_000])
    failure(server, path)
    server.put(PATH, DATA + b"more")  # and its ETag stayed
    fetch(server, path)
    assert path.read_bytes() == DATA + b"more"


def test_what_nothing_vouches_for_is_begun_anew(server: FileServer, path: Path) -> None:
    server.put(PATH, DATA, etag="", cuts=[100_000])
    failure(server, path)
    server.put(PATH, OTHER, etag="")
    fetch(server, path)
    assert path.read_bytes() == OTHER
    assert server.ranges == [None, None]


@pytest.mark.parametrize("notes", ["", "[]", "{", '{"url": 1, "size": "x", "sha256": 2, "validator": 3}'])
def test_a_half_file_of_unknown_origin_is_begun_anew(server: FileServer, path: Path, notes: str) -> None:
    server.put(PATH, DATA)
    path.parent.mkdir()
    half(path).write_bytes(OTHER[:1000])
    path.with_name("a.gguf.part.json").write_text(notes)
    fetch(server, path)
    assert path.read_bytes() == DATA
    assert server.ranges == [None]


def test_with_a_sha256_another_server_may_go_on(server: FileServer, path: Path) -> None:
    server.put(PATH, DATA, cuts=[100_000])
    failure(server, path, sha256=sha(DATA))
    with serving() as mirror:
        mirror.put(PATH, DATA, etag='"of the mirror"')
        fetch(mirror, path, sha256=sha(DATA))
        assert mirror.ranges == ["bytes=100000-"]
    assert path.read_bytes() == DATA


def test_a_half_file_of_another_sha256_is_not_gone_on_with(server: FileServer, path: Path) -> None:
    server.put(PATH, DATA, cuts=[100_000])
    failure(server, path, sha256=sha(OTHER))
    fetch(server, path, sha256=sha(DATA))
    assert server.ranges == [None, None]


def test_a_wrong_sha256_leaves_nothing_and_the_next_try_begins_anew(server: FileServer, path: Path) -> None:
    server.put(PATH, OTHER)
    error = failure(server, path, sha256=sha(DATA))
    assert isinstance(error, WrongFile)
    assert sha(OTHER) in str(error)
    assert sha(DATA) in str(error)
    assert left(path) == []
    server.put(PATH, DATA)
    fetch(server, path, sha256=sha(DATA))
    assert path.read_bytes() == DATA


def test_bytes_that_rot_on_the_disk_are_found(server: FileServer, path: Path) -> None:
    server.put(PATH, DATA, cuts=[100_000])
    failure(server, path, sha256=sha(DATA))
    with half(path).open("r+b") as file:
        file.write(b"rotten")
    failure(server, path, sha256=sha(DATA))
    assert left(path) == []


def test_a_whole_half_file_needs_no_server(server: FileServer, path: Path) -> None:
    server.put(PATH, DATA, cuts=[len(DATA) - 1])
    failure(server, path)
    with half(path).open("ab") as file:
        file.write(DATA[-1:])
    server.asked.clear()
    fetch(server, path)
    assert path.read_bytes() == DATA
    assert server.asked == []


@pytest.mark.parametrize("is_known", [True, False])
def test_a_half_file_that_is_longer_than_the_whole_is_begun_anew(
    server: FileServer, path: Path, *, is_known: bool
) -> None:
    server.put(PATH, DATA, cuts=[100_000])
    known = {"sha256": sha(DATA) if is_known else ""}
    failure(server, path, **known)
    with half(path).open("ab") as file:
        file.write(DATA[:250_000])
    fetch(server, path, **known)  # type: ignore[arg-type]
    assert path.read_bytes() == DATA
    assert server.ranges == [None, None]


def test_a_file_that_is_there_is_not_fetched(server: FileServer, path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(DATA)
    fetch(server, path)
    told = fetch(server, path, sha256=sha(DATA))
    assert told == [(len(DATA), len(DATA), Phase.CHECKING)]
    assert server.asked == []
    assert left(path) == ["a.gguf"]


def test_a_file_that_is_not_the_one_that_is_wanted_is_replaced_by_it(server: FileServer, path: Path) -> None:
    server.put(PATH, DATA, cuts=[100_000])
    path.parent.mkdir()
    path.write_bytes(OTHER)
    with pytest.raises(StepFailed):
        fetch(server, path, sha256=sha(DATA))
    assert path.read_bytes() == OTHER
    fetch(server, path, sha256=sha(DATA))
    assert path.read_bytes() == DATA
