"""Blocking calls in daemon threads, with a deadline on this side and a way to cut them short."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


async def in_thread(work: Callable[[], T], limit: float | None) -> T:
    """Run blocking work in a daemon thread, which a process that ends does not wait for.

    Raises ``TimeoutError`` after ``limit`` seconds (None: never) and leaves the thread to its own socket timeout.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)  # type: ignore[arg-type]

    def run() -> None:
        try:
            outcome: tuple[T | None, BaseException | None] = (work(), None)
        except BaseException as error:  # noqa: BLE001 - carried over to the awaiting task
            outcome = (None, error)
        with contextlib.suppress(RuntimeError):  # the loop is gone, and with it who asked
            loop.call_soon_threadsafe(settle, *outcome)

    threading.Thread(target=run, name="hal0-call", daemon=True).start()
    async with asyncio.timeout(limit):
        return await future


class Wire:
    """A streaming response that another thread can end: closing it would not wake a blocked read."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._raw: Any = None
        self._cut = threading.Event()

    def attach(self, raw: Any) -> None:
        """Take in the response once it has begun: an object with ``shutdown``."""
        with self._lock:
            self._raw = raw
            if self.is_cut:
                _shut(raw)

    def cut(self) -> None:
        """End the response, now or as soon as it begins."""
        with self._lock:
            self._cut.set()
            if self._raw is not None:
                _shut(self._raw)

    @property
    def is_cut(self) -> bool:
        """Whether another thread wants it to end."""
        return self._cut.is_set()

    def wait(self, seconds: float) -> bool:
        """Sleep until it is cut, so many seconds at the most; return whether it is."""
        return self._cut.wait(seconds)


def _shut(raw: Any) -> None:
    with contextlib.suppress(OSError, RuntimeError, ValueError):  # it has ended by itself
        raw.shutdown()
