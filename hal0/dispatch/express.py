"""The express lane: a request that has nothing to wait for goes through in callbacks, without a task of its own.

Most requests are such: the body is all there, the slot is open, a connection to its engine is idle. Whatever else comes
up on the way, it gets off, and a task begins with the request anew as if nothing had been tried.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

from hal0.core.endpoints import ENDPOINTS, Endpoint
from hal0.core.routes import Routes, Rule
from hal0.core.schema import Abort
from hal0.core.status import SlotStatus
from hal0.dispatch.asked import json_for
from hal0.dispatch.body import parse
from hal0.dispatch.call import Call
from hal0.dispatch.connection import Connection, EngineLost
from hal0.dispatch.dispatcher import Dispatcher
from hal0.dispatch.envelope import Refusal
from hal0.dispatch.forward import begin, end_broken
from hal0.dispatch.heads import END, RequestHead, framing
from hal0.dispatch.pool import Tcp
from hal0.dispatch.record import Record, id_line, revision_line
from hal0.dispatch.send import GAP, LOADING, UNAVAILABLE, engine_of, lost, start_to_slot, told

_log = logging.getLogger(__name__)
_MOST_LANES = 1024
Done: TypeAlias = Callable[[bool], None]


@dataclass(frozen=True, slots=True)
class Lane:
    """What requests with one head for one model have in common, for as long as a route table stands.

    ``start`` is the head of the request to the engine but for its last lines, ``told`` what the answer says of itself.
    """

    endpoint: Endpoint
    model: str | None
    rule: Rule
    reason: str
    slot: SlotStatus
    origin: Tcp
    revision: str
    start: bytes
    told: bytes


@dataclass
class ExpressLane:
    """Sends requests on their way at once, where that may be."""

    dispatcher: Dispatcher
    _table: Routes = field(default_factory=Routes)
    _lanes: dict[tuple[RequestHead, str | None], Lane | None] = field(default_factory=dict)

    def __call__(self, call: Call, done: Done) -> Ride | None:
        """Begin a request, or return None and leave it as it was: then it needs a task.

        ``done`` is called once, with whether the client was answered.
        """
        dispatcher, endpoint = self.dispatcher, ENDPOINTS.get(call.head.path)
        raw = call.whole(dispatcher.reconciler.snapshot.host.max_body)
        if endpoint is None or endpoint.is_form or raw is None:
            return None
        try:
            dispatcher.guard.check(call, endpoint)
            body = parse(raw)
            lane = self._lane(call.head, body.model, endpoint)
            if lane is None or body.keep_alive is not None or not dispatcher.sender.gate.has_room(lane.slot):
                return None
            sent = json_for(body, lane.slot.serves.model, lane.slot.serves)
        except (Refusal, ValueError):
            return None
        connection = dispatcher.sender.pool.take(lane.origin)
        if connection is None:
            return None
        dispatcher.name(call)
        ride = Ride(dispatcher, call, lane, connection, done)
        ride.begin(sent)
        return ride

    def _lane(self, head: RequestHead, model: str | None, endpoint: Endpoint) -> Lane | None:
        table = self.dispatcher.routes
        if table is not self._table or len(self._lanes) >= _MOST_LANES:
            self._table = table
            self._lanes.clear()
        key = (head, model)
        if key not in self._lanes:
            self._lanes[key] = self._laid(head, model, endpoint)
        return self._lanes[key]

    def _laid(self, head: RequestHead, model: str | None, endpoint: Endpoint) -> Lane | None:
        decision = self._table.decide(model, endpoint)
        slot = decision.target.slot if decision.target else None
        if slot is None or not slot.state.is_dispatchable or _may_take_turns(slot):
            return None
        revision = self.dispatcher.reconciler.snapshot.revision
        return Lane(
            endpoint=endpoint,
            model=model,
            rule=decision.rule,
            reason=decision.reason,
            slot=slot,
            origin=engine_of(slot),
            revision=revision,
            start=start_to_slot(head, endpoint, slot),
            told=told("slot", slot.name) + revision_line(revision),
        )


def _may_take_turns(slot: SlotStatus) -> bool:
    """Return whether more may become of a request than one exchange with its engine."""
    return bool(slot.spec.serving.fallback) or slot.serves.serving.abort is Abort.DRAIN


class Ride:
    """One request on its way."""

    __slots__ = ("_call", "_connection", "_dispatcher", "_done", "_id_line", "_is_over", "_lane", "_outcome")

    def __init__(self, dispatcher: Dispatcher, call: Call, lane: Lane, connection: Connection, done: Done) -> None:
        self._dispatcher, self._call, self._lane = dispatcher, call, lane
        self._connection, self._done = connection, done
        self._id_line = id_line(call.id)
        self._outcome = "ok"
        self._is_over = False

    def begin(self, body: bytes) -> None:
        """Send the request."""
        sender, lane = self._dispatcher.sender, self._lane
        sender.reconciler.demands.enter(lane.slot.engine)
        request = b"".join((lane.start, self._id_line, framing(len(body)), END, body))
        sender.pool.use(self._connection, request, GAP)
        self._connection.observe(self._look)

    def cancel(self) -> None:
        """Give up: the client has gone, and its engine need not go on."""
        self._end(is_answered=True, has_left=True)

    def _look(self) -> None:
        try:
            self._step()
        except Exception as error:  # noqa: BLE001  (a fault of ours must not take the engine's connection down)
            _log.error("%s broke", self._lane.endpoint.path, exc_info=error)
            self._outcome = "internal"
            self._end(is_answered=True)
            self._call.cut()

    def _step(self) -> None:
        """See how far the answer is, and do what comes next."""
        call, connection = self._call, self._connection
        if not call.begun:
            if connection.error:
                self._lost(connection.error)
                return
            if connection.status == UNAVAILABLE and connection.is_short:
                if not connection.is_complete:
                    return
                if LOADING in connection.held:
                    self._end(is_answered=False)
                    return
            connection.feed(begin(call, connection, self._lane.told + self._id_line))
        if connection.error:
            end_broken(call, connection, connection.error)
            self._outcome = "stream.broken"
        if connection.error or connection.is_complete:
            self._end(is_answered=True)

    def _lost(self, error: EngineLost) -> None:
        """Have the request sent anew where the connection had ended before it; else say that there is no answer."""
        if error.begun:
            refusal, own = lost(f"slot {self._lane.slot.name}", str(error)), self._lane.told + self._id_line
            self._outcome = refusal.code
            self._call.respond(refusal.status, refusal.body(self._lane.endpoint.api), refusal.headers, own)
        self._end(is_answered=error.begun)

    def _end(self, *, is_answered: bool, has_left: bool = False) -> None:
        """Get off, at the end or where the request has to wait after all."""
        if self._is_over:
            return
        self._is_over = True
        if is_answered:
            self._record(has_left=has_left)
        sender, slot = self._dispatcher.sender, self._lane.slot
        sender.pool.give_back(self._lane.origin, self._connection)
        sender.reconciler.demands.end(slot.engine, served=True)
        sender.gate.leave(slot)
        self._done(is_answered)

    def _record(self, *, has_left: bool) -> None:
        call, lane, slot = self._call, self._lane, self._lane.slot.name
        record = Record(
            call.id,
            lane.endpoint.path,
            call.began,
            model=lane.model,
            slot=slot,
            target=slot,
            rule=lane.rule,
            reason=lane.reason,
            revision=lane.revision,
            outcome=self._outcome,
            status=call.status,
        )
        record.answered(self._connection)
        if has_left:
            record.left()
        self._dispatcher.recorder.add(record)
