"""What `hal0 doctor` asks of the machine itself. Every function blocks, and raises ``OSError`` where it can't look."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path

from hal0.core.findings import Cgroups, Volume
from hal0.host.cgroups import CGROUPS
from hal0.host.machine import closest
from hal0.host.scope import Scope
from hal0.host.sockets import listens

LIMIT = 5.0
"""Seconds that each look may take."""
_BOOTED = Path("/run/systemd/system")
_LINGER = Path("/var/lib/systemd/linger")


def is_booted() -> bool:
    """Return whether systemd runs this machine."""
    return _BOOTED.is_dir()


def systemd(scope: Scope) -> str | None:
    """Return the version that the scope's manager tells of itself; None where systemd does not run this machine."""
    if not is_booted():
        return None
    whose = ("--user",) if scope.is_user else ()
    return _said("systemctl", *whose, "show", "--property=Version", "--value")


def podman() -> str | None:
    """Return podman's version, None where it is not installed."""
    try:
        return _said("podman", "--version").rpartition(" ")[2]
    except FileNotFoundError:
        return None


def podman_answers(scope: Scope) -> bool:
    """Return whether somebody listens on podman's socket."""
    return listens(Path(scope.podman_socket.removeprefix("unix://")), LIMIT)


def daemon_answers(scope: Scope) -> bool:
    """Return whether hal0's daemon listens on its socket."""
    return listens(scope.run_dir / "hal0.sock", LIMIT)


def cgroups(scope: Scope, root: Path = CGROUPS) -> Cgroups:
    """Return the control groups' version, and the controllers that units of the scope's manager may have."""
    if not (root / "cgroup.controllers").exists():
        return Cgroups(1, frozenset())
    user = os.getuid()
    own = root / f"user.slice/user-{user}.slice/user@{user}.service"
    group = own if scope.is_user and own.is_dir() else root
    return Cgroups(2, frozenset((group / "cgroup.controllers").read_text().split()))


def lingers(user: str) -> bool:
    """Return whether a user's services run while the user is logged out."""
    return (_LINGER / user).exists()


def image_store(scope: Scope) -> str:
    """Return where podman keeps images: as it says itself, else where it does unless told otherwise."""
    try:
        return _said("podman", "info", "--format", "{{.Store.GraphRoot}}")
    except OSError:
        return str(Path.home() / ".local/share/containers/storage" if scope.is_user else "/var/lib/containers/storage")


def volumes(uses: Mapping[str, str]) -> tuple[Volume, ...]:
    """Return the file systems that hold some paths, each once. ``uses`` maps what is kept to where."""
    mounts: dict[Path, list[str]] = {}
    for use, path in uses.items():
        mounts.setdefault(_mount(Path(path)), []).append(use)
    return tuple(_volume(mount, names) for mount, names in mounts.items())


def _volume(mount: Path, uses: Iterable[str]) -> Volume:
    space = os.statvfs(mount)
    return Volume(tuple(uses), str(mount), space.f_bavail * space.f_frsize, space.f_blocks * space.f_frsize)


def _mount(path: Path) -> Path:
    """Return where the file system of a path is mounted; one that is not there yet will be on that of its parent."""
    there = closest(path).resolve()
    return next((each for each in (there, *there.parents) if each.is_mount()), there)


def _said(*command: str) -> str:
    """Return what a program prints. Raises ``OSError`` with its words where it fails or takes too long."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False)
    except subprocess.TimeoutExpired:
        raise OSError(f"{command[0]}: no answer in {LIMIT:g} s") from None
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise OSError(f"{' '.join(command)}: {lines[0]}")
    return done.stdout.strip()
