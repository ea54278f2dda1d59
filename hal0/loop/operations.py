"""The acts that API, MCP and CLI have in common: one function for one act."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, field

from hal0.core.conditions import ConditionType
from hal0.core.documents import ManifestError
from hal0.core.engines import slot_of
from hal0.core.status import SlotStatus
from hal0.core.steps import Plan
from hal0.core.validate import did_you_mean
from hal0.core.wire import Json, plan_json, slot_detail_json, snapshot_json, transfer_json
from hal0.errors import NotFound, UsageError
from hal0.host.ports import MANIFESTS
from hal0.loop.history import Asked
from hal0.loop.locked import check_locked
from hal0.loop.news import LoadNews, News, Outcome, PassNews, StateNews, StepNews, TransferNews
from hal0.loop.reconcile import Leave, Reconciler


class InvalidManifests(UsageError):
    """The manifests are wrong: nothing was changed."""

    def __init__(self, problems: Iterable[ManifestError]) -> None:
        self.problems = tuple(problems)
        count = len(self.problems)
        lines = "\n".join(str(problem) for problem in self.problems)
        super().__init__(f"{lines}\n{count} {'problem' if count == 1 else 'problems'}: nothing was changed")


class Overcommitted(UsageError):
    """The slots that should always be up can't be all: nothing was changed."""

    def __init__(self, refused: Mapping[str, str]) -> None:
        lines = "\n".join(f"slot {name}: {why}" for name, why in refused.items())
        hint = "give one of them run: on-demand, a smaller context or claim, or state larger pools in the Host manifest"
        super().__init__(f"{lines}\nnot all slots with run: always fit: nothing was changed", hint=hint)


@dataclass(frozen=True, slots=True)
class ApplyRequest:
    """What to apply, for how many seconds to watch it, who asked for it, and what history says of it besides.

    ``atomic``: each spec that is new has to prove itself, or the slot is taken back to its last good one. ``locked``:
    nothing is run that is not locked.
    """

    limit: frozenset[str] | None = None
    prune_all: bool = False
    timeout: float = 600.0
    who: str = ""
    note: str = ""
    atomic: bool = False
    locked: bool = False

    @property
    def leave(self) -> Leave:
        """What the passes of this apply may do."""
        return Leave(self.limit, self.prune_all, Asked(self.who, self.note, self.atomic))


def overview(reconciler: Reconciler) -> Json:
    """Return everything that the last pass saw."""
    return snapshot_json(reconciler.snapshot, now=reconciler.clock.now())


def slot(reconciler: Reconciler, name: str) -> SlotStatus:
    """Return one slot's status. Raises ``NotFound``, which names the closest one there is."""
    found = reconciler.snapshot.slots.get(name)
    if found is None:
        raise no_slot(name, reconciler.snapshot.slots)
    return found


def no_slot(name: str, known: Collection[str]) -> NotFound:
    """Return the error for a slot that is not there; it names the closest one there is."""
    hint = did_you_mean(name, known) or f"slots: {', '.join(known) or 'none'}"
    return NotFound(f"there is no slot {name!r}", hint=hint)


def slot_detail(reconciler: Reconciler, name: str) -> Json:
    """Return one slot with everything that is known of it."""
    moves = [
        {"before": move.before, "after": move.after, "at": move.at}
        for move in reconciler.store.ledger.transitions(name)
    ]
    acts = [asdict(act) for act in reconciler.store.ledger.acts(name)]
    return slot_detail_json(slot(reconciler, name), now=reconciler.clock.now(), transitions=moves, acts=acts)


async def preview(reconciler: Reconciler, leave: Leave = Leave(), *, locked: bool = False) -> Plan:  # noqa: B008
    """Read, look and plan afresh, and change nothing on the host.

    Raises ``InvalidManifests``, and ``NotFound`` for a limit that names no slot; where all is to be ``locked``,
    ``NotLocked``.
    """
    current = await reconciler.survey(leave)
    if reconciler.desired.problems:
        raise InvalidManifests(reconciler.desired.problems)
    check_limit(leave.limit, reconciler.snapshot.slots)
    if locked:
        check_locked(reconciler, reconciler.desired, leave.limit)
    return current


def check_limit(limit: frozenset[str] | None, known: Collection[str]) -> None:
    """Raise ``UsageError`` for a limit that names no slot."""
    for name in sorted((limit or frozenset()) - set(known)):
        raise no_slot(name, known)


def _limited(refused: Mapping[str, str], limit: frozenset[str] | None) -> dict[str, str]:
    return {name: why for name, why in refused.items() if limit is None or name in limit}


async def apply(reconciler: Reconciler, request: ApplyRequest) -> AsyncIterator[Json]:
    """Make the host what the manifests say, and yield what happens: the plan, steps, states, and at last a recap.

    Ends when every slot is as declared, or failed, or ``timeout`` has passed. Raises ``InvalidManifests``,
    ``Overcommitted``, ``NotLocked``, and ``UsageError`` for a limit that names no slot, before anything is changed.
    """
    with reconciler.feed.subscribe() as news:
        desired = await reconciler.source.load()
        if desired.problems:
            raise InvalidManifests(desired.problems)
        check_limit(request.limit, sorted({*desired.slots, *reconciler.store.specs}))
        if refused := _limited(await reconciler.overcommitted(desired), request.limit):
            raise Overcommitted(refused)
        if request.locked:
            check_locked(reconciler, desired, request.limit)
        async for event in watched(reconciler, request, request.leave, news):
            yield event


async def watched(
    reconciler: Reconciler, request: ApplyRequest, leave: Leave, news: asyncio.Queue[News]
) -> AsyncIterator[Json]:
    """Make a pass and yield what comes of it: the plan, then steps and states from ``news``, and at last a recap."""
    watch = _Watch(reconciler, request)
    current = await reconciler.run(frozenset({MANIFESTS}), leave)
    watch.slots |= {slot_of(change.slot) for change in current.changes}
    yield {"event": "plan", "plan": plan_json(current)}
    deadline = reconciler.clock.now() + request.timeout
    while not (news.empty() and watch.is_over()) and (left := deadline - reconciler.clock.now()) > 0:
        try:
            item = await asyncio.wait_for(news.get(), left)
        except TimeoutError:
            break
        if (event := watch.note(item)) is not None:
            yield event
    yield watch.recap()


@dataclass
class _Watch:
    """What happened to each slot during one apply."""

    reconciler: Reconciler
    request: ApplyRequest
    slots: set[str] = field(default_factory=set)
    ok: dict[str, int] = field(default_factory=dict)
    skipped: dict[str, int] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    def note(self, item: News) -> Json | None:
        """Count one piece of news; return the event that a progress view shows."""
        if isinstance(item, PassNews | LoadNews):
            return None
        if isinstance(item, TransferNews):
            return transfer_event(item) if any(self._is_ours(slot_of(engine)) for engine in item.slots) else None
        if not self._is_ours(slot_of(item.slot)):
            return None
        if isinstance(item, StateNews):
            return {"event": "state", "slot": item.slot, "state": item.after, "message": item.message}
        self._count(item)
        return {
            "event": "step",
            "slot": item.slot,
            "step": item.step,
            "outcome": item.outcome.value,
            "message": item.message,
            "seconds": round(item.seconds, 3),
        }

    def is_over(self) -> bool:
        """Return whether every slot is settled or failed."""
        limit = self.request.limit
        if self.reconciler.batches.is_busy if limit is None else any(map(self.reconciler.is_busy_with, limit)):
            return False
        slots = self._statuses()
        return all(slot.is_settled or (self._failure(slot) and not slot.is_on_trial) for slot in slots)

    def recap(self) -> Json:
        """Return the closing event: counts for each slot, and whether all of them converged."""
        statuses = {slot.name: slot for slot in self._statuses()}
        names = sorted(self.slots | set(statuses))
        rows = {name: self._row(name, statuses.get(name)) for name in names}
        converged = all(not (row["failed"] or row["unreachable"] or row["waiting"]) for row in rows.values())
        return {"event": "recap", "slots": rows, "converged": converged}

    def _row(self, name: str, slot: SlotStatus | None) -> Json:
        changed = self.ok.get(name, 0)
        failure = self.failed.get(name, "") if slot is None else _said(self._failure(slot), slot.rejection)
        unreachable = slot is not None and slot.condition(ConditionType.RUNNING).status is None
        waiting = slot is not None and not failure and not unreachable and not slot.is_settled
        return {
            "ok": changed + (0 if unreachable else 1),
            "changed": changed,
            "unreachable": int(unreachable),
            "failed": int(bool(failure)),
            "skipped": self.skipped.get(name, 0),
            "waiting": int(waiting),
            "message": failure or (slot.message if slot else ""),
        }

    def _statuses(self) -> list[SlotStatus]:
        return [slot for name, slot in self.reconciler.snapshot.slots.items() if self._is_ours(name)]

    def _is_ours(self, name: str) -> bool:
        return self.request.limit is None or name in self.request.limit

    def _failure(self, slot: SlotStatus) -> str:
        if slot.failure or slot.is_ready or slot.is_kept_down or slot.rejected:
            return slot.failure
        return self.failed.get(slot.name, "")

    def _count(self, item: StepNews) -> None:
        """Count a step, one of a stand-in for its slot."""
        slot = slot_of(item.slot)
        if item.outcome is Outcome.OK:
            self.ok[slot] = self.ok.get(slot, 0) + 1
        elif item.outcome is Outcome.SKIPPED:
            self.skipped[slot] = self.skipped.get(slot, 0) + 1
        elif item.outcome is Outcome.FAILED:
            self.failed[slot] = f"{item.step}: {item.message}"


def transfer_event(news: TransferNews) -> Json:
    """Return how far a model is on its way, as an event."""
    slots = sorted({slot_of(engine) for engine in news.slots})
    return {"event": "transfer", "slots": slots, "message": str(news.transfer), **transfer_json(news.transfer)}


def _said(*sentences: str) -> str:
    return "; ".join(filter(None, sentences))
