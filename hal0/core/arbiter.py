"""The arbiter: which of the slots that should be up may hold memory now, who goes for whom, who waits and why.

It decides on what is observed, anew in each pass, and orders no steps: whoever is to go is stopped, and whoever waits
starts in the pass that sees the room. So nobody starts beside one who is not known to be gone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from hal0.core.exclusion import exclusion, exclusion_text, is_choosy
from hal0.core.facts import Known
from hal0.core.pools import Claim, Pool, capacity, is_shared_out
from hal0.core.quantity import show_size
from hal0.core.schedule import Ground, Placement, PoolView, Standing, Verdict
from hal0.core.schema import RunPolicy
from hal0.core.tenants import Tenant, tenants
from hal0.core.world import World

LEAST_TURN = 10.0
"""Seconds for which a slot in use is not stopped for an equal one, and twice its load time: else both only load."""


@dataclass(frozen=True, slots=True)
class Obstacle:
    """What keeps a slot from starting."""

    ground: Ground
    why: str


@dataclass(frozen=True, slots=True)
class Rival(Obstacle):
    """A slot that excludes it."""

    slot: Tenant


def place(world: World, starts: frozenset[str], incomplete: frozenset[str] = frozenset()) -> Placement:
    """Return the placement. ``starts`` are the slots that a plan would start now if they were alone in the world.

    ``incomplete`` are those of them that wait for their model or image: they are told if there will be no room, and
    take none yet.
    """
    found = tenants(world, world.wants)
    round_ = _Round(world, found, starts, incomplete, dict(world.wants))
    round_.part()
    for tenant in sorted((found[name] for name in starts), key=_turn):
        if tenant.name not in round_.going:
            round_.seat(tenant)
    return Placement(round_.verdicts, {pool.name: _view(pool, found.values()) for pool in _known_pools(world)})


def overcommitted(world: World) -> dict[str, str]:
    """Return the slots that should always be up and can't be, beside the others of that kind; and why."""
    kept = {name: want for name, want in world.wants.items() if _is_kept(world, name, want)}
    desired = replace(world.desired, slots={name: world.desired.slots[name] for name in kept})
    alone = replace(
        world, desired=desired, owned={}, stand_ins={}, replacing={}, demand={}, busy=frozenset(), stopping=frozenset()
    )
    down = frozenset(name for name, tenant in tenants(alone, kept).items() if not tenant.resident)
    verdicts = place(alone, down).verdicts
    return {name: verdict.why for name, verdict in verdicts.items() if verdict.standing in _OUT}


_OUT = {Standing.REFUSED, Standing.EVICTED, Standing.DRAINS}


def _is_kept(world: World, name: str, want: Verdict) -> bool:
    spec = world.desired.slots[name].spec
    return want.up and not spec.suspend and spec.run is RunPolicy.ALWAYS


def _rank(tenant: Tenant) -> tuple[bool, int, bool]:
    """Return what the manifests say of a slot's place among the others, the first one least."""
    return (not tenant.spec.placing.pinned, -tenant.priority, not tenant.always)


def _turn(tenant: Tenant) -> tuple[tuple[bool, int, bool], float, str]:
    """Return the place of a slot in the row of those that want to start: of equals, who waits longest is the first."""
    return (_rank(tenant), float("inf") if tenant.use.since is None else tenant.use.since, tenant.name)


def _missed(tenant: Tenant) -> tuple[int, bool, float, str]:
    """Return how much a slot that is up would be missed, the first to go least.

    Those in use are told apart by when they came: when they were last used changes while they are drained.
    """
    in_use = tenant.use.in_flight > 0
    return (tenant.priority, in_use, (tenant.up_since or 0.0) if in_use else tenant.use.last_used, tenant.name)


@dataclass
class _Round:
    """One placement in the making."""

    world: World
    tenants: Mapping[str, Tenant]
    starts: frozenset[str]
    incomplete: frozenset[str]
    verdicts: dict[str, Verdict]
    going: set[str] = field(default_factory=set)
    coming: list[Tenant] = field(default_factory=list)
    choosy: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        self.choosy = _choosy(self.tenants.values())

    def part(self) -> None:
        """Have the lower one go of two slots that are up and exclude each other."""
        wanted = [tenant for tenant in self._residents() if not tenant.leaving and tenant.name in self.verdicts]
        stay: list[Tenant] = []
        for tenant in sorted(wanted, key=lambda one: (not one.bound, _rank(one), one.name)):
            rival = self._rival(tenant, stay)
            if rival and tenant.movable and not tenant.bound:
                self._evict(tenant, rival.slot, rival.ground)
            else:
                stay.append(tenant)

    def seat(self, tenant: Tenant) -> None:
        """Admit a slot that would start, or have it wait, or refuse it."""
        never = self._never(tenant)
        obstacle = never or (None if tenant.name in self.incomplete else self._obstacle(tenant))
        if obstacle and not (tenant.is_asked_for or tenant.resident):
            self.verdicts[tenant.name] = Verdict(up=False, why=f"no request waits for it, and {obstacle.why}")
            return
        if obstacle:
            standing = Standing.REFUSED if never else Standing.WAITS
            self.verdicts[tenant.name] = Verdict(up=True, why=obstacle.why, standing=standing, ground=obstacle.ground)
        if never:
            return
        if obstacle and tenant.is_asked_for:
            self._make_room(tenant, obstacle)
        self.coming.append(tenant)

    def _obstacle(self, tenant: Tenant) -> Obstacle | None:
        """Return what keeps a slot from starting in this very pass."""
        return self._rivalry(tenant) or self._shortage(tenant) or self._others_turn(tenant)

    def _never(self, tenant: Tenant) -> Obstacle | None:
        """Return what will keep a slot from starting for as long as things are as they are."""
        pool = self._shared_pool(tenant)
        if pool is None and tenant.name not in self.choosy:
            return None
        fixed = [other for other in self._residents() if self._is_fixed(other, tenant)]
        fixed += [other for other in self.coming if other.keeps]
        return self._rival(tenant, fixed) or (self._lack(pool, tenant, fixed) if pool else None)

    def _is_fixed(self, other: Tenant, tenant: Tenant) -> bool:
        stays = other.keeps and not other.leaving and other.name not in self.going
        return stays and other.name != tenant.name and not tenant.outranks(other)

    def _rivalry(self, tenant: Tenant) -> Rival | None:
        """Return the slot that is up, or comes first, and excludes this one."""
        if tenant.name not in self.choosy:
            return None
        return self._rival(tenant, [*self._residents(), *self._entrants()])

    def _rival(self, tenant: Tenant, others: Iterable[Tenant]) -> Rival | None:
        if tenant.name not in self.choosy:
            return None
        for other in others:
            if other.name in self.choosy and (ground := self._exclusion(tenant, other)):
                return Rival(ground, exclusion_text(other.spec, ground, to=tenant.spec), other)
        return None

    def _shortage(self, tenant: Tenant) -> Obstacle | None:
        pool = self._pool(tenant)
        if pool is None:
            return None
        lack = self._lack(pool, tenant, [*self._residents(), *self._entrants()]) if is_shared_out(pool) else None
        return lack or self._not_free(pool, tenant)

    def _lack(self, pool: Pool, tenant: Tenant, others: Iterable[Tenant]) -> Obstacle | None:
        """Return the arithmetic where a slot does not fit into a pool beside others."""
        if tenant.resident and tenant.wants <= tenant.holds(pool.name):
            return None  # its new engine takes no more than the one that it replaces
        there = {other.name: other for other in others if other.name != tenant.name}
        parts = [self._part_of(pool, other) for other in there.values()]
        over = sum(size for size, _ in parts) + tenant.wants - capacity(pool)
        if over <= 0:
            return None
        held = " + ".join(text for size, text in parts if size)
        beside = f", of which {held} are taken" if held else ""
        claimed = f"{tenant.name} claims {_told(tenant.claim)}: {show_size(over)} too much"
        return Obstacle(Ground.MEMORY, f"pool {pool.name} has {show_size(capacity(pool))}{beside}; {claimed}")

    def _part_of(self, pool: Pool, other: Tenant) -> tuple[int, str]:
        """Return the bytes of a pool that are to be left to another slot, and how to say it."""
        size, claim = other.holds(pool.name), other.held
        if other in self.coming and other.pool == pool.name and other.wants >= size:
            size, claim = other.wants, other.claim
        return size, f"{other.name} {_told(claim)}"

    def _not_free(self, pool: Pool, tenant: Tenant) -> Obstacle | None:
        """Return how much is free of a pool that was probed, where that is too little: others may have taken it."""
        if pool.used is None:
            return None
        begun = {other.name: other for other in [*self._residents(), *self._admitted()] if self._begins(other)}
        promised = sum(other.wants for other in begun.values() if other.pool == pool.name and other is not tenant)
        free = max(capacity(pool) - pool.used - promised, 0)
        if tenant.wants - tenant.holds(pool.name) <= free:
            return None
        why = f"pool {pool.name} has {show_size(free)} free; {tenant.name} claims {_told(tenant.claim)}"
        return Obstacle(Ground.MEMORY, why)

    def _others_turn(self, tenant: Tenant) -> Obstacle | None:
        pool = self._shared_pool(tenant)
        if pool is None:
            return None
        for other in [*self._residents(), *self._admitted()]:
            if pool.name in {other.pool, other.held_pool} and other is not tenant and self._begins(other):
                return Obstacle(Ground.TURN, f"slot {other.name} loads first: one at a time in pool {pool.name}")
        return None

    def _begins(self, other: Tenant) -> bool:
        return other.loading or other in self.coming

    def _make_room(self, tenant: Tenant, obstacle: Obstacle) -> None:
        """Have others go, if that is all it takes: as few as can be, and those first that are missed least."""
        if obstacle.ground is Ground.TURN or (isinstance(obstacle, Rival) and obstacle.slot in self.coming):
            return
        rivals = [other for other in self._staying() if self._exclusion(tenant, other)]
        if not all(self._yields(other, tenant) for other in rivals):
            return
        victims = [*rivals, *self._for_memory(tenant, rivals)]
        for victim in victims:
            self._evict(victim, tenant, self._exclusion(tenant, victim) or Ground.MEMORY)

    def _for_memory(self, tenant: Tenant, gone: list[Tenant]) -> list[Tenant]:
        pool = self._shared_pool(tenant)
        if pool is None:
            return []
        staying = [other for other in self._staying() if other not in gone]
        others = [*staying, *self._entrants()]
        candidates = sorted(
            (one for one in staying if one.held_pool == pool.name and self._yields(one, tenant)), key=_missed
        )
        victims: list[Tenant] = []
        for victim in candidates:
            if not self._lack(pool, tenant, _without(others, victims)):
                break
            victims.append(victim)
        if self._lack(pool, tenant, _without(others, victims)):
            return []
        for victim in [*victims]:
            fewer = [other for other in victims if other is not victim]
            if not self._lack(pool, tenant, _without(others, fewer)):
                victims = fewer
        return victims

    def _yields(self, other: Tenant, tenant: Tenant) -> bool:
        """Return whether a slot that is up gives way now: to a higher one at once, to an equal one when it is idle.

        An equal one that is in use has its turn first, and another waits at least as long.
        """
        if not (other.movable and tenant.outranks(other)):
            return False
        if other.priority < tenant.priority or not other.use.in_flight:
            return True
        if other.up_since is None:
            return False
        waiting_since = other.up_since if tenant.use.since is None else max(tenant.use.since, other.up_since)
        return self.world.now - waiting_since >= max(LEAST_TURN, 2 * other.load_time)

    def _evict(self, victim: Tenant, for_: Tenant, ground: Ground) -> None:
        serving = victim.use.serving
        what = "memory" if ground is Ground.MEMORY else "they exclude each other"
        why = f"makes room for {for_.name}: {what}" + (f"; {serving} requests at its engine" if serving else "")
        standing = Standing.DRAINS if serving else Standing.EVICTED
        self.verdicts[victim.name] = Verdict(up=False, why=why, standing=standing, ground=ground, beneficiary=for_.name)
        self.going.add(victim.name)

    def _residents(self) -> Iterator[Tenant]:
        return (tenant for tenant in self.tenants.values() if tenant.resident)

    def _staying(self) -> list[Tenant]:
        return [one for one in self._residents() if not one.leaving and one.name not in self.going]

    def _admitted(self) -> list[Tenant]:
        """Return those that start in this very pass."""
        return [one for one in self._entrants() if self.verdicts[one.name].standing is Standing.ADMITTED]

    def _entrants(self) -> list[Tenant]:
        """Return those that come first, and wait for no model or image."""
        return [tenant for tenant in self.coming if tenant.name not in self.incomplete]

    def _exclusion(self, one: Tenant, other: Tenant) -> Ground | None:
        if one.name == other.name:
            return None
        host = self.world.desired.host
        declared = exclusion(one.spec, other.spec, host, one_pool=one.pool == other.pool)
        if declared or not other.resident:
            return declared
        return exclusion(one.spec, other.applied, host, one_pool=one.pool == other.held_pool)

    def _pool(self, tenant: Tenant) -> Pool | None:
        fact = self.world.pools.get(tenant.pool)
        return fact.value if isinstance(fact, Known) else None

    def _shared_pool(self, tenant: Tenant) -> Pool | None:
        pool = self._pool(tenant)
        return pool if pool and is_shared_out(pool) else None


def _choosy(tenants: Iterable[Tenant]) -> frozenset[str]:
    """Return the slots that may exclude others or be excluded: most hosts have none, and are not looked through."""
    specs = [(tenant.name, spec) for tenant in tenants for spec in (tenant.spec, tenant.applied)]
    named = {other for _, spec in specs for other in spec.placing.exclusive_with}
    return frozenset({name for name, spec in specs if is_choosy(spec)} | named)


def _without(tenants: Iterable[Tenant], gone: list[Tenant]) -> list[Tenant]:
    return [tenant for tenant in tenants if tenant not in gone]


def _told(claim: Claim) -> str:
    """Return a claim as a sum names it."""
    return f"{show_size(claim.bytes or 0)} ({claim.source})"


def _known_pools(world: World) -> Iterator[Pool]:
    return (fact.value for fact in world.pools.values() if isinstance(fact, Known))


def _view(pool: Pool, tenants: Iterable[Tenant]) -> PoolView:
    claimed = sum(tenant.holds(pool.name) for tenant in tenants)
    return PoolView(pool.name, capacity(pool), claimed, pool.used)
