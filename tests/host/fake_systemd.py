"""A private message bus and a systemd1 that answers as a test wants."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from dbus_next.aio.message_bus import MessageBus
from dbus_next.constants import MessageType
from dbus_next.message import Message
from dbus_next.signature import Variant

from hal0.host.systemd import unit_name, unit_path

if TYPE_CHECKING:
    from pathlib import Path

NAME = "org.freedesktop.systemd1"
PATH = "/org/freedesktop/systemd1"
MANAGER = f"{NAME}.Manager"
PROPERTIES = "org.freedesktop.DBus.Properties"
_SILENCE: Any = True
"""What makes dbus-next take a message for answered."""
CONFIG = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>session</type><listen>unix:path={socket}</listen><auth>EXTERNAL</auth>
<policy context="default"><allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/><allow own="*"/>
</policy></busconfig>
"""


class Daemon:
    """A dbus-daemon on a socket of its own, which can be killed and started again."""

    def __init__(self, folder: Path) -> None:
        if shutil.which("dbus-daemon") is None:
            pytest.skip("no dbus-daemon on this machine")
        self.socket = folder / "bus"
        self.address = f"unix:path={self.socket}"
        self._config = folder / "bus.conf"
        self._config.write_text(CONFIG.format(socket=self.socket))
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(
            ["dbus-daemon", f"--config-file={self._config}", "--nofork", "--nopidfile", "--print-address"],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline()

    def kill(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()
        self.socket.unlink(missing_ok=True)


class FakeSystemd:
    """Serves the manager's verbs. ``moment`` and ``result`` say when and how jobs end.

    Moments: ``early`` (before the call returns), ``late`` (after), ``lost`` (gone without a signal), ``never``.
    ``refuse`` maps a method to an error's name and text, or to None for no answer at all.
    """

    def __init__(self, address: str) -> None:
        self._address = address
        self.units: dict[str, dict[str, Variant]] = {}
        self.refuse: dict[str, tuple[str, str] | None] = {}
        self.calls: list[tuple[str, list[Any]]] = []
        self.called = asyncio.Event()
        self.subscribed = asyncio.Event()
        self.moment = "late"
        self.result = "done"
        self._jobs = 0
        self.bus: MessageBus = None  # type: ignore[assignment]

    async def serve(self) -> None:
        self.bus = await MessageBus(bus_address=self._address).connect()
        self.bus.add_message_handler(self._answer)
        await self.bus.request_name(NAME)

    def close(self) -> None:
        self.bus._user_disconnect = True
        self.bus._finalize()  # type: ignore[no-untyped-call]
        self.bus._disconnect_future.exception()
        self.bus._stream.close()
        self.bus._sock.close()

    def add(self, unit: str, active: str = "inactive", sub: str = "dead", **properties: Variant) -> None:
        self.units[unit] = {
            "LoadState": Variant("s", "loaded"),
            "ActiveState": Variant("s", active),
            "SubState": Variant("s", sub),
            "NeedDaemonReload": Variant("b", False),
            "ConditionResult": Variant("b", True),
            "Result": Variant("s", "success"),
            "ExecStart": Variant("a(sasbttttuii)", [["/bin/x", ["/bin/x", "-y"], False, 0, 0, 0, 0, 0, 0, 0]]),
            "MemoryCurrent": Variant("t", 2**64 - 1),
            "Nice": Variant("i", 0),
            **properties,
        }

    def signal(self, path: str, interface: str, member: str, signature: str, body: list[Any]) -> None:
        self.bus.send(Message.new_signal(path, interface, member, signature, body))

    def change(self, unit: str) -> None:
        body = [f"{NAME}.Unit", {"ActiveState": Variant("s", "active")}, []]
        self.signal(unit_path(unit), PROPERTIES, "PropertiesChanged", "sa{sv}as", body)

    def _answer(self, message: Message) -> Message | None:
        if message.message_type is not MessageType.METHOD_CALL or not str(message.path).startswith(PATH):
            return None
        self.calls.append((str(message.member), list(message.body)))
        if message.member == "StartUnit":
            self.called.set()
        if message.member in self.refuse:
            refusal = self.refuse[message.member]
            return Message.new_error(message, *refusal) if refusal else _SILENCE
        reply: Message | None = getattr(self, f"_{str(message.member).lower()}")(message)
        return reply

    def _subscribe(self, message: Message) -> Message:
        self.subscribed.set()
        return Message.new_method_return(message)

    def _reload(self, message: Message) -> Message:
        self.signal(PATH, MANAGER, "Reloading", "b", [True])
        self.signal(PATH, MANAGER, "Reloading", "b", [False])
        return Message.new_method_return(message)

    def _resetfailedunit(self, message: Message) -> Message:
        return Message.new_method_return(message)

    def _listunitsbypatterns(self, message: Message) -> Message:
        rows = [
            [name, "", "loaded", unit["ActiveState"].value, unit["SubState"].value, "", "/", 0, "", "/"]
            for name, unit in self.units.items()
        ]
        return Message.new_method_return(message, "a(ssssssouso)", [rows])

    def _getall(self, message: Message) -> Message:
        unit = self.units.get(unit_name(str(message.path)))
        return Message.new_method_return(message, "a{sv}", [unit or {"LoadState": Variant("s", "not-found")}])

    def _get(self, message: Message) -> Message:
        if self.moment == "lost":
            return Message.new_error(message, "org.freedesktop.DBus.Error.UnknownObject", "Unknown object")
        return Message.new_method_return(message, "v", [Variant("s", "running")])

    def _startunit(self, message: Message) -> Any:
        self._jobs += 1
        job = f"{PATH}/job/{self._jobs}"
        reply = Message.new_method_return(message, "o", [job])
        removed = [self._jobs, job, message.body[0], self.result]
        if self.moment == "early":
            self.signal(PATH, MANAGER, "JobRemoved", "uoss", removed)
        self.bus.send(reply)
        if self.moment == "late":
            self.signal(PATH, MANAGER, "JobRemoved", "uoss", removed)
        return _SILENCE

    _stopunit = _startunit
