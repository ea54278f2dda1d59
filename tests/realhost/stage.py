"""What a box is made of: the script that builds its mounts, and the files laid over the machine's own root."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

from .runtime import containers_conf, runtime_files

SYSTEMD_DIR = "etc/systemd/system"

# Runs as PID 1 of the new namespaces. $1 is a mount point outside of the box, $2 holds its storage, $3 is the
# console's pty, the rest are binds as MODE SOURCE TARGET. It prints "pid N" in the machine's numbering, waits for the
# seed, a tar on stdin, and prints "ready" once nothing of the machine's own /run and /tmp is in sight.
STAGE_SCRIPT = r"""
set -eu
read -r pid _ < /proc/self/stat
echo "pid $pid"
work=$1 state=$2 console=$3; shift 3
mount -t tmpfs -o mode=0755 hal0-box "$work"
cd "$work"
mkdir upper wd new
mount -t overlay -o lowerdir=/,upperdir=upper,workdir=wd hal0-box new
cd new
mount -t tmpfs -o mode=1777 tmpfs tmp
mount -t tmpfs -o mode=0755,nosuid,nodev tmpfs run
mount -t proc -o nosuid,nodev,noexec proc proc
mount -t sysfs -o ro,nosuid,nodev,noexec sysfs sys
mount -t cgroup2 -o nosuid,nodev,noexec cgroup2 sys/fs/cgroup
mkdir -p sys/fs/cgroup/exec
mount -t tmpfs -o mode=0755,nosuid tmpfs dev
mkdir dev/net dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=0666,mode=0620,gid=5 devpts dev/pts
mount -t tmpfs -o mode=1777,nosuid,nodev tmpfs dev/shm
node() { mknod -m 0666 "dev/$1" c "$2" "$3"; }
node null 1 3; node zero 1 5; node full 1 7; node random 1 8; node urandom 1 9; node tty 5 0
node fuse 10 229; node net/tun 10 200
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
ln -s /proc/self/fd/0 dev/stdin; ln -s /proc/self/fd/1 dev/stdout; ln -s /proc/self/fd/2 dev/stderr
: > dev/console
mount --bind "$console" dev/console
rm -rf etc/systemd/system etc/systemd/user etc/containers/systemd
rm -rf var/lib/systemd/linger var/lib/containers var/log/journal
rm -rf etc/hal0 var/lib/hal0
tar -x -f -
mkdir -p var/lib/containers/storage var/lib/hal0-box/rootless
mount --bind "$state/storage" var/lib/containers/storage
mount --bind "$state/rootless" var/lib/hal0-box/rootless
while [ $# -gt 0 ]; do
  if [ -d "$2" ]; then mkdir -p "./$3"; else mkdir -p "./${3%/*}"; : > "./$3"; fi
  mount --rbind "$2" "./$3"
  if [ "$1" = ro ]; then mount -o remount,bind,ro "./$3"; fi
  shift 3
done
mkdir run/host-root
pivot_root . run/host-root
cd /
umount -l /run/host-root
rmdir /run/host-root
hostname hal0-box
echo ready
exec < /dev/null > /dev/console 2>&1
exec env -i container=hal0-box PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 \
  setpriv --bounding-set -sys_time,-sys_module,-syslog /lib/systemd/systemd --system --unit=multi-user.target
"""

# Units that would touch the machine below the box, wait for devices it has not got, or only cost boot time.
MASKED = """
    systemd-sysctl.service procps.service systemd-modules-load.service kmod-static-nodes.service
    systemd-binfmt.service proc-sys-fs-binfmt_misc.automount proc-sys-fs-binfmt_misc.mount
    sys-kernel-config.mount sys-kernel-debug.mount sys-kernel-tracing.mount sys-fs-fuse-connections.mount
    dev-hugepages.mount systemd-remount-fs.service systemd-udevd.service systemd-udevd-control.socket
    systemd-udevd-kernel.socket systemd-udev-trigger.service systemd-udev-settle.service
    systemd-firstboot.service systemd-random-seed.service systemd-update-utmp.service
    systemd-update-utmp-runlevel.service systemd-pstore.service systemd-repart.service
    systemd-machine-id-commit.service systemd-pcrphase.service systemd-pcrphase-sysinit.service
    systemd-tpm2-setup.service systemd-tpm2-setup-early.service systemd-journal-flush.service
    systemd-journald-audit.socket systemd-initctl.socket systemd-sysusers.service systemd-timesyncd.service
    systemd-networkd.service systemd-networkd.socket systemd-resolved.service systemd-ask-password-console.path
    systemd-ask-password-wall.path getty.target getty-static.service console-getty.service
    systemd-tmpfiles-clean.timer systemd-tmpfiles-setup-dev.service systemd-tmpfiles-setup-dev-early.service
    podman-auto-update.timer podman-restart.service hwclock.service
"""

# Generators that read the machine's fstab, crypttab, rc.d and kernel command line; only podman's own is kept.
KEPT_GENERATORS = frozenset({"podman-system-generator"})
GENERATOR_DIR = Path("/usr/lib/systemd/system-generators")


STORAGE_CONF = """[storage]
driver = "overlay"
runroot = "/run/containers/storage"
graphroot = "/var/lib/containers/storage"
rootless_storage_path = "/var/lib/hal0-box/rootless/$UID"
"""

JOURNALD_CONF = """[Journal]
Storage=volatile
RuntimeMaxUse=128M
RateLimitIntervalSec=0
ForwardToSyslog=no
ForwardToWall=no
"""


def seed_files(controllers: frozenset[str]) -> dict[str, str]:
    """Regular files of the seed, by path relative to the root."""
    return {
        "etc/fstab": "",
        "etc/crypttab": "",
        "etc/hostname": "hal0-box\n",
        "etc/hosts": "127.0.0.1 localhost hal0-box\n::1 localhost\n",
        # Replaces the distribution's file of that name, which empties /tmp at boot.
        "etc/tmpfiles.d/tmp.conf": "",
        "etc/systemd/journald.conf.d/99-hal0-box.conf": JOURNALD_CONF,
        "etc/containers/containers.conf.d/99-hal0-box.conf": containers_conf(controllers),
        "etc/containers/storage.conf": STORAGE_CONF,
    }


def seed_links() -> dict[str, str]:
    """Symbolic links of the seed: masks, silenced generators and enabled sockets."""
    links = {f"{SYSTEMD_DIR}/{unit}": "/dev/null" for unit in MASKED.split()}
    for generator in GENERATOR_DIR.iterdir():
        if generator.name not in KEPT_GENERATORS:
            links[f"etc/systemd/system-generators/{generator.name}"] = "/dev/null"
    for manager in ("system", "user"):
        links[f"etc/systemd/{manager}/sockets.target.wants/podman.socket"] = f"/usr/lib/systemd/{manager}/podman.socket"
    return links


def seed_tar(controllers: frozenset[str]) -> bytes:
    """The files and links which replace the machine's own in a box, as a tar archive."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for directory in (SYSTEMD_DIR, "etc/systemd/user", "var/lib/systemd/linger"):
            entry = tarfile.TarInfo(directory)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(entry)
        for name, text in seed_files(controllers).items():
            _add_file(archive, name, text, 0o644)
        for name, text in runtime_files(controllers).items():
            _add_file(archive, name, text, 0o755)
        for name, target in seed_links().items():
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = tarfile.SYMTYPE, target
            archive.addfile(entry)
    return buffer.getvalue()


def _add_file(archive: tarfile.TarFile, name: str, text: str, mode: int) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(text.encode()), mode
    archive.addfile(entry, io.BytesIO(text.encode()))
