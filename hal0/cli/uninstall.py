"""``hal0 uninstall``: what bears hal0's mark is taken away, what is yours stays."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from hal0.cli import client, show
from hal0.cli.install import API_UNIT, UNITS, systemctl
from hal0.core.spec import LABEL_SLOT
from hal0.errors import Conflict, StepFailed, UsageError
from hal0.host.checkup import is_booted
from hal0.host.lock import host_lock
from hal0.host.scope import Scope
from hal0.loop.removal import Holdings, holdings, remove_slots

_REMEMBERED = ("hal0.db*", "hal0.corrupt-*", "lock", "slots", "run", "logs")
"""What hal0 makes in its state directory. All else there is somebody's: models lie wherever ``model_dir`` says."""
_PATIENCE = 10.0
_PODMAN_S = 60.0


def uninstall(*, purge: bool, force: bool, scope: str | None) -> int:
    """Stop the daemon and its slots and remove hal0's units; with ``purge`` what it remembers, too."""
    place = client.place(scope)
    if purge and not force and not _confirmed(place):
        raise UsageError("nothing was changed", hint="without --purge it is all kept; --force does not ask")
    found = _take_away(place) if is_booted() else _nothing_installed(scope)
    with _locked(place):
        show.say(f"removed  {path}" for path in (_purge(place.state_dir) if purge else ()))
    show.say(_left(place, found))
    return 0


def _confirmed(place: Scope) -> bool:
    from typer import confirm

    what = f"{place.state_dir}: history, overrides, good specs, ports, logs"
    return confirm(f"Remove all that hal0 remembers ({what})?", err=True)


def _nothing_installed(scope: str | None) -> Holdings:
    """Return that nothing is under hal0's names where systemd does not run. Raises ``Conflict`` beside a daemon."""
    if client.is_running(scope):
        raise Conflict("`hal0 serve` runs, and systemd is not its keeper", hint="end it, then try again")
    return Holdings({}, {})


def _take_away(place: Scope) -> Holdings:
    """Remove slots and units, and return what was there. The daemon goes first, lest it heals what is taken away."""
    asyncio.run(_slots(place, is_to_go=False))  # what can't be seen is refused before anything is changed
    if (place.unit_dir / API_UNIT).exists():
        systemctl(place, "disable", "--quiet", "--now", API_UNIT)
        show.say([f"stopped  {API_UNIT}"])
    with _locked(place):
        found = asyncio.run(_slots(place, is_to_go=True))
        _remove_containers(found)
        _remove_units(place, keep_template=bool(found.foreign))
    return found


def _locked(place: Scope) -> AbstractContextManager[None]:
    """Keep every other hal0 from acting on this host; where there is no state directory, none ever did."""
    return host_lock(place.state_dir, patience=_PATIENCE) if place.state_dir.is_dir() else nullcontext()


async def _slots(place: Scope, *, is_to_go: bool) -> Holdings:
    from hal0.host.systemd_runtime import SystemdRuntime

    runtime = SystemdRuntime(place)
    try:
        found = await holdings(runtime)
        if is_to_go:
            async for gone in remove_slots(runtime, found.own):
                show.say([f"removed  {gone}"])
    finally:
        await runtime.close()
    return found


def _remove_containers(found: Holdings) -> None:
    """Remove containers with hal0's label that no unit took along when it stopped."""
    if shutil.which("podman"):
        ids = [each for name in found.own for each in _podman("ps", "-aq", "--filter", f"label={LABEL_SLOT}={name}")]
        if ids:
            _podman("rm", "--volumes", "--force", "--ignore", *ids)


def _podman(*words: str) -> list[str]:
    try:
        done = subprocess.run(["podman", *words], capture_output=True, text=True, timeout=_PODMAN_S, check=False)
    except subprocess.TimeoutExpired:
        raise StepFailed(f"podman {words[0]}: no answer in {_PODMAN_S:g} s", hint="try again") from None
    if done.returncode:
        raise StepFailed(f"podman {words[0]}: {done.stderr.strip()}", hint="mend that, then try again")
    return done.stdout.split()


def _remove_units(place: Scope, *, keep_template: bool) -> None:
    """Remove the unit files; the template stays for as long as somebody else's slot stands on it."""
    target = place.unit_dir / UNITS[1]
    if target.exists():
        systemctl(place, "disable", "--quiet", *([] if keep_template else ["--now"]), target.name)
    for unit in (API_UNIT, *(UNITS[1:] if keep_template else UNITS)):
        path = place.unit_dir / unit
        if path.is_file():  # a mask is somebody's word
            path.unlink()
            show.say([f"removed  {path}"])
    systemctl(place, "daemon-reload")


def _purge(state_dir: Path) -> Iterator[Path]:
    """Remove what hal0 made in the state directory, and yield what went."""
    for path in sorted(path for pattern in _REMEMBERED for path in state_dir.glob(pattern)):
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        yield path
    if state_dir.is_dir() and not any(state_dir.iterdir()):
        state_dir.rmdir()
        yield state_dir


def _left(place: Scope, found: Holdings) -> Iterator[str]:
    for name, why in found.foreign.items():
        yield f"left     slot {name}: {why}"
    yield from (f"left     {path}" for path in (place.manifests, place.state_dir) if path.exists())
