"""Everything that `hal0 doctor` looks at, at once and each with a deadline. Needs no daemon, no root, no systemd."""

from __future__ import annotations

import asyncio
import os
import pwd
import stat
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from hal0.core.facts import Fact, Known, Unknown, known
from hal0.core.fields import parse_listen
from hal0.core.findings import Certificate, Declared, Findings, Installed, Secret, SlotNeeds
from hal0.core.secretref import SecretRef
from hal0.core.spec import Desired, SlotSpec
from hal0.errors import Hal0Error
from hal0.host import checkup, git, gpus, listening, trust, unit_files
from hal0.host.models import are_files, is_there
from hal0.host.scope import Scope
from hal0.host.secrets import SecretMissing, Secrets
from hal0.host.threads import in_thread
from hal0.loop.assembly import Settings, make_source, open_store

T = TypeVar("T")
Running: TypeAlias = Mapping[str, bool | None]
_Looks: TypeAlias = dict[str, Callable[[], Any]]

_PATIENCE = 2 * checkup.LIMIT
"""Seconds for each look, of which some ask a program that has its own limit."""


async def examine(settings: Settings, shipped: Mapping[str, str], running: Running, now: float) -> Findings:
    """Look at everything. ``shipped`` maps units to their texts, ``running`` slots to whether their engine runs.

    ``now`` is in seconds since the epoch. What can't be looked at is ``Unknown``: nothing is raised for it.
    """
    desired, who = await _looked(lambda: asyncio.run(_desired(settings))), _who()
    installed = Installed(settings.scope.is_user, settings.runtime_name, checkup.is_booted(), who)
    looks = _at_machine(settings, known(desired), who, shipped)
    looks |= _at_config(settings, desired.value, running) if isinstance(desired, Known) else {}
    facts = await asyncio.gather(*(_looked(look) for look in looks.values()))
    found: dict[str, Any] = {"declared": desired, **dict(zip(looks, facts, strict=True))}
    return Findings(installed, now, **found)


async def _looked(look: Callable[[], T]) -> Fact[T]:
    try:
        return Known(await in_thread(look, _PATIENCE))
    except TimeoutError:
        return Unknown(f"no answer in {_PATIENCE:g} s")
    except OSError as error:
        return Unknown(": ".join(filter(None, (error.filename, error.strerror))) or str(error))
    except (Hal0Error, ValueError) as error:
        return Unknown(str(error))


async def _desired(settings: Settings) -> Desired:
    with open_store(settings, read_only=True) as store:
        return await make_source(settings, store).load()


def _at_machine(settings: Settings, desired: Desired | None, who: str, shipped: Mapping[str, str]) -> _Looks:
    scope = settings.scope
    return {
        "systemd": lambda: checkup.systemd(scope),
        "podman": checkup.podman,
        "podman_socket": lambda: checkup.podman_answers(scope),
        "daemon": lambda: checkup.daemon_answers(scope),
        "linger": lambda: checkup.lingers(who),
        "cgroups": lambda: checkup.cgroups(scope),
        "volumes": lambda: checkup.volumes(_kept(settings, desired)),
        "gpus": gpus.gpus,
        "driverless": gpus.driverless,
        "units": lambda: unit_files.unit_states(scope, shipped),
        "enabled": lambda: unit_files.is_enabled(scope),
        "trust": trust.bundles,
    }


def _at_config(settings: Settings, desired: Desired, running: Running) -> _Looks:
    ports = {slot.spec.port for slot in desired.slots.values()} | {parse_listen(desired.host.listen)[1]}
    return {
        "declared": lambda: _declared(settings, desired, running),
        "taken": lambda: listening.taken(ports),
        "revision": lambda: git.revision(settings.root),
        "secrets": lambda: _secrets(settings, desired),
        "certificates": lambda: asyncio.run(_certificates(desired)),
    }


def _kept(settings: Settings, desired: Desired | None) -> dict[str, str]:
    """Return what is kept where: models, hal0's own state, and images where slots are containers."""
    state = settings.scope.state_dir
    kept = {"models": desired.host.model_dir if desired else str(state / "models"), "state": str(state)}
    return kept | ({"images": checkup.image_store(settings.scope)} if settings.runtime_name == "systemd" else {})


def _declared(settings: Settings, desired: Desired, running: Running) -> Declared:
    slots = tuple(_needs(desired, slot.spec, running.get(name)) for name, slot in desired.slots.items())
    return Declared(str(settings.root), parse_listen(desired.host.listen), slots, len(desired.problems))


def _needs(desired: Desired, spec: SlotSpec, runs: bool | None) -> SlotNeeds:
    files = {path: is_there(path) for path in spec.model_files}
    lacking = next((path for path, fact in files.items() if fact == Known(value=False)), spec.model_path)
    return SlotNeeds(
        name=spec.name,
        port=spec.port,
        model_path=lacking,
        model=are_files(files),
        missing_devices=gpus.missing(spec.devices),
        runs=runs,
        is_fetched=desired.download(spec) is not None,
        mend=desired.mend(spec),
    )


async def _certificates(desired: Desired) -> tuple[Certificate, ...]:
    """Look at all upstreams at once: one that does not answer must not take the others' time."""
    secured = [each for each in desired.upstreams.values() if each.base_url.startswith("https:")]
    looks = [partial(trust.certificate, each.name, each.base_url, checkup.LIMIT) for each in secured]
    return tuple(await asyncio.gather(*(in_thread(look, None) for look in looks)))


# Secrets.


def _secrets(settings: Settings, desired: Desired) -> tuple[Secret, ...]:
    used = {"api_keys": desired.host.api_keys}
    used |= {f"upstream {name}": upstream.api_key for name, upstream in desired.upstreams.items()}
    return tuple(_secret(settings.scope, use, ref) for use, ref in used.items() if ref)


def _secret(scope: Scope, use: str, ref: SecretRef) -> Secret:
    """Look at a secret's place. Those of the daemon's own process can only be seen in its unit, or not at all."""
    try:
        Secrets().lines(ref)
    except SecretMissing as missing:
        trouble: Fact[str] = Known(str(missing))
        if ref.kind == "credential" and unit_files.loads_credential(scope, ref.name):
            trouble = Known("")
        elif ref.kind == "env":
            trouble = Unknown("not set here; what the daemon has can't be seen from here")
        elif isinstance(missing.__cause__, PermissionError):
            trouble = Unknown("you may not read it; the daemon's user has to")
        return Secret(ref, use, trouble, missing.hint, _mode(ref))
    return Secret(ref, use, Known(""), "", _mode(ref))


def _mode(ref: SecretRef) -> int | None:
    try:
        return stat.S_IMODE(Path(ref.name).stat().st_mode) if ref.kind == "file" else None
    except OSError:
        return None


def _who() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())
