"""Profiles made flat: what a profile extends, below what it says itself; and a slot's own flags on top."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from hal0.core.documents import ManifestError
from hal0.core.enginekinds import ENGINES, EngineKind
from hal0.core.flags import merged, words_of
from hal0.core.index import Index
from hal0.core.schema import ProfileManifest, SlotManifest
from hal0.core.validate import Located, did_you_mean

Profile: TypeAlias = Located[ProfileManifest]
_OWN = frozenset({"kind", "name", "extends"})
"""Keys that no profile takes from another."""
_TABLES = ("env", "paths")


@dataclass(frozen=True)
class FlatProfile:
    """A profile with all that it extends. ``chain`` begins with itself and ends with what extends nothing."""

    manifest: ProfileManifest
    chain: tuple[Profile, ...]

    @property
    def layers(self) -> tuple[list[str], ...]:
        """The ``args`` of the chain, those that win last."""
        return tuple(profile.manifest.args for profile in reversed(self.chain))

    @property
    def kind(self) -> EngineKind:
        """Its engine's row."""
        return ENGINES[self.manifest.engine]


@dataclass(frozen=True)
class Profiles:
    """Every profile by its name: flat, or what is wrong with it, maybe with one that it extends."""

    flat: Mapping[str, FlatProfile]
    errors: Mapping[str, ManifestError]


def profiles_of(known: Index) -> Profiles:
    """Return all profiles, made flat."""
    made: dict[str, FlatProfile] = {}
    errors: dict[str, ManifestError] = {}
    for name, profile in known.profiles.items():
        found = _chain(profile, known)
        if isinstance(found, ManifestError):
            errors[name] = found
        else:
            made[name] = FlatProfile(_flattened(found), found)
    return Profiles(made, errors)


def slot_args(slot: SlotManifest, profile: FlatProfile) -> tuple[str, ...]:
    """Return a slot's flags: its profile's, and its own, which win."""
    return words_of(merged([*profile.layers, slot.args], profile.kind.flags))


def torn(slot: Located[SlotManifest], profile: FlatProfile) -> ManifestError | None:
    """Return the error of a slot with two flags that never go together, such as those of two types; else None."""
    own, kind = slot.manifest, profile.kind
    layers = [kind.types.get(own.type, ()), *profile.layers, own.args]
    flags = {flag.key: flag for flag in merged(layers, kind.flags)}
    for keys in kind.apart:
        both = sorted((flags[key] for key in keys & set(flags)), key=lambda flag: (flag.layer, flag.at))
        if len(both) > 1:
            last = both[-1]
            path = ("args", last.at) if last.layer == len(layers) - 1 else ("profile",)
            what = " and ".join(flag.name for flag in both)
            return slot.error(f"{what} never go together", *path, hint="one engine does one of them: declare two slots")
    return None


def _chain(profile: Profile, known: Index) -> tuple[Profile, ...] | ManifestError:
    """Return a profile, what it extends, and so on; or the error at the place where that goes wrong."""
    chain = [profile]
    while (name := chain[-1].manifest.extends) is not None:
        base = _base(chain[-1], name, known)
        if isinstance(base, ManifestError):
            return base
        if base in chain:
            return _circle(chain[chain.index(base) :], known)
        chain.append(base)
    return _of_one_engine(tuple(chain))


def _base(profile: Profile, name: str, known: Index) -> Profile | ManifestError:
    """Return what a profile extends. One that replaces a seed may extend that seed, by the name of both."""
    of_itself = name == profile.manifest.name
    base = known.seeds.get(name) if of_itself else known.profiles.get(name)
    if base is not None and base is not profile:
        return base
    if of_itself:
        return profile.error("a profile can't extend itself", "extends", hint="only one that replaces a seed may")
    hint = did_you_mean(name, known.profiles) or "known: " + ", ".join(sorted(known.profiles))
    return profile.error(f"no Profile {name!r}", "extends", hint=hint)


def _circle(members: list[Profile], known: Index) -> ManifestError:
    """Return the error of profiles that extend each other, at the first that a person wrote."""
    names = " -> ".join(member.manifest.name for member in [*members, members[0]])
    written = (member for member in members if known.seeds.get(member.manifest.name) is not member)
    return next(written).error(f"profiles extend each other: {names}", "extends")


def _of_one_engine(chain: tuple[Profile, ...]) -> tuple[Profile, ...] | ManifestError:
    """Return a chain; or an error where one of it names another engine than what it extends."""
    engine = chain[-1].manifest.engine
    for profile in reversed(chain):
        if "engine" in profile.manifest.model_fields_set and profile.manifest.engine is not engine:
            what = f"{profile.manifest.extends!r}, which this extends, is for {engine.value}"
            return profile.error(what, "engine", hint="the flags of one engine are not those of another")
    return chain


def _flattened(chain: tuple[Profile, ...]) -> ProfileManifest:
    """Return a chain as one profile: of each key the first that says it, flags merged, tables entry by entry."""
    said: dict[str, Any] = {}
    for profile in reversed(chain):
        own = {key: getattr(profile.manifest, key) for key in profile.manifest.model_fields_set - _OWN}
        said |= own | {key: {**said.get(key, {}), **own[key]} for key in _TABLES if key in own}
    manifest = chain[0].manifest.model_copy(update=said)
    layers = [profile.manifest.args for profile in reversed(chain)]
    args = words_of(merged(layers, ENGINES[manifest.engine].flags))
    return manifest.model_copy(update={"args": list(args)})
