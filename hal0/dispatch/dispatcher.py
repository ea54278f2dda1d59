"""A /v1 request from its decision to its last byte: where it goes, whether it may, and what is tried when it can't.

It reads the Snapshot and registers demand; only the loop starts and stops slots.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from secrets import token_hex

from hal0.core.endpoints import Endpoint
from hal0.core.routes import Decision, Listing, Routes, Target, routes
from hal0.core.status import Snapshot
from hal0.core.validate import did_you_mean
from hal0.dispatch.asked import Asked, read
from hal0.dispatch.call import Call
from hal0.dispatch.connection import EngineLost
from hal0.dispatch.envelope import Refusal
from hal0.dispatch.guard import Guard
from hal0.dispatch.record import Record
from hal0.dispatch.records import Recorder
from hal0.dispatch.send import MayGoOn, Sender
from hal0.dispatch.upstreams import Upstreams
from hal0.loop.reconcile import Reconciler

_STATUS = {"model.not_loaded": 503, "request.no_model": 400}
_LONGEST_NAME = 200
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")


@dataclass
class Dispatcher:
    """Answers the POSTs of /v1."""

    reconciler: Reconciler
    guard: Guard
    sender: Sender
    upstreams: Upstreams
    recorder: Recorder
    _routes: tuple[Snapshot, Mapping[str, Listing], Routes] | None = None
    _ids: count[int] = field(default_factory=count)
    _run: bytes = field(default_factory=lambda: token_hex(4).encode())

    async def handle(self, call: Call, endpoint: Endpoint) -> None:
        """Answer one request, and keep a record of it."""
        record = self.record(call, endpoint)
        try:
            self.guard.check(call, endpoint)
            asked = await read(call, endpoint, self.reconciler.snapshot.host.max_body)
            record.model = asked.model
            await self._answer(asked, record)
        except Refusal as refusal:
            record.outcome = refusal.code
            call.respond(refusal.status, refusal.body(endpoint.api), refusal.headers, record.told)
        except EngineLost:
            record.outcome = "stream.broken"
        except asyncio.CancelledError:
            record.left()
            raise
        except Exception:
            record.outcome = "internal"
            raise
        finally:
            record.status = call.status
            self.recorder.add(record)

    def record(self, call: Call, endpoint: Endpoint) -> Record:
        """Begin the record of a request."""
        self.name(call)
        return Record(call.id, endpoint.path, call.began, revision=self.reconciler.snapshot.revision)

    @property
    def routes(self) -> Routes:
        """The route table of the current Snapshot, built once for each."""
        snapshot, catalogue = self.reconciler.snapshot, self.upstreams.catalogue
        if self._routes is None or self._routes[0] is not snapshot or self._routes[1] is not catalogue:
            self._routes = (snapshot, catalogue, routes(snapshot, catalogue))
        return self._routes[2]

    async def decide(self, model: str | None, endpoint: Endpoint) -> Decision:
        """Return where a request goes, once upstreams that were never asked have told what they have."""
        decision = self.routes.decide(model, endpoint)
        if decision.cold:
            await self.upstreams.prefetch(decision.cold)
            decision = self.routes.decide(model, endpoint)
        return decision

    def not_found(self, model: str | None, decision: Decision) -> Refusal:
        """Return why a request goes nowhere."""
        if not self.reconciler.snapshot.is_ready:
            return Refusal(503, "host.starting", "hal0 has not looked at this host yet", retry_after=1)
        if model is None or decision.code in _STATUS:
            return Refusal(_STATUS.get(decision.code, 404), decision.code, decision.reason, param="model")
        known = [name for name in self.routes.bound if not name.startswith("hal0/")]
        hint = did_you_mean(model[:_LONGEST_NAME], known) or f"there are: {', '.join(known[:20]) or 'none yet'}"
        return Refusal(404, "model.not_found", f"{decision.reason}: {model[:_LONGEST_NAME]!r}; {hint}", param="model")

    async def _answer(self, asked: Asked, record: Record) -> None:
        decision = await self.decide(asked.model, asked.endpoint)
        record.rule, record.reason = decision.rule, decision.reason
        if decision.target is None:
            raise self.not_found(asked.model, decision)
        fallback = list(decision.target.fallback)
        target: Target | None = decision.target
        while target is not None:
            try:
                await self._send(asked, target, record, partial(self._may_go_on, fallback, asked.endpoint))
            except Refusal as refusal:
                record.reason += f"; {target.name}: {refusal.code}"
                target = None
                if not asked.is_spent and refusal.status != 400:  # noqa: PLR2004  (the client's own mistake)
                    target = await self._next(fallback, asked.endpoint, record)
                if target is None:
                    raise
            else:
                return

    async def _may_go_on(self, fallback: list[str], endpoint: Endpoint) -> bool:
        """Return whether one of these names leads somewhere."""
        for name in fallback:
            if (await self.decide(name, endpoint)).target:
                return True
        return False

    async def _next(self, fallback: list[str], endpoint: Endpoint, record: Record) -> Target | None:
        """Return the next place to try, and take it off the list; one that leads nowhere is passed over."""
        while fallback:
            name = fallback.pop(0)
            decision = await self.decide(name, endpoint)
            if decision.target:
                return decision.target
            record.reason += f"; {name}: {decision.code}"
        return None

    async def _send(self, asked: Asked, target: Target, record: Record, may_go_on: MayGoOn) -> None:
        record.slot = record.target = target.name
        if target.upstream:
            record.target = f"upstream/{target.name}"
            await self.sender.to_upstream(asked, target.upstream, target.model, record, may_go_on)
        elif target.slot:
            await self.sender.to_slot(asked, target.slot, record, may_go_on)

    def name(self, call: Call) -> None:
        """Give a request the id that its client sent, where that is one, or a new one."""
        if not call.id:
            said = call.header(b"x-request-id")
            call.id = said if _REQUEST_ID.fullmatch(said) else b"%b-%x" % (self._run, next(self._ids))
