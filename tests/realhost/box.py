"""Boots a real systemd as PID 1 in namespaces of its own and runs commands inside."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import select
import shlex
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

from . import stage
from .session import EMPTY_SCRIPT, open_session
from .shell import DIE_WITH_PARENT, BoxError, Shell, tail

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .session import UserSession

__all__ = ["Box", "BoxError", "cgroup2_mount"]

BOOT_DEADLINE_S = 60.0
SHUTDOWN_DEADLINE_S = 20.0
LOCK_DEADLINE_S = 300.0
POLL_S = 0.02
CGROUP_PREFIX = "hal0-box-"
NAMESPACES = ("--pid", "--mount", "--uts", "--ipc", "--cgroup", "--net")
UNSHARE = ("unshare", *NAMESPACES, "--fork", "--kill-child=KILL", "--propagation", "private")


def cgroup2_mount() -> Path | None:
    """Where this machine has mounted its cgroup v2 hierarchy, if anywhere."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, target, kind, *_ = line.split()
        if kind == "cgroup2":
            return Path(target)
    return None


def _remove_cgroup(top: Path) -> bool:
    """Remove a cgroup and all below it; False while a process is still inside."""
    try:
        if "populated 1" in (top / "cgroup.events").read_text():
            return False
        for directory, _, _ in os.walk(top, topdown=False):
            Path(directory).rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _await_removal(cgroup: Path) -> bool:
    """Remove a cgroup whose processes are dying; False where one is still inside at the deadline."""
    deadline = time.monotonic() + SHUTDOWN_DEADLINE_S
    while not _remove_cgroup(cgroup):
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_S)
    return True


def _sweep_cgroups(root: Path) -> None:
    """Wait for the end of boxes whose test runner was killed, and remove their cgroups."""
    for stale in root.glob(f"{CGROUP_PREFIX}*"):
        owner = stale.name.removeprefix(CGROUP_PREFIX).split("-")[0]
        if not Path("/proc", owner).exists():
            _await_removal(stale)


def _make_cgroup() -> Path:
    """A cgroup with a `box` and a `leader` below it, all of the machine's v2 controllers handed down."""
    root = cgroup2_mount()
    if root is None:
        raise BoxError("no cgroup2 filesystem is mounted on this machine")
    _sweep_cgroups(root)
    cgroup = root / f"{CGROUP_PREFIX}{os.getpid()}-{secrets.token_hex(4)}"
    cgroup.mkdir()
    available = (cgroup / "cgroup.controllers").read_text().split()
    (cgroup / "cgroup.subtree_control").write_text(" ".join(f"+{name}" for name in available))
    (cgroup / "box").mkdir()
    (cgroup / "leader").mkdir()
    return cgroup


def _lock(path: Path) -> int:
    """Take the lock of a state directory: two podmans with one storage would see each other's containers."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + LOCK_DEADLINE_S
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                os.close(fd)
                raise BoxError(f"another box uses {path.parent}") from None
            time.sleep(POLL_S)
        else:
            return fd


class _Console(threading.Thread):
    """Keeps what the box writes to /dev/console."""

    def __init__(self) -> None:
        super().__init__(name="hal0-box-console", daemon=True)
        self.master, self.slave = os.openpty()
        self.path = os.ttyname(self.slave)
        self._chunks: list[bytes] = []

    def run(self) -> None:
        with contextlib.suppress(OSError):
            while chunk := os.read(self.master, 4096):
                self._chunks.append(chunk)

    def text(self) -> str:
        return b"".join(self._chunks).decode(errors="replace").replace("\r\n", "\n")

    def close(self) -> None:
        """Close this side's slave, which ends the thread once the box has gone."""
        os.close(self.slave)
        self.join(timeout=SHUTDOWN_DEADLINE_S)
        os.close(self.master)


class Box(Shell):
    """A booted systemd in its own pid, mount, uts, ipc, cgroup and network namespaces; see `Box.boot`."""

    def __init__(self, state_dir: Path) -> None:
        super().__init__(cgroup="exec", env={"HOME": "/root", "USER": "root"})
        self.state_dir = state_dir
        self.boot_seconds = 0.0
        self.controllers: frozenset[str] = frozenset()
        self._init_pid = 0
        self._sessions: list[UserSession] = []
        self._leader: subprocess.Popen[bytes] | None = None
        self._down = False
        state_dir.mkdir(parents=True, exist_ok=True)
        self._lock_fd = _lock(state_dir / "lock")  # the box before takes its mount point away when it ends
        for name in ("storage", "rootless", "mnt"):
            (state_dir / name).mkdir(exist_ok=True)
        (state_dir / "rootless").chmod(0o1777)
        self._cgroup = _make_cgroup()
        self._console = _Console()

    @classmethod
    def boot(
        cls,
        state_dir: Path,
        binds: Mapping[Path, Path] | None = None,
        *,
        shared: Mapping[Path, Path] | None = None,
    ) -> Self:
        """Boot a box and wait until systemd has finished starting.

        `state_dir` keeps podman's storage between boxes (one box at a time) and must lie on a disk filesystem.
        `binds` maps paths of this machine to paths in the box, read-only; `shared` does so writable. The machine's
        whole root is visible except /tmp, /run, /dev and other mounted filesystems; every write stays in the box.

        The box dies with the thread that booted it, so boot it from one that lives as long as the box.
        """
        box = cls(state_dir.resolve())
        try:
            started = time.monotonic()
            box._start(_bind_args(binds or {}, "ro") + _bind_args(shared or {}, "rw"))
            box._await_systemd(started + BOOT_DEADLINE_S)
            box.boot_seconds = time.monotonic() - started
            box._remove_old_containers()
        except BaseException:
            box.shutdown()
            raise
        return box

    def _start(self, bind_args: list[str]) -> None:
        """Start the namespaces' leader, feed it the seed and wait until its mounts stand."""
        self.controllers = frozenset((self._cgroup / "box/cgroup.controllers").read_text().split())
        enter = f'echo $$ > {shlex.quote(str(self._cgroup))}/box/cgroup.procs && exec "$@"'
        stage_args = ["stage", str(self.state_dir / "mnt"), str(self.state_dir), self._console.path, *bind_args]
        leader = self._leader = subprocess.Popen(
            [*DIE_WITH_PARENT, "--", "sh", "-c", enter, "sh", *UNSHARE, "sh", "-c", stage.STAGE_SCRIPT, *stage_args],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            # The lock outlives a killed test runner until its box has died too.
            pass_fds=(self._lock_fd,),
        )
        self._console.start()
        self._init_pid = int(self._await_line(leader, b"pid "))
        # The leader stays outside of the namespaces; in the box's root cgroup it would keep controllers off.
        (self._cgroup / "leader/cgroup.procs").write_text(str(leader.pid))
        _feed(leader, stage.seed_tar(self.controllers))
        self._await_line(leader, b"ready")
        self.pid = self._init_pid

    @staticmethod
    def _await_line(leader: subprocess.Popen[bytes], prefix: bytes) -> bytes:
        """The rest of the stage's next line, which must start with `prefix`."""
        assert leader.stdout is not None
        deadline, said = time.monotonic() + BOOT_DEADLINE_S, b""
        while time.monotonic() < deadline:
            if not select.select([leader.stdout], [], [], POLL_S)[0]:
                continue
            chunk = os.read(leader.stdout.fileno(), 4096)
            said += chunk
            if said.startswith(prefix) and said.endswith(b"\n"):
                return said.removeprefix(prefix).strip()
            if not chunk:
                break
        raise BoxError(f"the box's mounts could not be made:\n{tail(said.decode(errors='replace'))}")

    def _await_systemd(self, deadline: float) -> None:
        """Wait for `running` or `degraded`; systemctl itself is refused until systemd listens."""
        state = ""
        while time.monotonic() < deadline and Path("/proc", str(self.pid)).exists():
            if not Path(f"/proc/{self.pid}/root/run/systemd/private").exists():
                time.sleep(POLL_S)
                continue
            left = max(1.0, deadline - time.monotonic())
            state = self.run("systemctl", "is-system-running", "--wait", timeout=left, check=False).stdout.strip()
            if state in {"running", "degraded"}:
                return
            if state in {"maintenance", "stopping"}:
                break
            time.sleep(POLL_S)
        raise BoxError(f"systemd did not come up (state {state!r}); console:\n{tail(self._console.text())}")

    def _remove_old_containers(self) -> None:
        """Start with the cached images but no containers; a storage damaged by a kill is emptied."""
        storage = self.state_dir / "storage"
        if not (storage / "libpod").exists() and not (storage / "db.sql").exists():
            return
        if self.run("sh", "-c", EMPTY_SCRIPT, timeout=120, check=False).returncode != 0:
            self.run("podman", "system", "reset", "--force", timeout=120)

    def journal(self, *match: str) -> str:
        """The box's journal as short lines, optionally narrowed by journalctl's arguments."""
        return self.run("journalctl", "--no-pager", "--output=short-monotonic", *match).stdout

    def user_session(self, name: str = "tester") -> UserSession:
        """A lingering user with a user manager, a session bus and rootless podman."""
        session = open_session(self, name)
        self._sessions.append(session)
        return session

    def console(self) -> str:
        """What PID 1 wrote to its console so far."""
        return self._console.text()

    def shutdown(self) -> None:
        """Kill the box's PID 1, and with it every process, mount and interface of the box; idempotent."""
        if self._down:
            return
        self._down = True
        if self._leader is not None:
            self._kill_leader(self._leader)
        for session in self._sessions:
            session.close()
        self.close()
        self._console.close()
        with contextlib.suppress(OSError):
            (self.state_dir / "mnt").rmdir()
        os.close(self._lock_fd)
        if not _await_removal(self._cgroup):
            raise BoxError(f"processes are left in {self._cgroup}")

    def _kill_leader(self, leader: subprocess.Popen[bytes]) -> None:
        """SIGKILL, because systemd re-executes on SIGTERM; unshare ends once the namespace is empty."""
        with contextlib.suppress(ProcessLookupError):
            # Without a pid the stage never finished: then the leader's death kills its child.
            os.kill(self._init_pid or leader.pid, signal.SIGKILL)
        try:
            leader.wait(timeout=SHUTDOWN_DEADLINE_S)
        except subprocess.TimeoutExpired as error:
            raise BoxError(f"the box's PID 1, {self._init_pid}, does not end") from error
        for stream in (leader.stdin, leader.stdout):
            if stream is not None:
                stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()


def _bind_args(binds: Mapping[Path, Path], mode: str) -> list[str]:
    return [text for source, target in binds.items() for text in (mode, str(source.resolve()), str(target))]


def _feed(leader: subprocess.Popen[bytes], data: bytes) -> None:
    """Send the stage its stdin; where it has died, what it said is read next."""
    assert leader.stdin is not None
    with contextlib.suppress(BrokenPipeError), leader.stdin as pipe:
        pipe.write(data)
