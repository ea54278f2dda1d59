"""Manifests by kind and name, and the names, aliases and ports that two of them claim at once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import TypeAlias, TypeVar

from hal0.core.capability import CapabilityManifest
from hal0.core.documents import ManifestError
from hal0.core.expansion import capability_errors, expanded
from hal0.core.kinds import Manifest
from hal0.core.schema import (
    HostManifest,
    ModelManifest,
    ProfileManifest,
    SlotManifest,
    UpstreamManifest,
)
from hal0.core.spec import OWN_PREFIX
from hal0.core.validate import Located, did_you_mean

M = TypeVar("M", bound=Manifest)
Claim: TypeAlias = tuple[Located[SlotManifest], tuple[str | int, ...]]


@dataclass(frozen=True)
class Index:
    """Manifests that can be looked up. ``models`` holds aliases too, and the seeds that slots name.

    ``slots`` has those that capabilities turn on as well. A profile or a model may replace a seed of its name.
    """

    slots: Mapping[str, Located[SlotManifest]]
    models: Mapping[str, Located[ModelManifest]]
    profiles: Mapping[str, Located[ProfileManifest]]
    upstreams: Mapping[str, Located[UpstreamManifest]]
    host: Located[HostManifest] | None
    problems: tuple[ManifestError, ...]
    seeds: Mapping[str, Located[ProfileManifest]] = field(default_factory=dict)
    capabilities: Mapping[str, Located[CapabilityManifest]] = field(default_factory=dict)


def index(manifests: Sequence[Located[Manifest]], seeds: Sequence[Located[Manifest]]) -> Index:
    """Sort manifests by kind and name and name every clash, at each of its places."""
    capabilities, repeated = _by_name(_only(CapabilityManifest, manifests))
    slots, slot_errors = _by_name([*_only(SlotManifest, manifests), *expanded(capabilities.values())])
    models, model_errors = _by_name(_only(ModelManifest, manifests))
    profiles, profile_errors = _by_name(_only(ProfileManifest, manifests))
    seeded, _ = _by_name(_only(ProfileManifest, seeds))
    models_seeded, _ = _by_name(_only(ModelManifest, seeds))
    upstreams, upstream_errors = _by_name(_only(UpstreamManifest, manifests))
    hosts = _only(HostManifest, manifests)
    host_errors = [host.error(f"a second Host: the first is {hosts[0].source}", "kind") for host in hosts[1:]]
    known, alias_errors = _with_aliases(models)
    wanted = {slot.manifest.model for slot in slots.values()}
    known = {name: model for name, model in models_seeded.items() if name in wanted} | known
    listen = hosts[0].manifest.listen_at[1] if hosts else HostManifest(kind="Host").listen_at[1]
    clashes = [*_port_clashes(slots.values(), listen), *_alias_clashes(slots), *_prefix_clashes(upstreams.values())]
    of_capabilities = [*repeated, *capability_errors(capabilities.values())]
    of_kinds = (slot_errors, model_errors, profile_errors, upstream_errors, host_errors)
    errors = (*of_kinds, of_capabilities, alias_errors, clashes)
    return Index(
        slots,
        known,
        {**seeded, **profiles},
        upstreams,
        hosts[0] if hosts else None,
        tuple(chain.from_iterable(errors)),
        seeded,
        capabilities,
    )


def _only(kind: type[M], manifests: Iterable[Located[Manifest]]) -> list[Located[M]]:
    return [Located(found.manifest, found.document) for found in manifests if isinstance(found.manifest, kind)]


def _by_name(manifests: Sequence[Located[M]]) -> tuple[dict[str, Located[M]], list[ManifestError]]:
    """Return manifests by name. A name that is declared twice is an error at both places."""
    named: dict[str, list[Located[M]]] = defaultdict(list)
    for located in manifests:
        named[str(located.manifest.name)].append(located)
    errors = [
        located.error(f"{located.manifest.kind} {name!r} is declared twice: also at {_others(located, places)}", "name")
        for name, places in named.items()
        for located in (places if len(places) > 1 else ())
    ]
    return {name: places[0] for name, places in named.items()}, errors


def _with_aliases(
    models: Mapping[str, Located[ModelManifest]],
) -> tuple[dict[str, Located[ModelManifest]], list[ManifestError]]:
    known, errors = dict(models), []
    for model in models.values():
        for position, alias in enumerate(model.manifest.aliases):
            if known.setdefault(alias, model) is not model:
                errors.append(model.error(f"{alias!r} is taken by {known[alias].source}", "aliases", position))
    return known, errors


def _port_clashes(slots: Iterable[Located[SlotManifest]], listen: int) -> Iterator[ManifestError]:
    claims: dict[int, list[Claim]] = defaultdict(list)
    for slot in slots:
        if slot.manifest.port == listen:
            yield slot.error(f"port {listen} is hal0's own", "port", hint="see `listen` in the Host manifest")
        elif slot.manifest.port is not None:
            claims[slot.manifest.port].append((slot, ("port",)))
    for port, claimants in claims.items():
        yield from _clash(f"port {port}", claimants)


def _alias_clashes(slots: Mapping[str, Located[SlotManifest]]) -> Iterator[ManifestError]:
    claims: dict[str, list[Claim]] = defaultdict(list)
    for name, slot in slots.items():
        claims[name].append((slot, ("name",)))
        for position, alias in enumerate(slot.manifest.aliases):
            claims[alias].append((slot, ("aliases", position)))
    for alias, claimants in claims.items():
        yield from _clash(repr(alias), claimants)


def prefix_of(upstream: UpstreamManifest) -> str:
    """Return what stands before an upstream's model ids."""
    return f"{upstream.name}/" if upstream.prefix is None else upstream.prefix


def _prefix_clashes(upstreams: Iterable[Located[UpstreamManifest]]) -> Iterator[ManifestError]:
    first: dict[str, Located[UpstreamManifest]] = {}
    for upstream in upstreams:
        prefix = prefix_of(upstream.manifest)
        if prefix == OWN_PREFIX:
            yield upstream.error(f"{prefix!r} leads to hal0's own slots", "prefix", hint="set another prefix")
        elif prefix and first.setdefault(prefix, upstream) is not upstream:
            yield upstream.error(f"{prefix!r} is the prefix of {first[prefix].source}", "prefix")


def _clash(what: str, claims: Sequence[Claim]) -> Iterator[ManifestError]:
    for slot, path in claims if len(claims) > 1 else ():
        others = sorted({other.source for other, at in claims if (other, at) != (slot, path)})
        yield slot.error(f"{what} is claimed twice: also at {', '.join(others)}", *path)


def _others(located: Located[M], places: Sequence[Located[M]]) -> str:
    return ", ".join(other.source for other in places if other is not located)


def fallback_errors(known: Index) -> Iterator[ManifestError]:
    """Yield an error for each fallback that leads nowhere. What an upstream will list is not known here."""
    names = {*_slot_names(known), *_upstream_names(known)}
    asked = [upstream.manifest for upstream in known.upstreams.values() if not upstream.manifest.models]
    prefixes = tuple(prefix_of(upstream) for upstream in asked)
    located: list[Located[SlotManifest] | Located[UpstreamManifest]] = [*known.slots.values()]
    for owner in [*located, *known.upstreams.values()]:
        for position, name in enumerate(owner.manifest.fallback):
            may_be_listed = name.startswith(prefixes) and not name.startswith(OWN_PREFIX)
            if name not in names and not may_be_listed:
                hint = did_you_mean(name, names) or "name a slot, a model, or upstream/model"
                yield owner.error(f"nothing is called {name!r}", "fallback", position, hint=hint)


def exclusion_errors(known: Index) -> Iterator[ManifestError]:
    """Yield an error for each slot that another one excludes and that is not there, or is that one itself."""
    for name, slot in known.slots.items():
        for position, other in enumerate(slot.manifest.exclusive_with):
            if other == name or other not in known.slots:
                what = "a slot can't exclude itself" if other == name else f"no Slot {other!r}"
                hint = did_you_mean(other, set(known.slots) - {name})
                yield slot.error(what, "exclusive_with", position, hint=hint)


def _slot_names(known: Index) -> Iterator[str]:
    """Yield every name that leads to a slot: its own, its aliases, and those of the model that it has."""
    held = set[str]()
    for name, slot in known.slots.items():
        yield from (name, OWN_PREFIX + name, *slot.manifest.aliases)
        if model := known.models.get(slot.manifest.model):
            held.add(model.manifest.name)
    yield from (name for name, model in known.models.items() if model.manifest.name in held)


def _upstream_names(known: Index) -> Iterator[str]:
    for upstream in known.upstreams.values():
        for model in upstream.manifest.models:
            yield from (model, prefix_of(upstream.manifest) + model)
