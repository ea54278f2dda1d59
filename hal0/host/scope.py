"""Where hal0 finds and keeps things: for the whole machine, or for one user."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hal0.errors import UsageError

ScopeName = Literal["system", "user"]

_SYSTEM_BUS = "unix:path=/run/dbus/system_bus_socket"


@dataclass(frozen=True, slots=True)
class Scope:
    """The folders and sockets of one systemd manager and its podman.

    ``bus_address`` is a D-Bus address, ``podman_socket`` a ``unix://`` address. Nothing here need exist.
    """

    name: ScopeName
    unit_dir: Path
    state_dir: Path
    run_dir: Path
    manifests: Path
    bus_address: str
    podman_socket: str

    @classmethod
    def of(cls, name: str) -> Scope:
        """Return the scope called ``system`` or ``user``, as the environment places it now.

        ``HAL0_STATE`` and ``HAL0_RUN`` move those folders. Raises ``UsageError`` for another name.
        """
        if name == "system":
            return _system()
        if name == "user":
            return _user()
        raise UsageError(f"scope {name!r} is not known", hint="Use `system` or `user`.")

    @property
    def is_user(self) -> bool:
        """Whether this is a user's own systemd manager."""
        return self.name == "user"


def _system() -> Scope:
    return Scope(
        name="system",
        unit_dir=Path("/etc/systemd/system"),
        state_dir=_folder("HAL0_STATE", Path("/var/lib/hal0")),
        run_dir=_folder("HAL0_RUN", Path("/run/hal0")),
        manifests=Path("/etc/hal0/manifests"),
        bus_address=os.environ.get("DBUS_SYSTEM_BUS_ADDRESS") or _SYSTEM_BUS,
        podman_socket="unix:///run/podman/podman.sock",
    )


def _user() -> Scope:
    config = _folder("XDG_CONFIG_HOME", Path.home() / ".config")
    state = _folder("XDG_STATE_HOME", Path.home() / ".local" / "state")
    runtime = _folder("XDG_RUNTIME_DIR", Path(f"/run/user/{os.getuid()}"))
    return Scope(
        name="user",
        unit_dir=config / "systemd" / "user",
        state_dir=_folder("HAL0_STATE", state / "hal0"),
        run_dir=_folder("HAL0_RUN", runtime / "hal0"),
        manifests=config / "hal0" / "manifests",
        bus_address=f"unix:path={runtime}/bus",
        podman_socket=f"unix://{runtime}/podman/podman.sock",
    )


def _folder(variable: str, default: Path) -> Path:
    value = os.environ.get(variable, "")
    return Path(value) if value else default
