"""One D-Bus connection that is made again when it is lost, with a deadline on every call.

This module, ``dbus_reader`` and ``systemd`` are the only ones that know dbus_next.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import TYPE_CHECKING, Any

from dbus_next.aio.message_bus import MessageBus
from dbus_next.constants import MessageType
from dbus_next.errors import AuthError, InvalidAddressError
from dbus_next.message import Message

from hal0.errors import Hal0Error, HostUnreachable
from hal0.host.dbus_reader import Reader

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

READ_S = 5.0
_DAEMON = "org.freedesktop.DBus"
_DAEMON_PATH = "/org/freedesktop/DBus"


class Refused(Hal0Error):
    """The service answered with a D-Bus error; ``name`` is the error's D-Bus name."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(text or name)
        self.name = name


class _Connection(MessageBus):
    """dbus-next's connection without two ways to block the event loop, and two to leave things behind."""

    def __init__(self, address: str, kept: frozenset[str]) -> None:
        self._kept = kept
        super().__init__(bus_address=address)

    def _create_unmarshaller(self) -> Reader:
        return Reader(self._stream, self._kept)

    def _setup_socket(self) -> None:
        """Connect without waiting: the original blocks the loop while the daemon's accept queue is full."""
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            self._sock.connect(_socket_path(self._bus_address))
        except BaseException:
            self._sock.close()
            raise
        self._stream = self._sock.makefile("rwb")
        self._fd = self._sock.fileno()

    async def _auth_readline(self) -> str:
        """Read one line; the original spins for ever, without yielding, when the daemon hangs up."""
        line = b""
        while not line.endswith(b"\r\n"):
            byte = await self._loop.sock_recv(self._sock, 1)
            if not byte:
                raise EOFError("the bus hung up during authentication")
            line += byte
        return line[:-2].decode()

    def send(self, msg: Message) -> asyncio.Future[None]:  # type: ignore[override]
        """Send a message; that a write failed is known by the connection's end, so nobody asks the future."""
        future: asyncio.Future[None] = super().send(msg)
        future.add_done_callback(lambda sent: sent.cancelled() or sent.exception())
        return future

    def close(self) -> None:
        """End the connection and give its descriptors back; the original leaves them to the collector."""
        self._user_disconnect = True
        self._finalize()  # type: ignore[no-untyped-call]
        if not self._disconnect_future.cancelled():
            self._disconnect_future.exception()  # seen here, so that asyncio does not log it as lost
        with contextlib.suppress(OSError):
            self._stream.close()
        self._sock.close()


class Bus:
    """A connection to a bus, made on first use and again after a loss.

    ``setup`` runs on each new connection before any call uses it, ``on_signal`` gets each signal,
    ``on_change`` is called after each connect (True) and loss (False). None of them may block.
    Of dictionaries of properties only the ``kept`` ones are read.
    """

    def __init__(
        self,
        address: str,
        *,
        setup: Callable[[Bus], Awaitable[None]],
        on_signal: Callable[[Message], None],
        on_change: Callable[[bool], None],
        kept: frozenset[str],
    ) -> None:
        self._address = address
        self._kept = kept
        self._setup = setup
        self._on_signal = on_signal
        self._on_change = on_change
        self._connection: _Connection | None = None
        self._connecting = asyncio.Lock()
        self._watcher: asyncio.Task[None] | None = None
        self._ready = False

    @property
    def connected(self) -> bool:
        """Whether calls can be made without connecting first."""
        return self._ready and self._connection is not None and bool(self._connection.connected)

    async def connect(self, *, timeout: float = READ_S) -> None:  # noqa: ASYNC109 - callers own their deadlines
        """Connect unless connected. Raises ``HostUnreachable`` within ``timeout`` seconds."""
        try:
            async with asyncio.timeout(timeout), self._connecting:
                if not self.connected:
                    await self._open()
        except TimeoutError:
            raise HostUnreachable(f"D-Bus at {self._address}: no answer in {timeout:g} s") from None
        except (OSError, EOFError, AuthError, InvalidAddressError, Refused) as error:
            raise HostUnreachable(f"D-Bus at {self._address}: {_text(error)}") from error

    async def call(
        self,
        destination: str,
        path: str,
        member: str,
        signature: str = "",
        body: list[Any] | None = None,
        *,
        timeout: float = READ_S,  # noqa: ASYNC109 - callers own their deadlines
    ) -> list[Any]:
        """Call ``interface.member`` and return the reply's body.

        Raises ``Refused`` for an error reply, ``HostUnreachable`` when the bus is lost or nothing came in
        ``timeout`` seconds. Variants are left as they are.
        """
        started = asyncio.get_running_loop().time()
        await self.connect(timeout=timeout)
        left = timeout - (asyncio.get_running_loop().time() - started)
        return await self._exchange(_request(destination, path, member, signature, body), max(left, 0.1))

    async def exchange(self, destination: str, path: str, member: str, signature: str, body: list[Any]) -> list[Any]:
        """Call from within ``setup``, while the connection is not yet open to others."""
        return await self._exchange(_request(destination, path, member, signature, body), READ_S)

    async def match(self, rule: str) -> None:
        """Ask the daemon for the signals of a match rule; only within ``setup``."""
        await self.exchange(_DAEMON, _DAEMON_PATH, f"{_DAEMON}.AddMatch", "s", [rule])

    async def close(self) -> None:
        """End the connection; a later call makes a new one."""
        watcher, self._watcher = self._watcher, None
        if watcher is not None:
            watcher.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watcher
        self._drop()

    async def _open(self) -> None:
        self._drop()
        self._connection = connection = _Connection(self._address, self._kept)
        try:
            await connection.connect()
            connection.add_message_handler(self._receive)
            await self._setup(self)
        except BaseException:
            self._drop()
            raise
        self._ready = True
        self._watcher = asyncio.create_task(self._watch(connection))
        self._on_change(True)

    async def _watch(self, connection: _Connection) -> None:
        with contextlib.suppress(Exception):  # how it ended says nothing that the end itself does not
            await connection.wait_for_disconnect()  # type: ignore[no-untyped-call]
        if connection is self._connection:
            self._drop()
            self._on_change(False)

    def _drop(self) -> None:
        self._ready = False
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    async def _exchange(self, message: Message, limit: float) -> list[Any]:
        connection = self._connection
        if connection is None or not connection.connected:
            raise HostUnreachable(f"D-Bus at {self._address}: connection lost")
        try:
            async with asyncio.timeout(limit):
                reply = await connection.call(message)
        except TimeoutError:
            raise HostUnreachable(f"{message.member}: no answer in {limit:.0f} s") from None
        except (OSError, EOFError) as error:
            raise HostUnreachable(f"{message.member}: bus lost ({_text(error)})") from error
        if reply is None:
            raise HostUnreachable(f"{message.member}: bus lost")
        if reply.message_type is MessageType.ERROR:
            raise Refused(reply.error_name, str(reply.body[0]) if reply.body else "")
        return list(reply.body)

    def _receive(self, message: Message) -> None:
        if message.message_type is MessageType.SIGNAL:
            self._on_signal(message)


def _request(destination: str, path: str, member: str, signature: str, body: list[Any] | None) -> Message:
    interface, _, name = member.rpartition(".")
    return Message(
        destination=destination,
        path=path,
        interface=interface,
        member=name,
        signature=signature,
        body=body or [],
    )


def _socket_path(addresses: list[tuple[str, dict[str, str]]]) -> str:
    for transport, options in addresses:
        if transport == "unix" and "path" in options:
            return options["path"]
        if transport == "unix" and "abstract" in options:
            return "\0" + options["abstract"]
    raise InvalidAddressError("only unix: addresses can be used")


def _text(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
