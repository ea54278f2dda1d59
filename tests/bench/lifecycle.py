"""The lifecycle as clients see it: a slot that a request wakes, one that is swapped, engines that die or hang."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import cycle, islice, pairwise
from pathlib import Path
from typing import Any

from bench.measure import Row, Rows
from bench.real_host import booted, inside
from realhost import images
from realhost.conftest import MODELS
from realhost.host import Host, host_manifest, slot_manifest
from realhost.load import Load, lost

_ROOT = "/etc/hal0/manifests"
_FOLDER = Path("/srv/hal0-bench-models")
_V1, _BY_HAND = "8080", "8300"
_ROUNDS = 5
_SWAPS = 4
_HUNG = ("hung-1", "hung-2")
_WAYS: Mapping[str, Mapping[str, object]] = {"beside": {}, "in place": {"replace": "in-place"}}
"""Each way to swap, with the keys of a Slot that ask for it."""

# What ties a container to its unit. By hand there is none.
_OF_A_UNIT = ("--cgroups=", "--sdnotify=", "--log-driver=", "--label=", "--name=", "--publish=", "--replace")


def rows() -> Rows:
    """Measure all of it, in one box."""
    with _host() as host:
        yield from _wakes(host)
        yield from _swaps(host)
        yield from _kills(host)
        yield from _hangs(host)


@contextmanager
def _host() -> Iterator[Host]:
    with booted() as (box, cache):
        images.load(box, images.engine_image(cache))
        file = images.model(cache).name
        box.run("sh", "-c", f"mkdir {_FOLDER} && cp {MODELS}/{file} {_FOLDER}/ && ln -s {file} {_FOLDER}/other.gguf")
        host = Host(box, _ROOT)
        text = host_manifest(_FOLDER, images.ENGINE_TAG).replace("resync: 5s\n", "")
        host.manifest("host.yaml", f"{text}---\nkind: Model\nname: other\npath: other.gguf\n")
        host.manifest("cold.toml", _slot("cold", run="on-demand", idle_timeout="1s"))
        host.manifest("chat.toml", _slot("chat"))
        for name in _HUNG:
            host.manifest(f"{name}.toml", _slot(name))
        host.hal0("install")
        host.until_ready("chat", *_HUNG)
        yield host


def _slot(name: str, **settings: object) -> str:
    """Return a slot whose engine leaves the machine's other core to the clients and to hal0."""
    return slot_manifest(name, args=["--threads", "1"], **settings)


def _wakes(host: Host) -> Iterator[Row]:
    """Measure a cold slot's first answer, and in the same rounds that of the same engine without hal0."""
    command = _by_hand(host)
    woken, alone = [], []
    for _ in range(_ROUNDS):
        host.until("cold is down", lambda: host.slot("cold")["state"] == "offline" and not host.container("cold"))
        woken.append(inside(host, "answer", _V1, "cold"))
        alone.append(inside(host, "answer", _BY_HAND, "cold", *command)["seconds"])
        host.podman("rm", "--force", "--time", "0", "by-hand")
    seconds = [one["seconds"] for one in woken]
    failed = sum(one["failed"] for one in woken)
    yield Row("a request to a cold slot, until its first byte", "s", tuple(seconds), note=f"{failed} failed")
    yield Row("the same engine by `podman run`, until its first byte", "s", tuple(alone))
    yield Row("hal0's share of a cold wake", "s", tuple(a - b for a, b in zip(seconds, alone, strict=True)))


def _by_hand(host: Host) -> list[str]:
    """Return the command of a slot's container as a person would type it."""
    words: list[str] = json.loads(host.podman("inspect", "hal0-slot-chat"))[0]["Config"]["CreateCommand"]
    kept = [word for word in words if not word.startswith(_OF_A_UNIT)]
    assert kept[1] == "run", kept
    return [*kept[:2], "--name=by-hand", f"--publish=127.0.0.1:{_BY_HAND}:8080", *kept[2:]]


def _swaps(host: Host) -> Iterator[Row]:
    """Measure an edit of a ready slot's model while clients ask without a pause."""
    for way, keys in _WAYS.items():
        models = islice(cycle(("other", "smollm2")), _SWAPS)
        found = [_swapped(host, _slot("chat", **{"model": model, **keys})) for model in models]
        titles = {
            "before": "the longest time without an answer before it",
            "gap": "the longest time without an answer",
            "wait": "the longest wait of a request",
        }
        for key, title in titles.items():
            yield Row(f"a swap {way}: {title}", "s", tuple(one[key] for one in found))
        yield Row(f"a swap {way}: requests that failed", "", tuple(one["failed"] for one in found), 0)


def _swapped(host: Host, manifest: str) -> dict[str, float]:
    run = _run(host)
    with Load(host) as load:
        edited = time.monotonic()
        host.manifest("chat.toml", manifest)
        host.until("another run, alone", lambda: _run(host) not in {"", run} and not _has_stand_in(host))
        load.go_on()
    host.until_ready("chat")
    ends = sorted(answer["ended"] for answer in load.answers if answer not in lost(load.answers))
    gaps = [(after, after - before) for before, after in pairwise(ends)]
    return {
        "before": max(gap for end, gap in gaps if end <= edited),
        "gap": max(gap for end, gap in gaps if end > edited),
        "wait": max(answer["ended"] - answer["began"] for answer in load.answers if answer["ended"] > edited),
        "failed": len(lost(load.answers)),
    }


def _run(host: Host) -> str:
    """Return which run of its service the swapped slot is in: by systemd, who takes no time from the daemon."""
    return host.systemctl("show", "--property=InvocationID", "--value", "hal0-slot@chat.service")


def _has_stand_in(host: Host) -> bool:
    return host.systemctl("is-active", "hal0-slot@chat.next.service", check=False) == "active"


def _kills(host: Host) -> Iterator[Row]:
    found = []
    for _ in range(_ROUNDS):
        host.systemctl("reset-failed", "hal0-slot@chat.service")  # else systemd refuses the sixth start
        found.append(_signalled(host, "chat", "KILL"))
    yield from _healed("kill -9 of an engine", found)


def _hangs(host: Host) -> Iterator[Row]:
    """Each has an engine of its own: one that hangs again is left alone for a while."""
    yield from _healed("an engine that hangs (SIGSTOP)", [_signalled(host, name, "STOP") for name in _HUNG])


def _signalled(host: Host, slot: str, signal: str) -> dict[str, Any]:
    pid = host.podman("inspect", "--format", "{{.State.Pid}}", f"hal0-slot-{slot}")
    found: dict[str, Any] = inside(host, "answer", _V1, slot, "sh", "-c", f"kill -{signal} {pid}")
    host.until_ready(slot)
    return found


def _healed(fault: str, found: Sequence[dict[str, Any]]) -> Iterator[Row]:
    failed = sum(one["failed"] for one in found)
    note = f"{failed} failed"
    yield Row(f"{fault}, until the next answer", "s", tuple(one["seconds"] for one in found), note=note)
