"""Whether this machine can host a box, and the Debian packages which that takes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from .box import cgroup2_mount
from .runtime import has_capability

CAP_SYS_ADMIN = 21
CAP_NET_ADMIN = 12
APT_TIMEOUT_S = 900
POLICY = Path("/usr/sbin/policy-rc.d")
PACKAGES = (
    "podman",
    "conmon",
    "runc",
    "crun",
    "catatonit",
    "netavark",
    "aardvark-dns",
    "iptables",
    "nftables",
    "iproute2",
    "dbus",
    "dbus-user-session",
    "systemd",
    "libpam-systemd",
    "uidmap",
    "slirp4netns",
    "passt",
    "curl",
    "python3-minimal",
    "util-linux",
    "debootstrap",
)
TOOLS = ("unshare", "nsenter", "setpriv", "pivot_root", "mount", "tar", "hostname")


def absent_packages() -> list[str]:
    """The packages of `PACKAGES` that dpkg does not have configured."""
    listing = subprocess.run(
        ["dpkg-query", "--show", "--showformat=${Package} ${db:Status-Status}\n"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout
    present = {line.split()[0] for line in listing.splitlines() if line.endswith(" installed")}
    return [name for name in PACKAGES if name not in present]


def _separate_filesystems() -> list[str]:
    """Mounts that an overlay of / does not carry and without which Debian's root is not whole."""
    return [path for path in ("/etc", "/usr", "/var") if path in _mounted()]


def _mounted() -> set[str]:
    return {line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()}


def _has_overlay() -> bool:
    """Whether overlays can be mounted; on a fresh machine the module is there and nobody has loaded it."""
    if "overlay" not in Path("/proc/filesystems").read_text() and shutil.which("modprobe"):
        subprocess.run(["modprobe", "overlay"], capture_output=True, check=False, timeout=30)
    return "overlay" in Path("/proc/filesystems").read_text()


def missing() -> list[str]:
    """Why this machine cannot host a box, one reason each; empty when it can, perhaps after `install`."""
    if sys.platform != "linux" or not Path("/etc/debian_version").exists() or shutil.which("dpkg-query") is None:
        return ["not a Debian machine"]
    reasons = []
    if os.geteuid() != 0:
        reasons.append("not root")
    if not has_capability(CAP_SYS_ADMIN) or not has_capability(CAP_NET_ADMIN):
        reasons.append("no CAP_SYS_ADMIN and CAP_NET_ADMIN, which namespaces and mounts take")
    if not _has_overlay():
        reasons.append("the kernel has no overlay filesystem")
    if "/" not in _mounted():
        reasons.append("the root is no mount of its own: a chroot")
    cgroup2 = cgroup2_mount()
    if cgroup2 is None or not os.access(cgroup2, os.W_OK):
        reasons.append("no writable cgroup2 filesystem is mounted")
    reasons += [f"{path} is a filesystem of its own" for path in _separate_filesystems()]
    absent = absent_packages()
    if absent and shutil.which("apt-get") is None:
        reasons.append(f"no apt-get to install {' '.join(absent)}")
    reasons += [f"no {tool}" for tool in TOOLS if shutil.which(tool) is None and not absent]
    return reasons


def install() -> list[str]:
    """Install what is absent, starting no service on the machine itself; returns the packages' names."""
    absent = absent_packages()
    if not absent:
        return []
    print(f"realhost: installing {' '.join(absent)}", file=sys.stderr, flush=True)
    ours = not POLICY.exists()
    if ours:
        # The packages' scripts ask this file before they start a unit; 101 forbids it.
        POLICY.write_text("#!/bin/sh\nexit 101\n")
        POLICY.chmod(0o755)
    try:
        _apt_get("install", "--yes", "--no-install-recommends", *absent)
    finally:
        if ours:
            POLICY.unlink()
    return absent


def _apt_get(*args: str) -> None:
    """Run apt-get without questions, and once more after an update where its lists are stale."""
    command = ["apt-get", "-o", "DPkg::Lock::Timeout=300", *args]
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    first = subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=APT_TIMEOUT_S)
    if first.returncode == 0:
        return
    subprocess.run(["apt-get", "update"], env=env, stdout=sys.stderr, check=True, timeout=APT_TIMEOUT_S)
    subprocess.run(command, env=env, stdout=sys.stderr, check=True, timeout=APT_TIMEOUT_S)


def main() -> None:
    """Install what is absent, or say why the real host's tests will be skipped."""
    if reasons := missing():
        print(f"realhost: no real host for tests here: {'; '.join(reasons)}", file=sys.stderr)
    else:
        install()


if __name__ == "__main__":
    main()
