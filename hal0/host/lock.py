"""One hal0 acts on a host at a time."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from hal0.errors import HostUnreachable, LockHeld

_POLL = 0.2


@contextmanager
def host_lock(state_dir: Path, *, patience: float = 0.0, told: Callable[[str], object] | None = None) -> Iterator[None]:
    """Hold the lock of a state directory; wait for it ``patience`` seconds at the most, then raise ``LockHeld``.

    ``told`` is called with a sentence for as long as it has to wait, a few times a second, and may raise. The kernel
    releases the lock with the process, however that ends.
    """
    path = state_dir / "lock"
    try:
        state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        hint = "run hal0 as root, or with --scope user"
        raise HostUnreachable(f"can't use the state directory {state_dir}: {error.strerror}", hint=hint) from error
    try:
        _acquire(handle, path, patience, told)
        os.ftruncate(handle, 0)
        os.write(handle, str(os.getpid()).encode())
        yield
    finally:
        os.close(handle)


def _acquire(handle: int, path: Path, patience: float, told: Callable[[str], object] | None) -> None:
    deadline = time.monotonic() + patience
    while True:
        with suppress(BlockingIOError):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        held = f"another hal0 (pid {path.read_text().strip() or 'unknown'}) is acting on this host"
        if time.monotonic() >= deadline:
            raise LockHeld(held, hint="wait for it, or talk to it")
        if told:
            told(f"{held}: waiting for it")
        time.sleep(_POLL)
