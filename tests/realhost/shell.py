"""Runs commands inside a box, as root or as a user of it."""

from __future__ import annotations

import contextlib
import shlex
import subprocess
import time
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

LOG_TAIL = 40
REAP_TIMEOUT_S = 20.0
ENTER_SLACK_S = 10.0
KILLED = (-9, 137)
DIE_WITH_PARENT = ("setpriv", "--pdeathsig", "KILL")
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
WRITE_SCRIPT = """
mkdir -p -- "$(dirname -- "$1")" && cat > "$1.new" && chmod "$2" "$1.new" && mv -T -- "$1.new" "$1"
"""


class BoxError(RuntimeError):
    """A box did not boot, or a command inside of it failed or ran past its time."""


def tail(text: str, lines: int = LOG_TAIL) -> str:
    """The last lines of a text."""
    return "\n".join(text.splitlines()[-lines:])


class Shell:
    """Commands in the namespaces of one process, in one cgroup, under one user and environment.

    `pid` is this machine's number of the box's PID 1; 0 means that there is nothing to enter.
    """

    def __init__(self, *, cgroup: str, env: Mapping[str, str], become: tuple[str, ...] = ()) -> None:
        self.pid = 0
        self._cgroup_name = cgroup
        self._env = {"PATH": PATH, "LANG": "C.UTF-8", "TERM": "dumb", **env}
        self._become = become
        self._children: list[subprocess.Popen[str]] = []

    def _enter(self, argv: tuple[str, ...], env: Mapping[str, str] | None) -> list[str]:
        """The command line that runs argv inside, dying with this process."""
        if not self.pid:
            raise BoxError("the box is down")
        procs = f"/proc/{self.pid}/root/sys/fs/cgroup/{self._cgroup_name}/cgroup.procs"
        # Once inside the cgroup namespace a process from outside may no longer be moved, so move it before.
        enter = f'echo $$ > {shlex.quote(procs)} && exec nsenter -t {self.pid} -m -u -i -n -p -C -- "$@"'
        variables = [f"{key}={value}" for key, value in {**self._env, **(env or {})}.items()]
        # nsenter forks for the pid namespace; its child must die with it or a timed-out command would live on.
        inner = [*DIE_WITH_PARENT, *self._become, "--", "env", "-i", "-C", self._env["HOME"], *variables, *argv]
        return [*DIE_WITH_PARENT, "--", "sh", "-c", enter, "sh", *inner]

    def run(
        self,
        *argv: str,
        timeout: float = 30,
        check: bool = True,
        input: str | None = None,  # noqa: A002 - subprocess.run's own name
        stdin: IO[bytes] | None = None,
        env: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in the box with a clean environment; a failure raises BoxError if `check`."""
        source: dict[str, Any] = {"input": input or ""} if stdin is None else {"stdin": stdin}
        # The deadline is kept inside, where the whole process group dies and has a parent that reaps it: a zombie
        # handed to a test runner that is PID 1 of a container would keep the box from ending.
        bounded = ("timeout", "--signal=KILL", str(timeout), *argv)
        started = time.monotonic()
        done: subprocess.CompletedProcess[str] = subprocess.run(
            self._enter(bounded, env),
            **source,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout + ENTER_SLACK_S,
            check=False,
        )
        if done.returncode in KILLED and time.monotonic() - started >= timeout:
            raise BoxError(f"{shlex.join(argv)}: no end within {timeout} s")
        if check and done.returncode != 0:
            said = tail(done.stdout + done.stderr)
            raise BoxError(f"{shlex.join(argv)}: exit status {done.returncode}\n{said}")
        return done

    def popen(self, *argv: str, env: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
        """Start a command in the box with pipes on all three streams; it ends with the box at the latest."""
        child = subprocess.Popen(
            self._enter(argv, env),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        )
        self._children.append(child)
        return child

    def read(self, path: Path | str) -> str:
        """A file of the box."""
        return self.run("cat", "--", str(path)).stdout

    def write(self, path: Path | str, text: str, mode: int = 0o644) -> None:
        """Write a file in the box, with its parent directories, by rename so that no reader sees half of it."""
        self.run("sh", "-c", WRITE_SCRIPT, "sh", str(path), f"{mode:o}", input=text)

    def close(self) -> None:
        """End the commands which `popen` started, each by its pid, and refuse new ones."""
        self.pid = 0
        for child in self._children:
            child.kill()
            child.wait(timeout=REAP_TIMEOUT_S)
            for stream in (child.stdin, child.stdout, child.stderr):
                if stream is not None:
                    with contextlib.suppress(BrokenPipeError):
                        stream.close()
