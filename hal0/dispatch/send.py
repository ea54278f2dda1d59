"""Sending a request to a slot or an upstream, and its answer on to the client; or saying why it could not be."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any, NamedTuple, TypeAlias

from hal0.core.endpoints import Endpoint
from hal0.core.schema import Abort
from hal0.core.spec import UpstreamSpec
from hal0.core.status import SlotStatus
from hal0.dispatch.asked import Asked
from hal0.dispatch.connection import Connection, EngineLost
from hal0.dispatch.envelope import Refusal
from hal0.dispatch.forward import deliver, request_head, request_start, send_parts
from hal0.dispatch.gate import Gate
from hal0.dispatch.heads import END, Header, RequestHead, framing, lines
from hal0.dispatch.pool import EngineUnreachable, Origin, Pool, Tcp, tcp
from hal0.dispatch.record import Record, id_line
from hal0.dispatch.upstreams import Upstreams, origin_of, path_of
from hal0.dispatch.visit import Visit
from hal0.loop.reconcile import Reconciler

_log = logging.getLogger(__name__)
GAP = 600.0
"""Seconds of silence after which an engine's answer is given up."""
_TRY_ELSEWHERE = frozenset({429, 500, 502, 503, 504, 529})
UNAVAILABLE = 503
LOADING = b"Loading model"
_LONGEST_WAIT = 3600.0


MayGoOn: TypeAlias = Callable[[], Awaitable[bool]]
"""Says whether there is anywhere else to try a request. It may have to ask upstreams what they have."""


class Stop(NamedTuple):
    """A request at one of the places that are tried for it."""

    asked: Asked
    slot: SlotStatus
    record: Record
    may_go_on: MayGoOn


@dataclass
class Sender:
    """Sends requests. An engine's failure goes to the client as it is, unless the request ``may_go_on``."""

    reconciler: Reconciler
    pool: Pool
    upstreams: Upstreams
    gate: Gate
    _orphans: set[asyncio.Task[bool]] = field(default_factory=set)

    async def to_slot(self, asked: Asked, slot: SlotStatus, record: Record, may_go_on: MayGoOn) -> None:
        """Answer a request from a slot, once it is ready. Raises ``Refusal``, and ``EngineLost`` amid an answer."""
        until = time.monotonic() + self._patience(asked, slot)
        if not slot.state.is_dispatchable:
            self.reconciler.requests.woke(slot.name, asked.call.id.decode())
        with Visit(self.reconciler.demands, self.gate, slot, asked.keep(slot.spec)) as visit:
            is_answered = False
            while not is_answered:
                ready = self.gate.opened(slot.name) or await self.gate.wait(slot.name, until - time.monotonic())
                record.queued = time.monotonic() - record.began
                visit.serve(ready)
                exchange = self._exchange(
                    Stop(asked, ready, record, may_go_on), visit, is_late=time.monotonic() >= until
                )
                is_answered = await (self._to_its_end(exchange, visit) if _drains(ready) else exchange)

    async def _exchange(self, stop: Stop, visit: Visit, *, is_late: bool) -> bool:
        """Ask a slot's engine; return False where it turned out not to be ready, and the request has to wait."""
        connection = await self._ask_slot(stop.asked, stop.slot, is_late=is_late)
        if connection is None:
            visit.hold()
            return False
        try:
            await self._finish(stop.asked, connection, stop.record, told("slot", stop.slot.name), stop.may_go_on)
        finally:
            self.pool.give_back(engine_of(stop.slot), connection)
        return True

    async def _to_its_end(self, exchange: Coroutine[Any, Any, bool], visit: Visit) -> bool:
        """Let an engine come to its end with a request even if its client goes: some crash on being cut off."""
        task = asyncio.create_task(exchange)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            visit.keep_on()
            self._orphans.add(task)
            task.add_done_callback(lambda ended: self._orphaned(ended, visit))
            raise

    def _orphaned(self, task: asyncio.Task[bool], visit: Visit) -> None:
        self._orphans.discard(task)
        visit.end()
        if not task.cancelled() and (error := task.exception()):
            _log.info("a request whose client had gone ended with: %s", error)

    async def _ask_slot(self, asked: Asked, slot: SlotStatus, *, is_late: bool) -> Connection | None:
        """Return the connection on which a slot's engine began its answer; None where it turned out not to be ready.

        Then nothing was done for the request: it goes back to wait, since a stop that hal0 did not ask for, or an
        engine that was started anew, shows here before it shows in the Snapshot.
        """
        origin = engine_of(slot)
        try:
            if asked.form is None:
                connection = await self.pool.ask(origin, request_to_slot(asked, slot), gap=GAP)
            else:
                start = partial(_head_to_slot, asked, slot)
                connection = await self._ask_form(asked, origin, start, slot.serves.model)
        except EngineUnreachable as error:
            if not asked.is_spent and not is_late:
                return None
            raise lost(f"slot {slot.name}", str(error)) from error
        except EngineLost as error:
            raise lost(f"slot {slot.name}", str(error)) from error
        if connection.status == UNAVAILABLE and not asked.is_spent and LOADING in await connection.peek():
            self.pool.give_back(origin, connection)
            if is_late:
                raise self.gate.loading(slot)
            return None
        return connection

    def _patience(self, asked: Asked, slot: SlotStatus) -> float:
        """Return how many seconds a request waits for a slot: as its client says, or the manifests."""
        if asked.wait is not None:
            return min(asked.wait, _LONGEST_WAIT)
        own = slot.spec.serving.load_wait
        return self.reconciler.snapshot.host.load_wait if own is None else own

    async def to_upstream(
        self, asked: Asked, spec: UpstreamSpec, model: str, record: Record, may_go_on: MayGoOn
    ) -> None:
        """Answer a request from an upstream. Raises ``Refusal``, and ``EngineLost`` amid an answer."""
        own = [*self.upstreams.own_headers(spec, asked.call.head), (b"x-request-id", asked.call.id)]
        self.upstreams.check(spec)
        origin = origin_of(spec)
        try:
            connection = await self._ask_upstream(asked, spec, own, model)
        except (EngineUnreachable, EngineLost) as error:
            self.upstreams.failed(spec, str(error))
            raise lost(f"upstream {spec.name}", str(error), "upstream.unreachable") from error
        self.upstreams.answered(spec, connection.status)
        try:
            await self._finish(asked, connection, record, told("upstream", spec.name), may_go_on)
        finally:
            self.pool.give_back(origin, connection)

    async def _ask_upstream(self, asked: Asked, spec: UpstreamSpec, own: list[Header], model: str) -> Connection:
        origin, head = origin_of(spec), asked.call.head
        target = path_of(spec, asked.endpoint) + head.query
        start = partial(request_head, asked.call, target, head.passed_beside(own), lines(own))
        if asked.form is not None:
            return await self._ask_form(asked, origin, start, model, gap=spec.idle_timeout)
        body = asked.json_for(model, None)
        return await self.pool.ask(origin, start(len(body)) + body, gap=spec.idle_timeout)

    async def _ask_form(
        self, asked: Asked, origin: Origin, start: Callable[[int | None], bytes], model: str, *, gap: float = GAP
    ) -> Connection:
        """Send a form as it comes from the client, and return the connection on which the answer has begun."""
        length = asked.form_length(model)
        head = start(length)
        connection = await self.pool.open(origin, gap=gap)
        try:
            await send_parts(connection, head, asked.form_for(model), is_chunked=length is None)
        except BaseException:
            self.pool.give_back(origin, connection)
            raise
        return connection

    async def _finish(
        self, asked: Asked, connection: Connection, record: Record, source: bytes, may_go_on: MayGoOn
    ) -> None:
        """Pass the answer on; or leave it to a fallback, where it is a failure and none of it was passed on."""
        if connection.status in _TRY_ELSEWHERE and not asked.is_spent and await may_go_on():
            raise Refusal(connection.status, "engine.failed", f"it answered {connection.status}")
        asked.is_spent = True
        try:
            await deliver(asked.call, connection, source + record.told)
        finally:
            record.answered(connection)


def _drains(slot: SlotStatus) -> bool:
    return slot.serves.serving.abort is Abort.DRAIN


def engine_of(slot: SlotStatus) -> Tcp:
    """Return where a slot's engine listens."""
    return tcp("127.0.0.1", slot.serves.port)


@cache
def told(kind: str, name: str) -> bytes:
    """Return what a client is told of the slot or upstream that answered it."""
    return f"x-hal0-{kind}: {name}\r\n".encode()


def request_to_slot(asked: Asked, slot: SlotStatus) -> bytes:
    """Return a whole request as a slot's engine is to get it."""
    body = asked.json_for(slot.serves.model, slot.serves)
    return _head_to_slot(asked, slot, len(body)) + body


def _head_to_slot(asked: Asked, slot: SlotStatus, length: int | None) -> bytes:
    start = start_to_slot(asked.call.head, asked.endpoint, slot)
    return b"".join((start, id_line(asked.call.id), framing(length), END))


def start_to_slot(head: RequestHead, endpoint: Endpoint, slot: SlotStatus) -> bytes:
    """Return the beginning of a request to a slot's engine: what only its head and the slot decide."""
    target = slot.serves.serving.paths.get(endpoint.path, endpoint.path) + head.query
    return request_start(head, target, head.passed) + b"host: 127.0.0.1\r\n"


def lost(where: str, why: str, code: str = "slot.unreachable") -> Refusal:
    """Return what a client is told where no answer came."""
    return Refusal(502, code, f"{where} did not answer: {why}", retry_after=1)
