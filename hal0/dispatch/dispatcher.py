"""Which slot a /v1 request goes to, and what a client is told when there is none to send it to."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from aiohttp import ClientSession, web

from hal0.core.conditions import ConditionType
from hal0.core.routes import Routes, routes
from hal0.core.schema import RunPolicy
from hal0.core.state import SlotState
from hal0.core.status import SlotStatus, Snapshot
from hal0.core.validate import did_you_mean
from hal0.dispatch.body import Body, parse
from hal0.dispatch.envelope import error_response
from hal0.dispatch.forward import forward
from hal0.dispatch.measures import Measures
from hal0.loop.reconcile import Reconciler

_RETRY_LOADING = 2.0
_LOADED = {True: "loaded", False: "unloaded"}


@dataclass
class Dispatcher:
    """Answers /v1 from the current Snapshot. Demand is registered with the loop; only the loop starts slots."""

    reconciler: Reconciler
    session: ClientSession
    measures: Measures
    _routes: tuple[Snapshot, Routes] | None = field(default=None)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Forward one request to the slot of its ``model``."""
        begun = time.monotonic()
        slot, response = await self._answer(request)
        self.measures.request(slot, request.path, response.status, time.monotonic() - begun)
        return response

    async def _answer(self, request: web.Request) -> tuple[str, web.StreamResponse]:
        """Return the answer to a request, and the slot that it is of; empty where it is of none."""
        try:
            body = parse(await request.read())
        except ValueError as error:
            return "", error_response(400, "request.invalid_json", f"the body is not JSON: {error}")
        if body.model is None:
            return "", error_response(400, "request.no_model", "the request names no model", param="model")
        slot = self.routes.find(body.model)
        if slot is None:
            return "", self._not_found(body.model)
        return slot.name, await self._serve(request, slot, body)

    async def models(self, _: web.Request) -> web.Response:
        """List what can be asked for: slot names first, then model ids. Wakes nothing."""
        slots = self.reconciler.snapshot.slots.values()
        names = dict.fromkeys([slot.name for slot in slots] + [slot.spec.model for slot in slots])
        data = [self._entry(name, slot) for name in names if (slot := self.routes.find(name))]
        return web.json_response({"object": "list", "data": data})

    async def model(self, request: web.Request) -> web.Response:
        """Describe one model."""
        name = request.match_info["name"]
        slot = self.routes.find(name)
        return web.json_response(self._entry(name, slot)) if slot else self._not_found(name)

    @property
    def routes(self) -> Routes:
        """The route table of the current Snapshot, built once for each."""
        snapshot = self.reconciler.snapshot
        if self._routes is None or self._routes[0] is not snapshot:
            self._routes = (snapshot, routes(snapshot))
        return self._routes[1]

    async def _serve(self, request: web.Request, slot: SlotStatus, body: Body) -> web.StreamResponse:
        self.reconciler.demands.begin(slot.name, is_up=slot.state.is_dispatchable)
        try:
            if not slot.state.is_dispatchable:
                return _unavailable(slot)
            with self.measures.in_flight(slot.name):
                return await forward(self.session, request, slot, body.filled(slot.spec.defaults))
        finally:
            self.reconciler.demands.end(slot.name)

    def _not_found(self, model: str) -> web.Response:
        known = [slot.name for slot in self.reconciler.snapshot.slots.values()]
        hint = did_you_mean(model, known) or f"there are: {', '.join(known) or 'none yet'}"
        return error_response(404, "model.not_found", f"no slot serves {model!r}: {hint}", param="model")

    def _entry(self, name: str, slot: SlotStatus) -> dict[str, object]:
        size = slot.spec.context_size
        return {
            "id": name,
            "object": "model",
            "created": 0,
            "owned_by": "hal0",
            "name": name,
            "status": {"value": "loading" if _is_loading(slot) else _LOADED[slot.state.is_dispatchable]},
            "meta": {"n_ctx": size},
            "context_length": size,
            "max_model_len": size,
        }


def _is_loading(slot: SlotStatus) -> bool:
    return slot.state in {SlotState.PULLING, SlotState.STARTING, SlotState.WARMING}


def _unavailable(slot: SlotStatus) -> web.Response:
    """Say why a slot can't take a request now, and whether to come again."""
    if slot.spec.run is RunPolicy.NEVER or slot.spec.suspend:
        return error_response(503, "model.not_loaded", f"slot {slot.name} is not meant to run")
    if slot.condition(ConditionType.STALLED).status:
        return error_response(502, "slot.load_failed", f"slot {slot.name} failed: {slot.message}")
    message = f"slot {slot.name} is {slot.state.value}: {slot.message or 'it will be ready soon'}"
    return error_response(503, "slot.loading", message, retry_after=_RETRY_LOADING)
