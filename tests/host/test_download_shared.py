"""Several who want one file: threads and processes, some of which are stopped or killed."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from hal0.core.model import Phase
from hal0.errors import StepFailed
from hal0.host.download import Stopped, download
from hal0.host.part import discard
from hal0.host.threads import Wire
from hal0.host.webfile import Remote

from .downloads import DATA, OTHER, PATH, QUERY, fetch, half, left, limits, sha, wait_for
from .file_server import FileServer


def test_who_asks_while_another_one_downloads_waits_for_that(server: FileServer, path: Path) -> None:
    gate = threading.Event()
    server.put(PATH, DATA, gate=gate)
    first = threading.Thread(target=fetch, args=(server, path))
    first.start()
    wait_for(lambda: half(path).exists() and half(path).stat().st_size == len(DATA) // 2)
    told: list[tuple[int, int | None, Phase]] = []

    def tell(*step: object) -> None:
        told.append(step)  # type: ignore[arg-type]
        gate.set()

    download(Remote(f"{server.url}{PATH}"), path, tell, Wire(), limits())
    first.join()
    assert told[0] == (len(DATA) // 2, len(DATA), Phase.FETCHING)
    assert path.read_bytes() == DATA
    assert len(server.ranges) == 1


def test_who_waits_goes_on_where_the_other_one_failed(server: FileServer, path: Path) -> None:
    gate = threading.Event()
    server.put(PATH, DATA, gate=gate, cuts=[100_000])
    first = threading.Thread(target=failing, args=(server, path))
    first.start()
    wait_for(lambda: half(path).exists() and half(path).stat().st_size == 100_000)
    download(Remote(f"{server.url}{PATH}{QUERY}"), path, lambda *_: gate.set(), Wire(), limits())
    first.join()
    assert path.read_bytes() == DATA
    assert server.ranges == [None, "bytes=100000-"]


def failing(server: FileServer, path: Path, **known: object) -> None:
    with pytest.raises(StepFailed):
        fetch(server, path, **known)  # type: ignore[arg-type]


def test_who_waits_begins_anew_where_the_other_one_had_the_wrong_file(server: FileServer, path: Path) -> None:
    gate = threading.Event()
    server.put(PATH, OTHER, gate=gate)
    first = threading.Thread(target=failing, args=(server, path), kwargs={"sha256": sha(DATA)})
    first.start()
    wait_for(lambda: half(path).exists() and half(path).stat().st_size == len(OTHER) // 2)

    def tell(*_: object) -> None:
        server.put(PATH, DATA)
        gate.set()

    download(Remote(f"{server.url}{PATH}", sha256=sha(DATA)), path, tell, Wire(), limits())
    first.join()
    assert path.read_bytes() == DATA
    assert left(path) == ["a.gguf"]


def test_a_half_file_that_is_another_ones_by_now_is_not_put_in_place(server: FileServer, path: Path) -> None:
    gates = threading.Event(), threading.Event()
    server.put(PATH, DATA, gate=gates[0])
    first = threading.Thread(target=failing, args=(server, path))
    first.start()
    wait_for(lambda: half(path).exists() and half(path).stat().st_size == len(DATA) // 2)
    half(path).unlink()  # somebody's rm, which asks nobody
    server.put(PATH, DATA, gate=gates[1])
    second = threading.Thread(target=fetch, args=(server, path))
    second.start()
    wait_for(lambda: half(path).exists() and half(path).stat().st_size == len(DATA) // 2)
    gates[0].set()
    first.join()
    assert not path.exists()
    gates[1].set()
    second.join()
    assert path.read_bytes() == DATA


def test_a_half_file_is_not_discarded_while_it_is_filled(server: FileServer, path: Path) -> None:
    gate = threading.Event()
    server.put(PATH, DATA, gate=gate)
    first = threading.Thread(target=fetch, args=(server, path))
    first.start()
    wait_for(lambda: half(path).exists() and half(path).stat().st_size == len(DATA) // 2)
    assert discard(path, lambda *_: gate.set()) == 0
    first.join()
    assert path.read_bytes() == DATA


def test_what_is_kept_is_discarded_with_its_notes(server: FileServer, path: Path) -> None:
    server.put(PATH, DATA, cuts=[100_000])
    failing(server, path)
    assert discard(path, never) == 100_000
    assert left(path) == []
    assert discard(path.with_name("other"), never) == 0
    assert left(path) == []


def never(*_: int | None) -> None:
    pytest.fail("nobody holds it")


def test_who_waits_can_be_stopped(server: FileServer, path: Path) -> None:
    gate, wire = threading.Event(), Wire()
    server.put(PATH, DATA, gate=gate)
    first = threading.Thread(target=fetch, args=(server, path))
    first.start()
    wait_for(lambda: half(path).exists() and half(path).stat().st_size > 0)
    with pytest.raises(Stopped):
        download(Remote(f"{server.url}{PATH}"), path, lambda *_: wire.cut(), wire, limits())
    gate.set()
    first.join()
    assert path.read_bytes() == DATA


KILLED = """
import sys
from pathlib import Path
from hal0.host.download import Limits, download
from hal0.host.threads import Wire
from hal0.host.webfile import Remote
download(Remote(sys.argv[1]), Path(sys.argv[2]), lambda *_: None, Wire(), Limits(reserve=0))
"""


def test_a_process_that_is_killed_leaves_a_half_that_is_gone_on_with(server: FileServer, path: Path) -> None:
    gate = threading.Event()
    server.put(PATH, DATA, gate=gate)
    child = subprocess.Popen([sys.executable, "-c", KILLED, f"{server.url}{PATH}{QUERY}", str(path)])
    wait_for(lambda: half(path).exists() and half(path).stat().st_size == len(DATA) // 2)
    child.send_signal(signal.SIGKILL)
    child.wait()
    gate.set()
    assert json.loads(path.with_name("a.gguf.part.json").read_text())["size"] == len(DATA)
    fetch(server, path)
    assert path.read_bytes() == DATA
    assert server.ranges == [None, f"bytes={len(DATA) // 2}-"]
