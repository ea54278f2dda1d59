"""Looking at the host: the runtime's facts, the probes and the machine's memory, put together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from hal0.core.engines import served_spec, slot_of
from hal0.core.facts import Fact, Known, Unknown, known
from hal0.core.observed import Activity, Observed, ProbeResult, SlotObservation, unobserved
from hal0.core.pools import Pool
from hal0.core.proof import Proof
from hal0.core.spec import Desired, SlotSpec
from hal0.host.digests import Digests
from hal0.host.models import are_files, are_right
from hal0.host.ports import Hardware, Prober, Runtime

_NEVER_SEEN = unobserved("not observed yet")


@dataclass
class Observer:
    """Keeps the last observation of every slot, and looks again at those that may have changed.

    ``proofs`` are those of the engines, kept by whoever asks for them. ``digests`` are the known sums of files: without
    them, a model is there where its files are.
    """

    runtime: Runtime
    prober: Prober
    hardware: Hardware
    proofs: Mapping[str, Proof] = field(default_factory=dict)
    seen: dict[str, SlotObservation] = field(default_factory=dict)
    pools: Mapping[str, Fact[Pool]] = field(default_factory=dict)
    digests: Digests | None = None

    async def look(
        self,
        desired: Desired,
        applied: Mapping[str, SlotSpec],
        stand_ins: Mapping[str, SlotSpec],
        *,
        only: frozenset[str] | None,
        now: float,
    ) -> Observed:
        """Look at some slots and their stand-ins, or at all of them, and return everything that is known.

        ``applied`` is the spec last applied to each slot: an engine is probed where it was told to listen. So are
        ``stand_ins``, by their keys.
        """
        images = {name: slot.spec.image for name, slot in desired.slots.items()}
        images |= {engine: spec.image for engine, spec in stand_ins.items()}
        fresh = await self.runtime.observe(images, only=_with_stand_ins(only, stand_ins))
        fresh = await self._probed(desired, applied, stand_ins, self._with_models(desired, fresh))
        fresh = {name: self._proved(name, self._dated(name, seen, now)) for name, seen in fresh.items()}
        # Memory that a slot has just taken or left must not be told from before that.
        moved = any(_phase(seen) != _phase(self.seen.get(name)) for name, seen in fresh.items())
        self.pools = await self.hardware.pools(fresh=moved)
        self.seen = fresh if only is None else {**self.seen, **fresh}
        return Observed(dict(self.seen), now, frozenset(fresh), self.pools)

    def again(self, now: float) -> Observed:
        """Return what was seen last, without a look."""
        return Observed(dict(self.seen), now, frozenset(), self.pools)

    def _dated(self, name: str, seen: SlotObservation, now: float) -> SlotObservation:
        """Keep since when a service has been running, its engine up, and its container missed."""
        before = self.seen.get(name) or _NEVER_SEEN
        same = before if _is_same_run(before, seen) else _NEVER_SEEN
        missed = before if seen.is_hollow else _NEVER_SEEN
        return replace(
            seen,
            gone_since=_first(missed.gone_since, now, is_so=seen.is_hollow),
            active_since=_first(same.active_since, now, is_so=is_active(seen)),
            up_since=_first(same.up_since, now, is_so=seen.probe == Known(ProbeResult.UP)),
        )

    def _proved(self, name: str, seen: SlotObservation) -> SlotObservation:
        return replace(seen, proof=Known(self.proofs[name])) if name in self.proofs else seen

    def _with_models(self, desired: Desired, fresh: dict[str, SlotObservation]) -> dict[str, SlotObservation]:
        specs = {name: slot.spec for name, slot in desired.slots.items() if name in fresh}
        return fresh | {name: replace(fresh[name], model=self._model(spec)) for name, spec in specs.items()}

    def _model(self, spec: SlotSpec) -> Fact[bool]:
        if self.digests is None:
            return are_files(spec.model_files)
        return are_right(spec.model_files, spec.model_pins, self.digests)

    async def _probed(
        self,
        desired: Desired,
        applied: Mapping[str, SlotSpec],
        stand_ins: Mapping[str, SlotSpec],
        fresh: dict[str, SlotObservation],
    ) -> dict[str, SlotObservation]:
        serving = [
            served_spec(slot, seen, applied.get(name))
            for name, seen in fresh.items()
            if (slot := desired.slots.get(name)) and is_active(seen)
        ]
        serving += [spec for engine, spec in stand_ins.items() if engine in fresh and is_active(fresh[engine])]
        if not serving:
            return fresh
        answers = await self.prober.probe([(spec.key, spec.port, spec.probe) for spec in serving])
        return {
            name: replace(seen, probe=Known(answers[name])) if name in answers else seen for name, seen in fresh.items()
        }


def _with_stand_ins(only: frozenset[str] | None, stand_ins: Iterable[str]) -> frozenset[str] | None:
    """Return the engines to look at: what is done with one of a slot depends on the other."""
    if only is None:
        return None
    slots = frozenset(slot_of(engine) for engine in only)
    return slots | only | {engine for engine in stand_ins if slot_of(engine) in slots}


def _phase(seen: SlotObservation | None) -> tuple[Activity | None, Fact[ProbeResult] | None]:
    """Return how far a slot is: what moves when it takes memory, or leaves it."""
    service = known(seen.service) if seen else None
    return (service.activity if service else None, seen.probe if seen else None)


def _first(before: float | None, now: float, *, is_so: bool) -> float | None:
    return before if before is not None else now if is_so else None


def _is_same_run(before: SlotObservation, seen: SlotObservation) -> bool:
    """Return whether a service runs on since an earlier look, as far as can be told."""
    if isinstance(seen.service, Unknown):
        return True
    service = known(before.service)
    return is_active(seen) and (service is None or service.invocation == seen.run)


def is_active(seen: SlotObservation) -> bool:
    """Return whether a slot's service is known to run."""
    return seen.activity is Activity.ACTIVE
