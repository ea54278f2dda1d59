"""What a person asks of one slot: load, unload, restart, swap, reset, retry, adopt. API and CLI call the same function.

Each one is recorded first, and a pass then does what there is to do. So whoever asked may go away, and a hal0 that is
killed in between goes on with it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from enum import StrEnum

from hal0.core.engines import stand_in_of
from hal0.core.facts import Known, Unknown, known
from hal0.core.observed import Activity
from hal0.core.override import DOWN, UP, Aspect, Override, differs, of_aspect
from hal0.core.pools import capacity, pool_of, pools_of
from hal0.core.quantity import show_duration, show_size
from hal0.core.spec import DesiredSlot, SlotSpec
from hal0.core.validate import did_you_mean
from hal0.core.why import Rule
from hal0.core.wire import Json
from hal0.errors import Conflict, HostUnreachable, NotFound, UsageError
from hal0.host.ledger import Act
from hal0.host.models import are_files
from hal0.loop import operations
from hal0.loop.adopt import take_over
from hal0.loop.operations import ApplyRequest
from hal0.loop.reconcile import Leave, Reconciler
from hal0.loop.swap import Swap, row_of, swapped

LONGEST = 366 * 86400.0
"""Seconds for which an override may be asked; without an end it holds until it is reset."""


class Verb(StrEnum):
    """What may be asked of a slot."""

    LOAD = "load"
    UNLOAD = "unload"
    RESTART = "restart"
    SWAP = "swap"
    RESET = "reset"
    RETRY = "retry"
    ADOPT = "adopt"


@dataclass(frozen=True, slots=True)
class ActRequest:
    """What ``who`` asks of a slot. ``lasting`` is for how many seconds, None until reset; ``model`` "" is none.

    ``timeout`` is for how many seconds to watch what comes of it; not at all without ``wait``. ``persist``: a swap is
    to be written to the manifest. ``seen`` is what an adoption was shown to be of (``hal0.loop.adopt``).
    """

    slot: str
    verb: Verb
    who: str
    model: str = ""
    lasting: float | None = None
    timeout: float = ApplyRequest().timeout
    wait: bool = True
    persist: bool = True
    seen: str = ""


async def act(reconciler: Reconciler, request: ActRequest) -> AsyncIterator[Json]:
    """Do what is asked, and yield what happens, as ``operations.apply`` does: the plan, steps, states, a recap.

    Ends when the slot is as asked for, or failed, or ``timeout`` has passed; without ``wait``, with the plan. Raises
    before anything is changed: ``NotFound`` for a slot or a model that is not there, ``Conflict`` where the slot can't
    be asked for it now, ``UsageError`` for what can't be meant, ``HostUnreachable`` where the slot can't be seen.
    """
    _check_time(request)
    watch = ApplyRequest(frozenset({request.slot}), timeout=request.timeout)
    leave = Leave(watch.limit)  # no apply: history has no row of it
    await reconciler.survey(leave)
    slot, before = _slot(reconciler, request), row_of(reconciler, request.slot)
    if request.verb is Verb.ADOPT:
        await take_over(reconciler, request.slot, request.seen)
    await _record(reconciler, request, slot)
    with reconciler.feed.subscribe() as news:
        events = operations.watched(reconciler, watch, leave, news)
        if request.verb is Verb.SWAP:
            events = swapped(reconciler, _swap(reconciler, request, before), events, request.timeout)
        async for event in events:
            yield event
            if not request.wait:
                return


def _check_time(request: ActRequest) -> None:
    if request.lasting is not None and not 0 < request.lasting <= LONGEST:
        message = f"an override can't last for {request.lasting:g} s: it is more than 0, and 366 days at the most"
        raise UsageError(message, hint="without a time it lasts until it is reset")
    if request.verb is Verb.SWAP and request.persist and request.lasting is not None:
        raise UsageError(
            "a swap for a while is not written to the manifest", hint="add --no-persist, or leave --for out"
        )


def _swap(reconciler: Reconciler, request: ActRequest, before: Override | None) -> Swap:
    model, row = reconciler.desired.models[request.model], row_of(reconciler, request.slot)
    return Swap(request.slot, model, request.who, request.persist, row, before)


def _slot(reconciler: Reconciler, request: ActRequest) -> DesiredSlot:
    slots = reconciler.desired.slots
    if request.slot not in slots:
        raise operations.no_slot(request.slot, slots)
    slot = slots[request.slot]
    if slot.spec.suspend and request.verb is not Verb.RESET:
        hint = f"set `suspend` to false at {slot.spec.source}"
        raise Conflict(f"slot {request.slot} is suspended: hal0 leaves it as it is", hint=hint)
    if slot.is_barred and request.verb in {Verb.LOAD, Verb.RESTART} and not request.model:
        raise Conflict(f"slot {request.slot} is kept down: {slot.rejected}")
    return slot


async def _record(reconciler: Reconciler, request: ActRequest, slot: DesiredSlot) -> None:
    """Keep what is asked for and who asked. Whoever asks means now: a failed start is tried again at once."""
    asked = await _overrides(reconciler, request, slot)
    put = [override for override in asked if differs(override, slot)]
    kept = {override.key for override in put}
    over = [(request.slot, aspect) for aspect in Aspect] if request.verb is Verb.RESET else [own.key for own in asked]
    if request.verb is Verb.UNLOAD or request.model:
        over.append((request.slot, Aspect.HOLD))  # whoever says what should run need not know what does
    reconciler.store.overrides.change(put, drop=[key for key in over if key not in kept])
    for engine in (request.slot, stand_in_of(request.slot)):
        reconciler.attempts.pop(engine, None)
    if request.verb is Verb.RETRY and slot.rejected:
        reconciler.trials.retry(slot.rejected, request.who)
    reconciler.store.ledger.add_acts([_told(reconciler, request)])


def _told(reconciler: Reconciler, request: ActRequest) -> Act:
    words = [f"asked for by {request.who}"]
    words += [f"model {request.model}"] if request.model else []
    words += [] if request.lasting is None else [f"for {show_duration(request.lasting)}"]
    return Act(
        *(request.slot, request.verb.value, False, ", ".join(words), reconciler.clock.wall()),
        rule=Rule.HAND.value,
        by=request.who,
    )


async def _overrides(reconciler: Reconciler, request: ActRequest, slot: DesiredSlot) -> list[Override]:
    """Return what is asked for as overrides; some of them may be what the manifest says anyhow."""
    match request.verb:
        case Verb.LOAD:
            found = [_override(reconciler, request, Aspect.RUN, UP)]
            if request.model:
                model = await _model(reconciler, request, slot)
                found.append(_override(reconciler, request, Aspect.MODEL, model))
            return found
        case Verb.SWAP:
            return [_override(reconciler, request, Aspect.MODEL, await _model(reconciler, request, slot))]
        case Verb.UNLOAD:
            return [_override(reconciler, request, Aspect.RUN, DOWN)]
        case Verb.RESTART:
            return [_override(reconciler, request, Aspect.RESTART, _invocation(reconciler, request.slot))]
    return []


def _override(reconciler: Reconciler, request: ActRequest, aspect: Aspect, value: str) -> Override:
    wall = reconciler.clock.wall()
    until = None if request.lasting is None else wall + request.lasting
    return Override(request.slot, aspect, value, request.who, wall, until)


async def _model(reconciler: Reconciler, request: ActRequest, slot: DesiredSlot) -> str:
    """Return the name of the Model that is asked for. Raises where it is not declared, or its file is not there."""
    models = reconciler.desired.models
    if request.model not in models:
        hint = did_you_mean(request.model, models) or f"models: {', '.join(sorted(set(models.values()))) or 'none'}"
        raise NotFound(f"there is no Model {request.model!r}", hint=hint)
    if slot.problems:
        hint = "correct it first: hal0 validate says what is wrong"
        raise Conflict(f"the manifest of slot {request.slot} has errors, and its last good spec stays", hint=hint)
    changed = await reconciler.source.with_models({request.slot: models[request.model]})
    spec = changed.slots.get(request.slot, slot).spec
    if are_files(spec.model_files) == Known(value=False) and changed.download(spec) is None:
        raise UsageError(f"ModelMissing: there is no {spec.model_path}", hint=changed.mend(spec))
    await _check_size(reconciler, spec)
    return models[request.model]


async def _check_size(reconciler: Reconciler, spec: SlotSpec) -> None:
    """Raise ``UsageError`` where a spec claims more than its whole pool has."""
    await reconciler.lessons.files.look([spec.model_path])
    claim = reconciler.lessons.claims({spec.name: spec})[spec.name]
    pools = pools_of(reconciler.observer.pools, reconciler.desired.host)
    pool = known(pools.get(pool_of(spec, pools), Unknown("no such pool")))
    if pool and (claim.bytes or 0) > capacity(pool):
        message = f"pool {pool.name} has {show_size(capacity(pool))}, and {spec.model} claims {show_size(claim.bytes)}"
        raise UsageError(
            f"{message}: {claim.how}", hint="a smaller model or context, or `claim` in the slot's manifest"
        )


def _invocation(reconciler: Reconciler, name: str) -> str:
    """Return which run of a slot a restart has to end. Raises where none is seen, or nobody knows what to start."""
    if name in of_aspect(reconciler.store.overrides.rows, Aspect.HOLD):
        hint = f"hal0 slot reset {name} makes it what its manifest says, hal0 slot load {name} --model M another"
        raise Conflict(f"slot {name} runs as it was found when the store was lost: nobody knows from what", hint=hint)
    seen = reconciler.observer.seen.get(name)
    if seen is None or isinstance(seen.service, Unknown):
        raise HostUnreachable(f"slot {name} can't be seen now", hint=f"hal0 slot show {name} says why")
    service = known(seen.service)
    if service is None or not service.activity.is_up or not service.invocation:
        verb = Verb.RETRY if service and service.activity is Activity.FAILED else Verb.LOAD
        raise Conflict(f"slot {name} does not run", hint=f"hal0 slot {verb} {name}")
    return service.invocation
