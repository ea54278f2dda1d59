"""A user of the box with a systemd user manager, a session bus and rootless podman."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from .shell import BoxError, Shell

if TYPE_CHECKING:
    from .box import Box

SESSION_UID = 4242
SUBORDINATE_IDS = "1000000:65536"
SESSION_DEADLINE_S = 30.0
POLL_S = 0.02
# Leaves podman's tagged images only.
EMPTY_SCRIPT = """
set -e
podman rm --all --force --volumes
podman volume rm --all --force
podman secret rm --all
podman image prune --force
"""
# $1 is the user's name, $2 the uid, $3 the subordinate ids as FIRST:COUNT; useradd's own choice of them depends on the
# machine's other users, and would not fit the storage that an earlier box has left.
CREATE_SCRIPT = """
set -eu
useradd --create-home --uid "$2" --user-group --shell /bin/bash "$1"
for ids in /etc/subuid /etc/subgid; do sed -i "/^$1:/d" "$ids"; echo "$1:$3" >> "$ids"; done
loginctl enable-linger "$1"
"""
# $1 is the user manager's cgroup, $2 the user. Commands get a leaf of their own. Where the machine has cgroup v1 too,
# podman leaves a unit's cgroup, which ends the unit, unless the user also owns the v1 paths, which all are the root.
CGROUP_SCRIPT = """
mkdir -p "$1/exec" && chown -R "$2:$2" "$1/exec"
if grep -qv ^0: /proc/self/cgroup; then chown "$2" /sys/fs/cgroup; fi
"""


class UserSession(Shell):
    """Commands in the box as a lingering user, with XDG_RUNTIME_DIR and the user's bus."""

    def __init__(self, box: Box, name: str, uid: int) -> None:
        runtime = f"/run/user/{uid}"
        super().__init__(
            cgroup=f"user.slice/user-{uid}.slice/user@{uid}.service/exec",
            env={
                "HOME": f"/home/{name}",
                "USER": name,
                "LOGNAME": name,
                "XDG_RUNTIME_DIR": runtime,
                "DBUS_SESSION_BUS_ADDRESS": f"unix:path={runtime}/bus",
            },
            become=("--reuid", name, "--regid", name, "--init-groups"),
        )
        self.name, self.uid, self.runtime = name, uid, runtime
        self.pid = box.pid


def open_session(box: Box, name: str, uid: int = SESSION_UID) -> UserSession:
    """Create the user with subordinate ids, start its user manager and wait for it."""
    box.run("sh", "-c", CREATE_SCRIPT, "sh", name, str(uid), SUBORDINATE_IDS)
    _await_manager(box, uid)
    box.run("sh", "-c", CGROUP_SCRIPT, "sh", f"/sys/fs/cgroup/user.slice/user-{uid}.slice/user@{uid}.service", name)
    session = UserSession(box, name, uid)
    session.run("systemctl", "--user", "is-system-running", "--wait", check=False)
    # The storage outlives the box for its images; containers of an earlier box go. One that a kill has damaged, or
    # that is of other subordinate ids, is not the user's to mend.
    if session.run("sh", "-c", EMPTY_SCRIPT, timeout=120, check=False).returncode != 0:
        box.run("rm", "-rf", f"/var/lib/hal0-box/rootless/{uid}", timeout=120)
        session.run("sh", "-c", EMPTY_SCRIPT, timeout=120)
    return session


def _await_manager(box: Box, uid: int) -> None:
    """Wait until the user's manager is active and its bus has a socket."""
    deadline = time.monotonic() + SESSION_DEADLINE_S
    while time.monotonic() < deadline:
        active = box.run("systemctl", "is-active", f"user@{uid}.service", check=False).stdout.strip()
        if active == "failed":
            break
        if active == "active" and box.run("test", "-S", f"/run/user/{uid}/bus", check=False).returncode == 0:
            return
        time.sleep(POLL_S)
    raise BoxError(f"user@{uid}.service did not come up:\n{box.journal('-n', '40', '-u', f'user@{uid}.service')}")
