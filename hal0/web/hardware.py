"""/api/hardware: what this machine has."""

from __future__ import annotations

from aiohttp import web

from hal0.loop import hardware
from hal0.loop.reconcile import Reconciler


class HardwareViews:
    """Handlers that look at the machine."""

    def __init__(self, reconciler: Reconciler) -> None:
        self._reconciler = reconciler

    def routes(self) -> list[web.RouteDef]:
        """Return all routes."""
        return [web.get("/api/hardware", self.machine)]

    async def machine(self, _: web.Request) -> web.Response:
        """Return the machine: processors, memory, GPUs, NPUs, the disk of the models, and the default device."""
        return web.json_response(await hardware.probe(self._reconciler))
