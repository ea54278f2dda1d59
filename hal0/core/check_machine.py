"""The checks of the machine: what runs slots, what limits them, disks, GPUs."""

from __future__ import annotations

import re

from hal0.core.check import Check, Checks, Line
from hal0.core.facts import Unknown
from hal0.core.findings import Findings, Gpu, Volume
from hal0.core.quantity import show_size

_OLDEST_SYSTEMD = 252
_OLDEST_PODMAN = (4, 3)
_CONTROLLERS = ("cpu", "memory", "pids")
_GIB = 2**30
_LITTLE, _NEXT_TO_NOTHING = 10 * _GIB, _GIB
_EMBEDDED = "slots are child processes of `hal0 serve`"


def machine_checks(found: Findings) -> Checks:
    """Yield the checks, each before those that rest on it."""
    for part in (_systemd, _podman, _podman_socket, _cgroups, _linger, _disks, _gpus, _driverless):
        yield from part(found)


def _systemd(found: Findings) -> Checks:
    line, version = Line("machine", "systemd"), found.systemd
    instead = "upgrade the system, or run hal0 with --runtime process"
    if isinstance(version, Unknown):
        yield line.unknown(version, found.installed.systemctl("status") + " says whether it answers")
    elif version.value is None and found.installed.needs_podman:
        yield line.fail("this machine is not run by systemd", "run hal0 with --runtime process")
    elif version.value is None:
        yield line.ok(f"this machine is not run by it: {_EMBEDDED}")
    elif _numbers(version.value) < (_OLDEST_SYSTEMD,):
        yield line.fail(f"{version.value} is older than {_OLDEST_SYSTEMD}", instead)
    else:
        yield line.ok(version.value)


def _podman(found: Findings) -> Checks:
    line, version, install = Line("machine", "podman"), found.podman, "apt-get install podman"
    if isinstance(version, Unknown):
        yield line.unknown(version, "podman version")
    elif version.value is None and found.installed.needs_podman:
        yield line.fail("not installed: slots can't start", install)
    elif version.value is None and found.installed.booted:
        yield line.warn(f"not installed: {_EMBEDDED}", f"{install}, where they are to be containers")
    elif version.value is None:
        yield line.ok(f"not installed: {_EMBEDDED}")
    elif _numbers(version.value) < _OLDEST_PODMAN:
        yield line.fail(f"{version.value} is older than {'.'.join(map(str, _OLDEST_PODMAN))}", "upgrade podman")
    else:
        yield line.ok(version.value)


def _podman_socket(found: Findings) -> Checks:
    line, answers = Line("machine", "podman's socket"), found.podman_socket
    mend = found.installed.systemctl("enable --now podman.socket")
    if not found.installed.needs_podman:
        return
    if isinstance(answers, Unknown):
        yield line.unknown(answers, mend)
    elif answers.value:
        yield line.ok("answers")
    else:
        yield line.fail("nobody listens: hal0 can't see containers, and can't pull images", mend)


def _cgroups(found: Findings) -> Checks:
    line, groups = Line("machine", "cgroups"), found.cgroups
    if isinstance(groups, Unknown):
        yield line.unknown(groups)
    elif not found.installed.needs_podman:
        yield line.ok(f"version {groups.value.version}")
    elif groups.value.version != 2:  # noqa: PLR2004  (the version that hal0 needs)
        mend = "boot with systemd.unified_cgroup_hierarchy=1 on the kernel's command line"
        yield line.fail("version 1: hal0 needs version 2", mend)
    elif lacking := [name for name in _CONTROLLERS if name not in groups.value.controllers]:
        whose = "your units" if found.installed.is_user else "this machine's root group"
        text = f"version 2, but {whose} have no {', '.join(lacking)}: such limits of slots don't hold"
        yield line.warn(text, _delegation(found))
    else:
        yield line.ok(f"version 2, with {', '.join(_CONTROLLERS)}")


def _delegation(found: Findings) -> str:
    if found.installed.is_user:
        return "as root: systemctl edit user@.service, with [Service] Delegate=cpu cpuset io memory pids; log in anew"
    return "the kernel or the container around this machine withholds them: enable them there"


def _linger(found: Findings) -> Checks:
    line, linger = Line("machine", "lingering"), found.linger
    if not (found.installed.is_user and found.installed.needs_podman):
        return
    if isinstance(linger, Unknown):
        yield line.unknown(linger, "loginctl show-user --property=Linger")
    elif linger.value:
        yield line.ok("your services run while you are logged out")
    else:
        yield line.warn("your services end when you log out", "loginctl enable-linger")


def _disks(found: Findings) -> Checks:
    if isinstance(found.volumes, Unknown):
        yield Line("machine", "disk").unknown(found.volumes)
        return
    for volume in found.volumes.value:
        yield _disk(volume)


def _disk(volume: Volume) -> Check:
    line = Line("machine", "disk")
    text = f"{volume.path}: {show_size(volume.free)} of {show_size(volume.total)} free ({', '.join(volume.uses)})"
    if volume.free < _NEXT_TO_NOTHING:
        return line.fail(text, "free some: models that no slot uses, and `podman image prune`")
    if volume.free < _LITTLE:
        return line.warn(text, "little for a further model or image: free some before you add one")
    return line.ok(text)


def _gpus(found: Findings) -> Checks:
    line, gpus = Line("machine", "GPU"), found.gpus
    if isinstance(gpus, Unknown):
        yield line.unknown(gpus)
    elif not gpus.value:
        yield line.ok("none: slots compute on the CPU")
    else:
        yield from (_gpu(line, gpu, found) for gpu in gpus.value)


def _gpu(line: Line, gpu: Gpu, found: Findings) -> Check:
    if not gpu.group:
        text = f"{gpu.node} is not there, though driver {gpu.driver} has a GPU"
        return line.warn(text, "hand the device on to this container or machine, if slots are to use it")
    text = f"{gpu.node}: driver {gpu.driver}, group {gpu.group}"
    if gpu.usable:
        return line.ok(text)
    who = found.installed.who
    return line.warn(
        f"{text}; {who} can't open it", f"as root: usermod --append --groups {gpu.group} {who}; log in anew"
    )


def _driverless(found: Findings) -> Checks:
    devices = found.driverless
    if not isinstance(devices, Unknown) and devices.value:
        text = f"no driver has taken {', '.join(devices.value)}"
        yield Line("machine", "GPU").warn(text, "if slots are to use it: install its driver, and see `dmesg`")


def _numbers(version: str) -> tuple[int, ...]:
    """Return the leading numbers of a version: 5.4.2 of ``5.4.2-dev``, 252 of ``252 (252.39-1)``."""
    leading = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(part) for part in leading[0].split(".")) if leading else ()
