"""The git repository that holds the manifests: the commit it is at, and commits of single files.

hal0 may be root and the repository anyone's. Its hooks and filters are its owner's code, and its files must stay its
owner's: so hal0 runs none of its hooks, and writes as its owner.
"""

from __future__ import annotations

import os
import pwd
import subprocess
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hal0.errors import Conflict

_DEADLINE = 5.0
_COMMIT_DEADLINE = 30.0
# The daemon is root and the checkout may be anyone's: trust it for reading, and run none of its programs.
_READING = ("-c", "safe.directory=*", "-c", "core.fsmonitor=false", "--no-optional-locks")
_WRITING = ("-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false", "-c", "commit.gpgSign=false")
_AUTHOR = ("-c", "user.name=hal0", "-c", "user.email=hal0@localhost")
_one_at_a_time = threading.Lock()


class NotCommitted(Conflict):
    """git made no commit; what was to be in it is on the disk as it was."""


def revision(path: Path) -> str:
    """Return the commit of the repository that holds ``path``, with ``-dirty`` for uncommitted changes below it."""
    folder = path if path.is_dir() else path.parent
    commit = _read(folder, "rev-parse", "--short=12", "HEAD")
    if not commit:
        return ""
    return commit + ("-dirty" if _read(folder, "status", "--porcelain", "--", str(path.resolve())) else "")


def read(folder: Path, *words: str) -> bytes | None:
    """Return what git says of the repository that holds a folder; None where it says no, or is not there."""
    try:
        done = _git(folder, *_READING, *words, timeout=_DEADLINE)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def _read(folder: Path, *words: str) -> str:
    return (read(folder, *words) or b"").decode(errors="surrogateescape").strip()


def _git(folder: Path, *words: str, **how: Any) -> subprocess.CompletedProcess[Any]:
    return subprocess.run(
        ["git", "-C", str(folder), *words], capture_output=True, check=False, stdin=subprocess.DEVNULL, **how
    )


@dataclass(frozen=True, slots=True)
class Repository:
    """A work tree. ``owner`` is the user id, and ``group`` the group id, of its ``.git``."""

    top: Path
    owner: int
    group: int

    @classmethod
    def of(cls, path: Path) -> Repository | None:
        """Return the repository whose work tree holds a file; None where there is none, or no git."""
        top = _read(path.parent, "rev-parse", "--show-toplevel")
        try:
            found = (Path(top) / ".git").stat() if top else None
        except OSError:
            return None
        return cls(Path(top), found.st_uid, found.st_gid) if found else None

    def is_clean(self, path: Path) -> bool:
        """Return whether a file is known to be as it was committed; one that is not there yet is, too."""
        done = self._run("status", "--porcelain", "--ignored", "--", str(path))
        return done.returncode == 0 and not done.stdout

    def commit(self, path: Path, message: str) -> str:
        """Commit one file, or its removal, and nothing else; return the commit's short name.

        What else is staged stays staged. Raises ``NotCommitted``.
        """
        with _one_at_a_time:
            if path.exists():
                self._write("add", "--intent-to-add", "--", str(path))
            author = () if self._has_author() else _AUTHOR
            self._write(*author, "commit", "--quiet", "--only", f"--message={message}", "--", str(path))
        return _read(self.top, "rev-parse", "--short=12", "HEAD")

    def _has_author(self) -> bool:
        return bool(self._run("config", "--get", "user.email").stdout.strip())

    def _write(self, *words: str) -> None:
        done = self._run(*words)
        if done.returncode != 0:
            said = (done.stderr.strip() or done.stdout.strip()).splitlines()
            raise NotCommitted(f"git: {said[0] if said else f'exit status {done.returncode}'}")

    def _run(self, *words: str) -> subprocess.CompletedProcess[str]:
        try:
            return _git(self.top, *_WRITING, *words, text=True, timeout=_COMMIT_DEADLINE, **self._as_owner())
        except subprocess.TimeoutExpired:
            raise NotCommitted(f"git: no answer in {_COMMIT_DEADLINE:.0f} s") from None
        except OSError as error:
            raise NotCommitted(f"git: {error.strerror}") from error

    def _as_owner(self) -> Mapping[str, Any]:
        """Return whose process git is to be, and its environment: nothing of ours may steer it."""
        me = os.geteuid()
        user = self.owner if me == 0 else me
        env = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C.UTF-8", "HOME": _home(user)}
        return {"env": env} if user == me else {"env": env, "user": user, "group": self.group, "extra_groups": []}


def _home(user: int) -> str:
    try:
        return pwd.getpwuid(user).pw_dir
    except KeyError:
        return "/nonexistent"
