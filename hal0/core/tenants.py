"""The slots as the arbiter sees them: who holds memory, who wants some, and who can be made to go."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from hal0.core.facts import Known, known
from hal0.core.observed import Activity, ProbeResult, SlotObservation
from hal0.core.pools import Claim, ClaimSource, pool_of
from hal0.core.reasons import foreign
from hal0.core.schedule import Demand, Verdict
from hal0.core.schema import RunPolicy
from hal0.core.spec import SlotSpec
from hal0.core.standin import Stage
from hal0.core.world import World

_UNCLAIMED = Claim(None, ClaimSource.UNKNOWN, "nothing is known of it")
_NOBODY = Demand(last_used=float("-inf"))


@dataclass(frozen=True, slots=True)
class Tenant:
    """One slot. ``claim`` is on ``pool``, for what is declared; ``held`` is of ``held_pool``, for what was applied.

    ``resident``: it is not known to be down. ``leaving``: it goes without the arbiter. ``keeps``: it would never go by
    itself. ``bound``: nothing may move it. ``movable``: the plan could stop it now.
    """

    name: str
    spec: SlotSpec
    applied: SlotSpec
    pool: str
    claim: Claim
    held_pool: str
    held: Claim
    resident: bool
    leaving: bool
    always: bool
    keeps: bool
    bound: bool
    movable: bool
    loading: bool
    use: Demand
    up_since: float | None
    load_time: float

    @property
    def priority(self) -> int:
        """The manifest's; the higher one wins."""
        return self.spec.placing.priority

    @property
    def wants(self) -> int:
        """The bytes that it needs to start; what is not known counts as nothing."""
        return self.claim.bytes or 0

    def holds(self, pool: str) -> int:
        """Return the bytes that it has of a pool."""
        return (self.held.bytes or 0) if self.resident and self.held_pool == pool else 0

    @property
    def is_asked_for(self) -> bool:
        """Whether somebody is there for whom another slot may have to go: a request, or the manifest."""
        return self.always or self.use.in_flight > 0

    def outranks(self, other: Tenant) -> bool:
        """Return whether a slot may ever take another one's place."""
        if other.bound or self.priority < other.priority:
            return False
        return self.priority > other.priority or not other.always


def tenants(world: World, wants: Mapping[str, Verdict]) -> dict[str, Tenant]:
    """Return every slot that is declared, and those that hal0 still owns and that hold memory, in order of names."""
    specs = {**world.owned, **{name: slot.spec for name, slot in world.desired.slots.items()}}
    made = {name: _tenant(world, spec, wants.get(name)) for name, spec in sorted(specs.items())}
    made |= {spec.key: _stand_in(world, spec) for spec in _stand_ins(world)}
    return {name: tenant for name, tenant in made.items() if name in world.desired.slots or tenant.resident}


def _stand_ins(world: World) -> Iterator[SlotSpec]:
    """Yield the specs of the stand-ins that there are, and of those that a plan makes now."""
    yield from world.stand_ins.values()
    for found in world.replacing.values():
        if found.stage is Stage.LOAD and found.key not in world.stand_ins:
            yield found.stand_in.spec


def _stand_in(world: World, spec: SlotSpec) -> Tenant:
    """Return a stand-in: it holds memory and goes by itself. One that is begun has its memory as good as taken."""
    tenant, found = _tenant(world, spec, None), world.replacing.get(spec.name)
    is_begun = found is not None and found.stage is Stage.LOAD
    return replace(tenant, resident=True, leaving=True, loading=True) if is_begun else tenant


def _tenant(world: World, spec: SlotSpec, want: Verdict | None) -> Tenant:
    name, seen = spec.key, world.observed.slot(spec.key)
    is_wanted = want is not None and want.up
    is_left_alone = spec.suspend or name in world.on_hold or bool(foreign(name, seen))
    resident = _is_resident(world, name, seen)
    always = is_wanted and (spec.run is not RunPolicy.ON_DEMAND or name in world.loaded)
    claim = world.claims.get(spec.name, _UNCLAIMED)
    held, applied = world.held.get(name, claim), world.applied(name) or spec
    is_seen = isinstance(seen.service, Known) and isinstance(seen.definition, Known)
    return Tenant(
        name=name,
        spec=spec,
        applied=applied,
        pool=pool_of(spec, world.pools),
        claim=claim,
        held_pool=pool_of(applied, world.pools),
        held=_larger(held, claim) if name in world.busy else held,
        resident=resident,
        leaving=resident and not is_left_alone and (not is_wanted or _is_stopping(world, name, seen)),
        always=always,
        keeps=always or is_left_alone or spec.placing.pinned,
        bound=is_left_alone or spec.placing.pinned,
        movable=is_seen and name not in world.busy,
        loading=_is_loading(world, spec, seen),
        use=world.demand.get(name, _NOBODY),
        up_since=seen.up_since,
        load_time=_load_time(seen),
    )


def _is_resident(world: World, name: str, seen: SlotObservation) -> bool:
    """Return whether a slot has memory, as far as anybody knows: what can't be seen may well have some."""
    activity = seen.activity
    if name in world.busy or activity is None or activity.is_up or activity is Activity.DEACTIVATING:
        return True
    instance = known(seen.instance)
    return instance is not None and instance.running


def _larger(one: Claim, other: Claim) -> Claim:
    """Return what a slot may have that is being replaced just now: its old engine, or its new one."""
    return max(one, other, key=lambda claim: claim.bytes or 0)


def _is_stopping(world: World, name: str, seen: SlotObservation) -> bool:
    return name in world.stopping or seen.activity is Activity.DEACTIVATING


def _is_loading(world: World, spec: SlotSpec, seen: SlotObservation) -> bool:
    """Return whether a slot fills its memory just now. One that crashes again and again, or is late, holds up none."""
    if spec.key in world.busy - world.stopping:
        return True
    service = known(seen.service)
    if service is None or service.restarts:
        return False
    if service.activity is Activity.ACTIVATING:
        return True
    is_silent = isinstance(seen.probe, Known) and seen.probe.value is not ProbeResult.UP and seen.up_since is None
    is_late = seen.active_since is not None and world.now - seen.active_since > spec.start_deadline
    return service.activity is Activity.ACTIVE and is_silent and not is_late


def _load_time(seen: SlotObservation) -> float:
    """Return the seconds from a service's start to its engine's first good answer; 0 where they were not seen."""
    if seen.up_since is None or seen.active_since is None:
        return 0.0
    return seen.up_since - seen.active_since
