"""The Profile that runs an engine as its container did: a seed profile, one that extends it, or one of its own.

A seed is taken where the engine's command line stays the same. What hal0 gives every container of vLLM, a place to
write, comes with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from hal0.core.enginekinds import ENGINES
from hal0.core.flags import read
from hal0.core.importing.containers import Container
from hal0.core.importing.draft import Keys
from hal0.core.importing.engines import Command, Known, Says
from hal0.core.importing.places import kept
from hal0.core.importing.words import model_id
from hal0.core.index import index
from hal0.core.kinds import Manifest
from hal0.core.profiles import profiles_of
from hal0.core.schema import Device, ProfileManifest
from hal0.core.seeds import SEED_PROFILES
from hal0.core.validate import Located

_OF_PROGRAM = ("image", "entrypoint", "probe", "env", "mounts", "shm_size", "start_deadline")
"""Keys of a seed that hold for its engine on any device."""
_CACHE = "/.cache"


@dataclass(frozen=True, slots=True)
class Runs:
    """How an engine is run: the Profile's name, empty for the one by default, and the seed that it is made from."""

    profile: str
    seed: ProfileManifest | None


def seeds_of(located: Iterable[Located[Manifest]]) -> Mapping[str, ProfileManifest]:
    """Return the seed profiles by name, each with all that it extends."""
    return {name: flat.manifest for name, flat in profiles_of(index([], [*located])).flat.items()}


def declare_profile(box: Container, kind: Known, command: Command, device: Device) -> Runs | None:
    """Add the Profile, where no seed will do; None where there can be none."""
    default = SEED_PROFILES.get((command.type, device), "")
    seed = _seed(box, kind, command, device)
    if not box.image:
        seed = box.given.seeds.get(default) if kind.is_llama else seed
    base = seed or box.given.seeds[kind.like]
    keys: Keys = {"extends": seed.name} if seed else {"engine": kind.name, **_of_program(base)}
    keys |= _said(box, command, base) if box.image else {}
    image = str(keys.get("image", base.image))
    name = box.draft.profile(box.where, model_id(image.partition("@")[0], ()), keys, seed)
    if name and not (box.image or kind.is_llama):
        box.lose(f"{kind.name} of the host", f"is a container of {image} here: see the Profile {name}")
    return Runs("" if name == default else name, seed) if name else None


def _seed(box: Container, kind: Known, command: Command, device: Device) -> ProfileManifest | None:
    """Return a seed of the engine and the device, none of whose flags changes the command line."""
    names = (SEED_PROFILES.get((each, device), "") for each in (command.type, kind.type))
    seeds = (box.given.seeds.get(name) for name in (*names, kind.seeds.get(device, "")))
    return next((seed for seed in seeds if seed and seed.engine is kind.engine and _fits(seed, kind, command)), None)


def _fits(seed: ProfileManifest, kind: Known, command: Command) -> bool:
    known = ENGINES[kind.engine].flags
    said = {flag.key for flag in read(command.rest, known)}
    said |= {"--gpu-layers"} if Says.LAYERS in command.says else set()
    flags = read(seed.args, known)
    return all(flag.key in said or flag.values == (kind.defaults.get(flag.key),) for flag in flags)


def _of_program(base: ProfileManifest) -> Keys:
    """Return what of a seed holds for its engine on any device."""
    said = base.model_dump(mode="json", exclude_defaults=True)
    return {key: said[key] for key in _OF_PROGRAM if key in said}


def _said(box: Container, command: Command, base: ProfileManifest) -> Keys:
    """Return what the container's file says that a Profile says, beside what the engine needs in any case."""
    mounts = box.mounts
    if {Says.REPO, Says.URL} & command.says.keys():  # hal0 fetches the model, and to a place of its own
        mounts = [mount for mount in mounts if _CACHE not in mount.target]
    needed = kept(mounts, (*command.rest, *box.env.values()), command.says.get(Says.MODEL, ""))
    own = {
        "image": box.image,
        "devices": [_device(device) for device in box.devices],
        "groups": box.groups,
        "mounts": [*base.mounts, *needed],
    }
    return own | box.profile


def _device(device: str) -> str:
    """Return a device of the host as it is written shortest: ``/dev/dri:/dev/dri`` is itself."""
    outer, _, inner = device.partition(":")
    return outer if outer == inner else device
