"""The express lane: a request that has nothing to wait for goes through in callbacks, without a task of its own.

Most requests are such: the body is all there, the slot is open, a connection to its engine is idle. Whatever else comes
up on the way, it gets off, and a task begins with the request anew as if nothing had been tried.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from hal0.core.endpoints import ENDPOINTS, Endpoint
from hal0.core.schema import Abort
from hal0.core.status import SlotStatus
from hal0.dispatch.asked import Asked
from hal0.dispatch.body import parse
from hal0.dispatch.call import Call
from hal0.dispatch.connection import Connection, EngineLost
from hal0.dispatch.dispatcher import Dispatcher
from hal0.dispatch.envelope import Refusal
from hal0.dispatch.forward import begin, end_broken
from hal0.dispatch.records import Record
from hal0.dispatch.send import GAP, LOADING, UNAVAILABLE, engine_of, lost, request_to_slot, told

_log = logging.getLogger(__name__)


def board(dispatcher: Dispatcher, call: Call, endpoint: Endpoint, done: Callable[[bool], None]) -> Ride | None:
    """Send a request on its way at once, or return None and leave it as it was: then it needs a task.

    ``done`` is called once, with whether the client was answered.
    """
    raw = call.whole(dispatcher.reconciler.snapshot.host.max_body)
    if raw is None or endpoint.is_form:
        return None
    try:
        dispatcher.guard.check(call, endpoint)
        body = parse(raw)
    except (Refusal, ValueError):
        return None
    decision = dispatcher.routes.decide(body.model, endpoint)
    found = decision.target.slot if decision.target else None
    slot = dispatcher.sender.gate.opened(found.name) if found else None
    if slot is None or body.keep_alive is not None or _may_take_turns(slot):
        return None
    record = dispatcher.record(call, endpoint)
    record.model, record.slot, record.target = body.model, slot.name, slot.name
    record.rule, record.reason = decision.rule, decision.reason
    request = request_to_slot(Asked(call, endpoint, record.id, body.model, body=body), slot)
    connection = dispatcher.sender.pool.take(engine_of(slot))
    return Ride(dispatcher, call, record, slot, connection, request=request, done=done) if connection else None


def _may_take_turns(slot: SlotStatus) -> bool:
    """Return whether more may become of a request than one exchange with its engine."""
    return bool(slot.spec.serving.fallback) or slot.spec.serving.abort is Abort.DRAIN


class Ride:
    """One request on its way."""

    __slots__ = ("_call", "_connection", "_dispatcher", "_done", "_is_over", "_record", "_slot")

    def __init__(
        self,
        dispatcher: Dispatcher,
        call: Call,
        record: Record,
        slot: SlotStatus,
        connection: Connection,
        *,
        request: bytes,
        done: Callable[[bool], None],
    ) -> None:
        self._dispatcher, self._call, self._record = dispatcher, call, record
        self._slot, self._connection, self._done = slot, connection, done
        self._is_over = False
        sender = dispatcher.sender
        sender.reconciler.demands.enter(slot.name)
        sender.pool.use(connection, request, GAP)
        connection.observe(self._look)

    def cancel(self) -> None:
        """Give up: the client has gone, and its engine need not go on."""
        self._record.answered(self._connection)
        self._record.left()
        self._end(is_answered=True)

    def _look(self) -> None:
        try:
            self._step()
        except Exception as error:  # noqa: BLE001  (a fault of ours must not take the engine's connection down)
            _log.error("%s broke", self._record.endpoint, exc_info=error)
            self._record.outcome = "internal"
            self._end(is_answered=True)
            self._call.cut()

    def _step(self) -> None:
        """See how far the answer is, and do what comes next."""
        call, connection = self._call, self._connection
        if not call.begun:
            if connection.status == UNAVAILABLE and connection.is_short and not connection.error:
                if not connection.is_complete:
                    return
                if LOADING in connection.held:
                    self._end(is_answered=False)
                    return
            if connection.error:
                self._lost(connection.error)
                return
            connection.feed(begin(call, connection, told("slot", self._slot.name) + self._record.told))
        if connection.error:
            end_broken(call, connection, connection.error)
            self._record.outcome = "stream.broken"
        if connection.error or connection.is_complete:
            self._end(is_answered=True)

    def _lost(self, error: EngineLost) -> None:
        """Have the request sent anew where the connection had ended before it; else say that there is no answer."""
        if error.begun:
            refusal = lost(f"slot {self._slot.name}", str(error))
            self._record.outcome = refusal.code
            self._call.respond(
                refusal.status, refusal.body(ENDPOINTS[self._record.endpoint].api), refusal.headers, self._record.told
            )
        self._end(is_answered=error.begun)

    def _end(self, *, is_answered: bool) -> None:
        """Get off, at the end or where the request has to wait after all."""
        if self._is_over:
            return
        self._is_over = True
        record, call = self._record, self._call
        record.answered(self._connection)
        record.status, call.source = call.status, None
        sender = self._dispatcher.sender
        sender.pool.give_back(engine_of(self._slot), self._connection)
        sender.reconciler.demands.end(self._slot.name, served=True)
        sender.gate.leave(self._slot.name)
        if is_answered:
            self._dispatcher.recorder.add(record)
        self._done(is_answered)
