"""A download from this machine: bytes a second beside curl's, and what an event loop in the same process notices."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.measure import Row, Rows, Skipped, ratios, spend

from hal0.core.model import Source, SourceKind
from hal0.host.download import Limits
from hal0.host.fetcher import HttpFetcher

_MIB = 256
_ROUNDS = 7
_TICK_S = 0.002
_CURL_AIM = 0.5
_SHARED = Path("/dev/shm")  # noqa: S108 - memory: a disk's pace is not what is measured
_SERVER = """
import http.server, sys, time
class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_): pass
    def do_GET(self):
        with open(sys.argv[1], "rb") as file:
            self.send_response(200)
            self.send_header("Content-Length", str(file.seek(0, 2)))
            self.end_headers()
            if self.path == "/file":
                self.connection.sendfile(file)
                return
            begun, sent = time.monotonic(), 0  # as a line of 1 Gbit/s would
            while count := self.connection.sendfile(file, sent, 1 << 20):
                sent += count
                time.sleep(max(0, sent / 117e6 - (time.monotonic() - begun)))
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
"""


def rows() -> Rows:
    """Measure in turn: curl, curl with a sha256 taken afterwards, hal0; and a loop's delays at 1 Gbit/s."""
    if not shutil.which("curl"):
        raise Skipped("there is no curl")
    with tempfile.TemporaryDirectory(dir=_SHARED if _SHARED.is_dir() else None) as name, _served(Path(name)) as url:
        folder = Path(name)
        paces: dict[str, list[float]] = {"curl": [], "curl, then sha256sum": [], "hal0": []}
        delays: dict[str, list[list[float]]] = {"idle": [], "beside curl": [], "beside hal0's download": []}
        for number in range(_ROUNDS + 1):
            took = _round(folder, url, delays)
            for each, seconds in took.items():
                paces[each] += [_MIB / seconds] if number else []
    for each, values in paces.items():
        yield Row(each, "MiB/s", tuple(values))
    ratio = ratios(paces["hal0"], paces["curl"])
    note = "hal0 takes the sha256 as well"
    yield Row("hal0 beside curl", "x", ratio, aim=_CURL_AIM, at_least=True, note=note)
    for each, taken in delays.items():
        yield Row(f"delay of a timer {each}, 99th percentile", "ms", tuple(_percentile(one) for one in taken[1:]))
        yield Row(f"delay of a timer {each}, longest", "ms", tuple(max(one) for one in taken[1:]))


def _round(folder: Path, url: str, delays: dict[str, list[list[float]]]) -> dict[str, float]:
    """Return the seconds that each way took, and note how late the timers of the loop were."""
    target = folder / "fetched"
    curl = f"curl -sS -o {target} {url}"
    took = {"curl": spend(["sh", "-c", curl]).wall}
    took["curl, then sha256sum"] = spend(["sh", "-c", f"{curl} && sha256sum {target}"]).wall
    target.unlink()
    begun = time.perf_counter()
    asyncio.run(_fetched(folder, url, target))
    took["hal0"] = time.perf_counter() - begun
    target.unlink()
    delays["idle"].append(asyncio.run(_ticking(asyncio.sleep(1))))
    slow = f"{url}/slow"
    delays["beside curl"].append(
        asyncio.run(_ticking(asyncio.to_thread(spend, ["curl", "-sS", "-o", str(target), slow])))
    )
    target.unlink()
    delays["beside hal0's download"].append(asyncio.run(_ticking(_fetched(folder, slow, target))))
    target.unlink()
    return took


async def _fetched(folder: Path, url: str, target: Path) -> None:
    source = Source(SourceKind.URL, url=url)
    sha256 = (folder / "sha256").read_text()
    await HttpFetcher(Limits(reserve=0)).fetch(source, str(target), sha256, lambda _: None)


async def _ticking(work: object) -> list[float]:
    """Return how many milliseconds each timer came late while some work went on."""
    task, late = asyncio.ensure_future(work), []  # type: ignore[call-overload]
    while not task.done():
        due = time.perf_counter() + _TICK_S
        await asyncio.sleep(_TICK_S)
        late.append((time.perf_counter() - due) * 1e3)
    await task
    return late


def _percentile(values: list[float]) -> float:
    return statistics.quantiles(values, n=100)[98]


@contextmanager
def _served(folder: Path) -> Iterator[str]:
    """Serve a file of arbitrary bytes from a process of its own."""
    data = os.urandom(1 << 20) * _MIB
    (folder / "file").write_bytes(data)
    (folder / "sha256").write_text(hashlib.sha256(data).hexdigest())
    server = subprocess.Popen([sys.executable, "-c", _SERVER, str(folder / "file")], stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    try:
        yield f"http://127.0.0.1:{int(server.stdout.readline())}/file"
    finally:
        server.kill()
        server.wait()
        server.stdout.close()
