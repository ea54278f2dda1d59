"""``hal0 install``: units in place, the daemon started."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from jinja2 import Environment, StrictUndefined

from hal0 import resources
from hal0.cli import show
from hal0.cli.client import place as scope_of
from hal0.core.quote import systemd_join
from hal0.errors import HostUnreachable, StepFailed, UsageError
from hal0.host.scope import Scope
from hal0.host.whole import replace

_DEADLINE = 90
UNITS = ("hal0-slot@.service", "hal0.target")
API_UNIT = "hal0-api.service"


def install(manifests: Path | None, *, start: bool, scope: str | None) -> int:
    """Write the units that differ, reload systemd, and start the daemon. Running slots are left alone."""
    place = scope_of(scope)
    root = (manifests or place.manifests).resolve()
    if manifests and not root.is_dir():
        raise UsageError(f"there is no folder {root}", hint="make it, and put your manifests there")
    root.mkdir(parents=True, exist_ok=True)
    written = [unit for unit, text in unit_texts(place, root).items() if _put(place.unit_dir / unit, text)]
    show.say(f"wrote {place.unit_dir / unit}" for unit in written)
    if shutil.which("podman") is None:
        show.hint("podman is not installed: slots can't start without it (apt-get install podman)")
    systemctl(place, "daemon-reload")
    if start:
        systemctl(place, "enable", "--quiet", "hal0.target", API_UNIT)
        systemctl(place, "restart" if API_UNIT in written else "start", API_UNIT)
        show.say([f"hal0 serves {root}: see `hal0 status`"])
    return 0


def unit_texts(place: Scope, root: Path) -> dict[str, str]:
    """Return the text of every unit for a scope."""
    texts = {unit: resources.read("systemd", unit) for unit in UNITS}
    environment = Environment(undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False)  # noqa: S701
    environment.filters["systemd"] = systemd_join
    template = environment.from_string(resources.read("systemd", f"{API_UNIT}.j2"))
    argv = [sys.executable, "-m", "hal0.cli", "serve", str(root), "--runtime=systemd", f"--scope={place.name}"]
    texts[API_UNIT] = template.render(argv=argv, user=place.is_user)
    if place.is_user:
        texts["hal0.target"] = texts["hal0.target"].replace("multi-user.target", "default.target")
    return texts


def _put(path: Path, text: str) -> bool:
    try:
        if path.exists() and path.read_text() == text:
            return False
        path.parent.mkdir(parents=True, exist_ok=True)
        replace(path, text, mode=0o644)
    except OSError as error:
        hint = "run hal0 install as root, or with --scope user" if os.getuid() else ""
        raise StepFailed(f"can't write {path}: {error.strerror}", hint=hint) from error
    return True


def systemctl(place: Scope, *words: str) -> None:
    """Run systemctl on the manager of a scope. Raises ``HostUnreachable`` with its words where it fails."""
    command = ["systemctl", *(["--user"] if place.is_user else []), *words]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_DEADLINE, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise HostUnreachable(f"systemctl did not answer: {error}", hint="is this machine run by systemd?") from error
    if done.returncode:
        raise HostUnreachable(f"{' '.join(command)}: {done.stderr.strip()}", hint="is this machine run by systemd?")
