"""The acts behind ``hal0 profile``, ``hal0 slot show --command`` and their /api: profiles, and what comes of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from hal0.core.index import Index, index
from hal0.core.masked import masked, masked_words
from hal0.core.origins import Origin, Told, args_of, givers, origin_of, origin_of_variable, replaced_by, told
from hal0.core.profiles import FlatProfile, Profile, Profiles, profiles_of
from hal0.core.spec import Desired, DesiredSlot
from hal0.core.validate import did_you_mean
from hal0.core.wire import VERSION, Json
from hal0.errors import NotFound
from hal0.loop.desire import Source
from hal0.loop.operations import InvalidManifests, no_slot
from hal0.loop.reconcile import Reconciler

_TABLES = ("env", "paths")
_NOT_KEYS = frozenset({"kind", "name", "extends", "args", *_TABLES})


@dataclass(frozen=True)
class _Declared:
    """What the manifests of this moment say, and what they resolve to."""

    desired: Desired
    known: Index
    profiles: Profiles


async def resolved(reconciler: Reconciler, name: str) -> Json:
    """Return a slot's command line with the origin of each part. Secrets are hidden.

    Raises ``NotFound``, and ``InvalidManifests`` for a slot whose manifests were never good.
    """
    declared = await _declared(reconciler.source)
    slot = _slot(declared.desired, name)
    made_of = None if _is_kept(slot) else givers(declared.known, declared.profiles, slot.spec)
    rows = [*told(slot.spec, made_of, reconciler.source.facts.runtime, declared.desired.host)]
    return {
        "version": VERSION,
        "slot": name,
        "spec_hash": slot.spec_hash,
        "argv": [word for row in rows for word in _shown(row.words)],
        "parts": [_told_json(row) for row in rows],
        "env": [
            {"name": key, "value": masked(key, value), "origin": _origin_json(origin_of_variable(key, made_of))}
            for key, value in sorted(slot.launch.env.items())
        ],
        "profiles": [_place_json(profile) for profile in (made_of.profile.chain if made_of else ())],
    }


async def profiles(reconciler: Reconciler) -> Json:
    """Return every profile, seeds too, and which slots have it."""
    declared = await _declared(reconciler.source)
    return {"version": VERSION, "profiles": [_profile_json(name, declared) for name in sorted(declared.known.profiles)]}


async def profile(reconciler: Reconciler, name: str) -> Json:
    """Return one profile with all that it extends, and the origin of each key and flag. Raises ``NotFound``."""
    declared = await _declared(reconciler.source)
    if name not in declared.known.profiles:
        hint = did_you_mean(name, declared.known.profiles) or "hal0 profile list names them all"
        raise NotFound(f"there is no profile {name!r}", hint=hint)
    found = {"version": VERSION, **_profile_json(name, declared)}
    if flat := declared.profiles.flat.get(name):
        found |= {"profiles": [_place_json(one) for one in flat.chain]}
        found |= {"keys": list(_keys(flat)), "args": [_told_json(row) for row in _args(flat)]}
    return found


async def _declared(source: Source) -> _Declared:
    desired = await source.load()
    known = index(source.manifests, source.seeds)
    return _Declared(desired, known, profiles_of(known))


def _slot(desired: Desired, name: str) -> DesiredSlot:
    if name in desired.slots:
        return desired.slots[name]
    wrong = [problem for problem in desired.problems if (problem.kind, problem.name) == ("Slot", name)]
    raise InvalidManifests(wrong) if wrong else no_slot(name, desired.slots)


def _is_kept(slot: DesiredSlot) -> bool:
    """Return whether a slot's spec is an earlier one than that of its manifests."""
    return bool(slot.problems) or (slot.rejected is not None and not slot.is_barred)


def _profile_json(name: str, declared: _Declared) -> Json:
    located, seed = declared.known.profiles[name], declared.known.seeds.get(name)
    flat = declared.profiles.flat.get(name)
    shown = flat.manifest if flat else located.manifest
    error = declared.profiles.errors.get(name)
    return {
        "name": name,
        "at": located.source,
        "seed": located is seed,
        "replaces_seed": seed is not None and located is not seed,
        "extends": located.manifest.extends,
        "engine": shown.engine.value,
        "image": shown.image,
        "command": shown.command,
        "slots": sorted(slot.spec.name for slot in declared.desired.slots.values() if slot.spec.profile == name),
        "error": str(error) if error else "",
    }


def _keys(flat: FlatProfile) -> Iterator[Json]:
    """Yield every key of a profile but ``args``, those of tables one by one. Keys that nobody wrote have defaults."""
    values = flat.manifest.model_dump(mode="json")
    for key in values:
        if key not in _NOT_KEYS:
            yield {"key": key, "value": values[key], "origin": _origin_json(origin_of(flat, key))}
    for key in _TABLES:
        for entry, value in values[key].items():
            path = f"{key}.{entry}"
            yield {"key": path, "value": masked(entry, value), "origin": _origin_json(origin_of(flat, path))}


def _args(flat: FlatProfile) -> Iterator[Told]:
    replaced = replaced_by(flat)
    for flag, origin in args_of(flat):
        yield Told(flag.words, origin, tuple(replaced.pop(flag.key, ())))


def _place_json(profile: Profile) -> Json:
    return {"name": profile.manifest.name, "at": profile.source}


def _told_json(row: Told) -> Json:
    replaced = [{"words": _shown(words), "origin": _origin_json(origin)} for words, origin in row.replaced]
    return {"words": _shown(row.words), "origin": _origin_json(row.origin), "replaced": replaced}


def _origin_json(origin: Origin) -> Json:
    return {**origin._asdict(), "text": str(origin)}


def _shown(words: Iterable[str]) -> list[str]:
    """Return words as they may be printed: a secret's value is hidden, be it a flag's or a variable's."""
    return [_variable(word) if word.startswith("--env=") else word for word in masked_words(words)]


def _variable(word: str) -> str:
    option, _, variable = word.partition("=")
    name, mark, value = variable.partition("=")
    return f"{option}={name}{mark}{masked(name, value)}"
