"""Unix sockets in folders of any depth."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_LONGEST = 100


def listens(path: Path, limit: float | None = None) -> bool:
    """Return whether somebody listens on a unix socket. Raises ``OSError`` where that can't be found out."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as knock, short_path(path) as name:
            knock.settimeout(limit)
            knock.connect(name)
    except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
        return False
    return True


@contextmanager
def short_path(path: Path) -> Iterator[str]:
    """Yield a path that fits into a socket address: through an open folder where the real one is too long."""
    if len(os.fsencode(path)) <= _LONGEST:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
