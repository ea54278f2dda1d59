"""A real host: a booted systemd with podman, twenty slots, and the daemon that keeps them."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from bench import tiny_image
from bench.measure import Row, Rows
from bench.real_host import booted, inside
from realhost.host import HAL0, Host

SLOTS = 20
_ROUNDS = 7
_IDLE_S = 60.0
_SETTLE_S = 5.0
_ROOT = "/etc/hal0/manifests"
_API = "hal0-api.service"
_MODELS = "/srv/hal0-bench-models"
_HOST = f"""kind: Host
model_dir: {_MODELS}
slot_ports: 8101-8140
---
kind: Model
name: m
path: m.gguf
"""
_START_AIM_S, _NOTICE_AIM_S, _MEMORY_AIM_MB, _IDLE_AIM_PERCENT = 1.0, 1.0, 80.0, 0.5


def rows() -> Rows:
    """Measure all of it, in one box."""
    with _host() as host:
        names = [f"slot-{number:02}" for number in range(SLOTS)]
        yield from _by_itself(host, names)
        host.hal0("install")
        host.until_ready(*names)
        yield from _through_the_daemon(host)
        yield from _starts(host, names)
        yield from _idle(host)
        yield from _kills(host, names[:_ROUNDS])
        yield from _saves(host, names[_ROUNDS : 2 * _ROUNDS])


@contextmanager
def _host() -> Iterator[Host]:
    with booted() as (box, cache):
        tiny_image.load(box, cache)
        box.write(f"{_MODELS}/m.gguf", "GGUF")
        host = Host(box, _ROOT)
        host.manifest("host.yaml", f"{_HOST}---\n{tiny_image.PROFILE}")
        yield host


def _slot(name: str, **env: str) -> str:
    pairs = "".join(f"{key} = {json.dumps(value)}\n" for key, value in env.items())
    return f'kind = "Slot"\nname = "{name}"\nmodel = "m"\nprofile = "tiny"\n\n[env]\n{pairs}'


def _by_itself(host: Host, names: Sequence[str]) -> Iterator[Row]:
    """Measure apply without a daemon: the first one, and those that find nothing to do."""
    for name in names:
        host.manifest(f"{name}.toml", _slot(name))
    host.hal0("install", "--no-start")
    begun = time.monotonic()
    host.hal0("apply", timeout=180)
    yield Row(f"the first apply of {SLOTS} slots, without the daemon", "s", (time.monotonic() - begun,))
    yield from _timed(host, "apply with nothing to do, without the daemon", "apply")


def _through_the_daemon(host: Host) -> Iterator[Row]:
    yield from _timed(host, "apply with nothing to do, by the daemon", "apply")
    yield from _timed(host, "slot list, from the daemon", "slot", "list")


def _timed(host: Host, name: str, *words: str) -> Iterator[Row]:
    spent = inside(host, "time", str(_ROUNDS), HAL0, *words)
    yield Row(f"{name}, wall", "ms", tuple(wall * 1e3 for wall, _ in spent))
    yield Row(f"{name}, CPU", "ms", tuple(cpu * 1e3 for _, cpu in spent), note="of the command")


def _starts(host: Host, names: Sequence[str]) -> Iterator[Row]:
    """Measure the daemon's start, as systemd saw it: from the fork to READY=1."""
    took, cpu = [], []
    for _ in range(_ROUNDS):
        host.systemctl("stop", _API)
        host.systemctl("reset-failed", _API)  # else systemd refuses the sixth start within ten seconds
        host.systemctl("start", _API)
        cpu.append(_usage(host, f"system.slice/{_API}"))
        shown = _shown(host, "InactiveExitTimestampMonotonic", "ActiveEnterTimestampMonotonic")
        took.append((int(shown[1]) - int(shown[0])) / 1e6)
    yield Row(f"the daemon's start beside {SLOTS} running slots, until ready", "s", tuple(took), _START_AIM_S)
    yield Row("the same, CPU", "s", tuple(cpu))
    host.until_ready(*names)


def _shown(host: Host, *properties: str) -> list[str]:
    """Return properties of the daemon's unit, in the order that they were asked for."""
    text = host.systemctl("show", *(f"--property={name}" for name in properties), _API)
    found = dict(line.split("=", 1) for line in text.splitlines())
    return [found[name] for name in properties]


def _idle(host: Host) -> Iterator[Row]:
    """Measure a minute in which nothing happens: two resyncs at the default pace."""
    time.sleep(_SETTLE_S)
    groups = {
        "the daemon": f"system.slice/{_API}",
        "systemd": "init.scope",
        "the D-Bus daemon": "system.slice/dbus.service",
        "podman's service": "system.slice/podman.service",
    }
    before = {name: _usage(host, group) for name, group in groups.items()}
    begun = time.monotonic()
    time.sleep(_IDLE_S)
    lasted = time.monotonic() - begun
    for name, group in groups.items():
        percent = (_usage(host, group) - before[name]) / lasted * 100
        aim = _IDLE_AIM_PERCENT if name == "the daemon" else None
        yield Row(f"CPU of {name}, idle for {_IDLE_S:.0f} s", "%", (percent,), aim, "of a core")
    yield from _memory(host)


def _usage(host: Host, group: str) -> float:
    """Return the CPU seconds that a control group has used; 0 where there is none."""
    found = host.shell.run("cat", f"/sys/fs/cgroup/{group}/cpu.stat", check=False).stdout.split()
    return int(found[found.index("usage_usec") + 1]) / 1e6 if found else 0.0


def _memory(host: Host) -> Iterator[Row]:
    (pid,) = _shown(host, "MainPID")
    for key in ("Pss", "Rss"):
        line = host.shell.run("grep", f"^{key}:", f"/proc/{pid}/smaps_rollup").stdout
        yield Row(f"memory of the daemon, {key.upper()}", "MB", (int(line.split()[1]) * 1024 / 1e6,), _MEMORY_AIM_MB)


def _kills(host: Host, names: Sequence[str]) -> Iterator[Row]:
    """Measure healing. Each round has a slot of its own: systemd gives up on one that dies too often."""
    found = [inside(host, "kill", name) for name in names]
    titles = {
        "command": "podman kill, the command itself",
        "noticed": "podman kill to noticed",
        "running": "podman kill to another container",
        "ready": "podman kill to ready again",
    }
    for key, title in titles.items():
        aim = _NOTICE_AIM_S if key == "noticed" else None
        yield Row(title, "s", tuple(one[key] for one in found), aim)


def _saves(host: Host, names: Sequence[str]) -> Iterator[Row]:
    found = [inside(host, "save", f"{_ROOT}/{name}.toml", name, text=_slot(name, CHANGED="yes")) for name in names]
    yield Row("a saved manifest to its plan", "s", tuple(one["planned"] for one in found))
    yield Row("a saved manifest to the new container ready", "s", tuple(one["ready"] for one in found))
