"""Where each part of a slot's command line comes from: a line of a manifest, a seed profile, or hal0 itself."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from hal0.core.flags import Flag, merged, read
from hal0.core.index import Index
from hal0.core.kinds import Manifest
from hal0.core.launch import Owner, Part, composed, own_parts
from hal0.core.profiles import FlatProfile, Profile, Profiles
from hal0.core.schema import ModelManifest, SlotManifest
from hal0.core.spec import HostSpec, RuntimeName, SlotSpec
from hal0.core.validate import Located, show_path


class Origin(NamedTuple):
    """Who gave something: ``hal0``, ``slot``, ``model``, ``profile``, ``seed``, or ``kept``: an earlier good spec.

    ``at`` is the ``file:line``, ``key`` the key in that manifest.
    """

    by: str
    name: str = ""
    at: str = ""
    key: str = ""

    def __str__(self) -> str:
        """Return it in a word or two, with the place where a person can change it."""
        if self.by == "kept":
            return "the last good spec"
        place = f" ({self.at})" if self.at and self.by != "seed" else ""
        return f"{self.by} {self.name}".rstrip() + place


HAL0 = Origin("hal0")
KEPT = Origin("kept")


class Told(NamedTuple):
    """Words of a command line, where they come from, and the words that they replaced, each with its origin."""

    words: tuple[str, ...]
    origin: Origin
    replaced: tuple[tuple[tuple[str, ...], Origin], ...] = ()


@dataclass(frozen=True)
class Givers:
    """The manifests that a slot's spec was made of."""

    slot: Located[SlotManifest]
    model: Located[ModelManifest]
    profile: FlatProfile

    def of(self, part: Part) -> Origin:
        """Return where a part comes from that is not of ``args``. What nobody wrote is hal0's default."""
        if part.owner is Owner.MODEL:
            return _at(self.model, part.key)
        if part.owner is Owner.SLOT:
            if _said(self.slot, part.key):
                return _at(self.slot, *part.key.split(".", 1))
            if part.key == "context_size":
                return _at(self.model, part.key)
        return origin_of(self.profile, part.key) if part.key else HAL0


def origin_of(profile: FlatProfile, key: str) -> Origin:
    """Return which profile of a chain says a key, or an entry of one (``env.NAME``); hal0 where none does."""
    for one in profile.chain:
        if _said(one, key):
            return _at(one, *key.split(".", 1))
    return HAL0


def origin_of_variable(name: str, made_of: Givers | None) -> Origin:
    """Return where a variable of the engine's environment comes from."""
    return made_of.of(Part((), Owner.SLOT, f"env.{name}")) if made_of else KEPT


def givers(known: Index, profiles: Profiles, spec: SlotSpec) -> Givers | None:
    """Return the manifests that a spec was made of; None where they are not there any more."""
    slot, model, profile = known.slots.get(spec.name), known.models.get(spec.model), profiles.flat.get(spec.profile)
    return Givers(slot, model, profile) if slot and model and profile else None


def told(spec: SlotSpec, made_of: Givers | None, runtime: RuntimeName, host: HostSpec) -> Iterator[Told]:
    """Yield a slot's command line, part by part. ``made_of`` None: all that is not hal0's was kept from before."""
    parts = composed(spec, runtime, model_dirs=host.model_roots).parts
    if made_of is None:
        yield from (Told(part.words, KEPT if part.owner is not Owner.HAL0 else HAL0) for part in parts)
        return
    given = _given(spec, made_of)
    counts = Counter(part.flag for part in parts)
    origins = [origin for flag, origin in args_of(made_of.profile, made_of.slot) for _ in flag.words]
    for part in parts:
        origin = origins[part.at] if part.owner is Owner.ARGS else made_of.of(part)
        replaced = given.pop(part.flag, [])[: -counts[part.flag]] if part.flag else []
        yield Told(part.words, origin, tuple(replaced))


def args_of(profile: FlatProfile, slot: Located[SlotManifest] | None = None) -> Iterator[tuple[Flag, Origin]]:
    """Yield the flags of a profile's chain and of a slot that stay when they are merged, each with its origin."""
    layers = _layers(profile, slot)
    for flag in merged([owner.manifest.args for owner in layers], profile.kind.flags):
        yield flag, _at(layers[flag.layer], "args", flag.at)


def replaced_by(profile: FlatProfile) -> dict[str, list[tuple[tuple[str, ...], Origin]]]:
    """Return, by key, the flags of a chain that other ones of it replace."""
    found: dict[str, list[tuple[tuple[str, ...], Origin]]] = defaultdict(list)
    stays = {(flag.layer, flag.at) for flag, _ in args_of(profile)}
    for layer, owner in enumerate(_layers(profile, None)):
        for flag in read(owner.manifest.args, profile.kind.flags, layer=layer):
            if (flag.layer, flag.at) not in stays:
                found[flag.key].append((flag.words, _at(owner, "args", flag.at)))
    return found


def _layers(profile: FlatProfile, slot: Located[SlotManifest] | None) -> Sequence[Profile | Located[SlotManifest]]:
    chain = list(reversed(profile.chain))
    return [*chain, slot] if slot else chain


def _given(spec: SlotSpec, made_of: Givers) -> dict[str, list[tuple[tuple[str, ...], Origin]]]:
    """Return every flag that anyone gave the engine, by its key, in the order in which they win."""
    known = made_of.profile.kind.flags
    given: dict[str, list[tuple[tuple[str, ...], Origin]]] = defaultdict(list)
    for part in own_parts(spec):
        for flag in read(part.words, known):
            given[flag.key].append((flag.words, made_of.of(part)))
    for owner in _layers(made_of.profile, made_of.slot):
        for flag in read(owner.manifest.args, known):
            given[flag.key].append((flag.words, _at(owner, "args", flag.at)))
    return given


def _said(located: Located[Manifest], key: str) -> bool:
    """Return whether a manifest writes a key, or a key or an entry of one: ``limits.cpus``, ``env.NAME``."""
    outer, _, inner = key.partition(".")
    value = located.data.get(outer)
    return outer in located.data and (not inner or (isinstance(value, dict) and inner in value))


def _at(located: Located[Manifest], *path: str | int) -> Origin:
    file, manifest = located.document.file, located.manifest
    by = "seed" if file.startswith("seed:") else manifest.kind.lower()
    return Origin(by, manifest.name, f"{file}:{located.line_of(*path)}", show_path((*located.at, *path)))
