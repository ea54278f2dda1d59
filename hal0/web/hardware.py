"""/api/hardware: what this machine has, and whether a model fits."""

from __future__ import annotations

from aiohttp import web

from hal0.errors import UsageError
from hal0.loop import hardware
from hal0.loop.fit import model_fit
from hal0.loop.reconcile import Reconciler
from hal0.web.numbers import whole_number


class HardwareViews:
    """Handlers that look at the machine."""

    def __init__(self, reconciler: Reconciler) -> None:
        self._reconciler = reconciler

    def routes(self) -> list[web.RouteDef]:
        """Return all routes."""
        return [web.get("/api/hardware", self.machine), web.get("/api/hardware/fit", self.fit)]

    async def machine(self, _: web.Request) -> web.Response:
        """Return the machine: processors, memory, GPUs, NPUs, the disk of the models, and the default device."""
        return web.json_response(await hardware.probe(self._reconciler))

    async def fit(self, request: web.Request) -> web.Response:
        """Return whether a slot of ``model`` would fit, with ``ctx_size`` tokens, on ``device``."""
        if not (model := request.query.get("model")):
            raise UsageError("no model is named", hint="ask for /api/hardware/fit?model=NAME")
        size, device = whole_number(request, "ctx_size", 0), request.query.get("device")
        return web.json_response(await model_fit(self._reconciler, model, context_size=size or None, device=device))
