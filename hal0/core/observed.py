"""What the host says now: the only truth about it. Adapters fill these values, the core reads them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from hal0.core.definition import Mark, split
from hal0.core.facts import Fact, Unknown, known
from hal0.core.pools import Pool
from hal0.core.proof import Proof


class Activity(StrEnum):
    """What the service manager is doing with a slot's service (systemd's ActiveState and SubState, condensed)."""

    INACTIVE = "inactive"
    ACTIVATING = "activating"
    ACTIVE = "active"
    DEACTIVATING = "deactivating"
    RESTARTING = "restarting"  # SubState auto-restart: the signature of a crash loop
    FAILED = "failed"

    @property
    def is_up(self) -> bool:
        """Whether the service runs or the manager is making it run."""
        return self in {Activity.ACTIVATING, Activity.ACTIVE, Activity.RESTARTING}


class ProbeResult(StrEnum):
    """What the engine's health path answered."""

    UP = "up"  # 200
    LOADING = "loading"  # 503, or not yet listening
    FAILING = "failing"  # any other answer
    LATE = "late"  # no answer in time: it hangs, or it is only starved


@dataclass(frozen=True, slots=True)
class Definition:
    """A slot's definition as it lies on disk: the drop-in, or the process runtime's file."""

    path: str
    text: str


@dataclass(frozen=True, slots=True)
class Service:
    """A slot's unit as the service manager has it loaded, or the supervised child process.

    ``argv`` is ExecStart as loaded (empty when nothing is loaded). ``memory`` is in bytes.
    ``operator_dropins`` are drop-ins of others: hal0 leaves them alone and names them.
    """

    activity: Activity
    load: str = "loaded"
    argv: tuple[str, ...] = ()
    needs_reload: bool = False
    fragment: str = ""
    operator_dropins: tuple[str, ...] = ()
    result: str = "success"
    restarts: int = 0
    exit_status: int | None = None
    invocation: str = ""
    pid: int | None = None
    memory: int | None = None

    @property
    def failure(self) -> str:
        """How a service that failed did, as a sentence."""
        code = "" if self.exit_status is None else f", exit status {self.exit_status}"
        return f"the service failed: {self.result}{code}"


@dataclass(frozen=True, slots=True)
class Instance:
    """What really runs for a slot: a container, or a child process.

    ``command`` is the whole argv that created it. ``spec_hash`` is its ``hal0.spec`` label, or the hash of the argv and
    environment that the child was started with. ``slot`` is its ``hal0.slot`` label (empty: not hal0's). ``image`` is
    the image's id, not its tag. ``memory`` in bytes and ``cpus`` are the limits in force now, 0 for none; None where
    they are not known.
    """

    id: str
    running: bool
    slot: str = ""
    spec_hash: str = ""
    image: str = ""
    command: tuple[str, ...] = ()
    memory: int | None = None
    cpus: float | None = None


_NOT_PROBED = Unknown("not probed")
_NOT_LOOKED_UP = Unknown("not looked up")
_NOT_PROVED = Unknown("not proved")


@dataclass(frozen=True, slots=True)
class SlotObservation:
    """Everything observed of one slot.

    ``image`` is the id of the local image that the slot's reference names now, ``model`` whether its files are there.
    ``proof`` is what a real request to the engine showed, where one was made: it may be of an earlier run.
    ``gone_since`` is when the container was first missed under a service that is active, on the loop's clock. So are
    ``active_since``, when the service was first seen to run, and ``up_since``, when its engine first answered well.
    """

    definition: Fact[Definition | None]
    service: Fact[Service | None]
    instance: Fact[Instance | None]
    image: Fact[str | None]
    probe: Fact[ProbeResult] = _NOT_PROBED
    model: Fact[bool] = _NOT_LOOKED_UP
    gone_since: float | None = None
    proof: Fact[Proof] = _NOT_PROVED
    active_since: float | None = None
    up_since: float | None = None

    @property
    def mark(self) -> Mark | None:
        """The mark of the definition on disk, as far as it is known."""
        definition = known(self.definition)
        return split(definition.text)[1] if definition else None

    @property
    def activity(self) -> Activity | None:
        """How far the service is; one that is not there is inactive. None where it can't be seen."""
        if isinstance(self.service, Unknown):
            return None
        return self.service.value.activity if self.service.value else Activity.INACTIVE

    @property
    def run(self) -> str:
        """The invocation of the service that is seen; empty where there is none, or it can't be seen."""
        service = known(self.service)
        return service.invocation if service else ""

    @property
    def is_hollow(self) -> bool:
        """Whether the service is active, and its container is known not to run."""
        if self.activity is not Activity.ACTIVE or isinstance(self.instance, Unknown):
            return False
        return self.instance.value is None or not self.instance.value.running

    def wedged(self, serving: int) -> Proof | None:
        """Return the proof that the engine does not answer while its service runs; None where nothing says so.

        ``serving`` counts the requests at the engine: where its probe answers, a proof may wait behind them.
        """
        service, proof, probe = known(self.service), known(self.proof), known(self.probe)
        if service is None or service.activity is not Activity.ACTIVE or probe is None:
            return None
        if proof is None or not proof.is_refuted or proof.invocation != service.invocation:
            return None
        is_decisive = proof.suspected and not serving if probe is ProbeResult.UP else True
        return proof if is_decisive else None


def unobserved(reason: str) -> SlotObservation:
    """Return the observation of a slot that nobody could look at."""
    unknown = Unknown(reason)
    return SlotObservation(definition=unknown, service=unknown, instance=unknown, image=unknown, probe=unknown)


@dataclass(frozen=True, slots=True)
class Observed:
    """The host at one moment. ``at`` is in seconds on the loop's clock.

    ``fresh`` names the slots that were looked at for it, the others are as they were; None is all of them.
    ``pools`` is the machine's memory, as it was probed.
    """

    slots: Mapping[str, SlotObservation]
    at: float = 0.0
    fresh: frozenset[str] | None = None
    pools: Mapping[str, Fact[Pool]] = field(default_factory=dict)

    def slot(self, name: str) -> SlotObservation:
        """Return what was observed of a slot; a slot that was not looked at is unknown, never absent."""
        return self.slots.get(name) or unobserved("not observed yet")
