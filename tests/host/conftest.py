"""The fixtures that several tests of adapters share: a process runtime, and a message bus with a systemd1 on it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from hal0.host.process import ProcessRuntime

from .fake_systemd import Daemon, FakeSystemd
from .file_server import FileServer, serving
from .process_bench import QUICK

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path


@pytest.fixture
async def runtime(tmp_path: Path) -> AsyncIterator[ProcessRuntime]:
    """A process runtime that starts again what broke without waiting; at the end it stops all."""
    runtime = ProcessRuntime(tmp_path, policy=QUICK)
    yield runtime
    await runtime.stop_all()
    await runtime.close()


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    daemon = Daemon(tmp_path)
    daemon.start()
    yield daemon
    daemon.kill()


@pytest.fixture
async def fake_systemd(daemon: Daemon) -> AsyncIterator[FakeSystemd]:
    """A systemd1 without any unit."""
    fake = FakeSystemd(daemon.address)
    await fake.serve()
    yield fake
    fake.close()


@pytest.fixture
def server() -> Iterator[FileServer]:
    """A web server that has nothing yet."""
    with serving() as files:
        yield files


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a model is put, in a folder that is not there yet."""
    return tmp_path / "models" / "a.gguf"
