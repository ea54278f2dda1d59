"""What the tests of downloads share: a file of a server, a way to fetch it, and what a failure must not do."""

from __future__ import annotations

import hashlib
import os
import random
import time
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path

import pytest

from hal0.core.model import Phase
from hal0.errors import StepFailed
from hal0.host.download import Limits, download
from hal0.host.threads import Wire
from hal0.host.webfile import Patience, Remote

from .file_server import FileServer

DATA = random.Random(1).randbytes(300_000)  # noqa: S311 - any bytes do
OTHER = random.Random(2).randbytes(300_000)  # noqa: S311
NEVER = 1 << 60  # more than any connection brings: it is not made again within a call
PATH = "/models/a.gguf"
QUERY = "?sig=s3cret"


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def limits(*, worth: int = NEVER, reserve: int = 0, silence: float = 60.0) -> Limits:
    return Limits(Patience(silence_s=silence), reserve=reserve, worth=worth)


def fetch(
    server: FileServer, path: Path, *, wire: Wire | None = None, within: Limits | None = None, **known: object
) -> list[tuple[int, int | None, Phase]]:
    """Download what the server has, and return what was told."""
    told: list[tuple[int, int | None, Phase]] = []
    remote = Remote(f"{server.url}{PATH}{QUERY}", **known)  # type: ignore[arg-type]
    download(remote, path, lambda *step: told.append(step), wire or Wire(), within or limits())
    return told


def failure(server: FileServer, path: Path, **how: object) -> StepFailed:
    """Return how a download fails. No failure leaves a file in place, or tells a secret."""
    with pytest.raises(StepFailed) as caught:
        fetch(server, path, **how)  # type: ignore[arg-type]
    assert not path.exists()
    assert "s3cret" not in f"{caught.value} {caught.value.hint}"
    assert caught.value.hint
    return caught.value


def left(path: Path) -> list[str]:
    return sorted(each.name for each in path.parent.iterdir())


def half(path: Path) -> Path:
    return path.with_name(f"{path.name}.part")


def wait_for(is_so: Callable[[], bool]) -> None:
    """Wait for what another thread or process does."""
    deadline = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def free_are(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    disk = namedtuple("disk", ["f_bavail", "f_frsize"])  # noqa: PYI024 - as os.statvfs has it
    monkeypatch.setattr(os, "statvfs", lambda _: disk(count, 1))
