"""What slots claim of memory: their models' headers are read, and what their runs hold is measured and remembered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from hal0.core.claims import claim_key, claim_of
from hal0.core.facts import Fact, Known, Unknown, known
from hal0.core.observed import Activity, Observed, ProbeResult, Service, SlotObservation
from hal0.core.pools import Claim, pool_of
from hal0.core.schema import Device
from hal0.core.spec import Desired, DesiredSlot, SlotSpec
from hal0.host.gguf import ModelFiles
from hal0.host.measured import Measured

Phase: TypeAlias = tuple[str, Activity | None, str, Fact[ProbeResult]]

_NEWS = 1.01
"""What a run holds is written again when it has grown by this factor: not at each look."""
_ON_HOST = frozenset({Device.CPU, Device.NPU})
_DOWN = frozenset({Activity.INACTIVE, Activity.FAILED})


@dataclass(frozen=True, slots=True)
class _Before:
    """A GPU pool as it was while a slot was down: the bytes in use, and how far all the others were."""

    used: int
    others: frozenset[Phase]


@dataclass
class Lessons:
    """What earlier runs teach of slots' memory.

    A slot on the CPU holds what its service manager counts while it is ready. That includes a model's file as far as it
    is mapped. One on a GPU holds what its pool has in use more than before its start, if no other slot moved meanwhile.
    """

    measured: Measured
    files: ModelFiles = field(default_factory=ModelFiles)
    _before: dict[str, _Before] = field(default_factory=dict)
    _noted: dict[str, tuple[str, str, int]] = field(default_factory=dict)

    def claims(self, specs: Mapping[str, SlotSpec]) -> dict[str, Claim]:
        """Return what each of some specs claims of its pool, as far as ``learn`` has looked at their models."""
        return {name: self._claim(spec) for name, spec in specs.items()}

    async def learn(self, desired: Desired, owned: Mapping[str, SlotSpec], observed: Observed) -> None:
        """Learn from a look: read models' headers that are new, and take what slots hold that run what is declared.

        ``owned`` are the specs that were applied last: they may still be what runs.
        """
        specs = (*(slot.spec for slot in desired.slots.values()), *owned.values())
        await self.files.look(spec.model_path for spec in specs)
        for name in desired.slots if observed.fresh is None else observed.fresh & desired.slots.keys():
            slot = desired.slots[name]
            if slot.spec.device in _ON_HOST:
                self._note_host(slot, observed.slot(name))
            else:
                self._note_gpu(
                    slot, observed.slot(name), _in_use(slot.spec, observed), _others(name, desired, observed)
                )

    def _claim(self, spec: SlotSpec) -> Claim:
        return claim_of(spec, self.files.of(spec.model_path), self.measured.of(self._key(spec)))

    def _key(self, spec: SlotSpec) -> str:
        return claim_key(spec, known(self.files.of(spec.model_path).size))

    def _note_host(self, slot: DesiredSlot, seen: SlotObservation) -> None:
        service = _loaded(slot, seen)
        if service and service.memory:
            self._learn(slot.spec, service.invocation, service.memory)

    def _note_gpu(
        self, slot: DesiredSlot, seen: SlotObservation, used: int | None, others: frozenset[Phase] | None
    ) -> None:
        """Take the pool's use while a slot is down, and again when it has loaded: once for each start."""
        if used is None or others is None:
            self._before.pop(slot.spec.name, None)
        elif _is_down(seen):
            self._before[slot.spec.name] = _Before(used, others)
        elif service := _loaded(slot, seen):
            before = self._before.pop(slot.spec.name, None)
            if before and before.others == others and used > before.used:
                self._learn(slot.spec, service.invocation, used - before.used)

    def _learn(self, spec: SlotSpec, run: str, held: int) -> None:
        key, last = self._key(spec), self._noted.get(spec.name)
        if last is None or last[:2] != (key, run) or held > last[2] * _NEWS:
            self._noted[spec.name] = (key, run, held)
            self.measured.note(key, run, held)


def _loaded(slot: DesiredSlot, seen: SlotObservation) -> Service | None:
    """Return the service of a slot that is up with what is declared; None of any other."""
    service, instance = known(seen.service), known(seen.instance)
    if service is None or instance is None or service.activity is not Activity.ACTIVE:
        return None
    is_declared = instance.running and instance.spec_hash == slot.spec_hash
    return service if is_declared and seen.probe == Known(ProbeResult.UP) else None


def _is_down(seen: SlotObservation) -> bool:
    return seen.activity in _DOWN


def _in_use(spec: SlotSpec, observed: Observed) -> int | None:
    """Return the bytes in use of a slot's pool, by whomever; None where nobody says."""
    pool = known(observed.pools.get(pool_of(spec, observed.pools), Unknown("no such pool")))
    return pool.used if pool else None


def _others(name: str, desired: Desired, observed: Observed) -> frozenset[Phase] | None:
    """Return how far all other slots are that may have memory of a GPU; None where one of them can't be seen."""
    found = set[Phase]()
    for other, seen in observed.slots.items():
        slot = desired.slots.get(other)
        if other == name or (slot and slot.spec.device in _ON_HOST):
            continue
        if isinstance(seen.service, Unknown):
            return None
        service = seen.service.value
        found.add((other, service.activity if service else None, service.invocation if service else "", seen.probe))
    return frozenset(found)
