"""/api where hal0 writes manifests: slots created, edited and deleted. On the unix socket only."""

from __future__ import annotations

from aiohttp import web

from hal0.loop import authoring
from hal0.loop.reconcile import Reconciler
from hal0.web.bodies import NewSlot, Signed, SlotKeys, parsed
from hal0.web.local import local_only


class Authoring:
    """Handlers that write manifests."""

    def __init__(self, reconciler: Reconciler) -> None:
        self._reconciler = reconciler

    def routes(self) -> list[web.RouteDef]:
        """Return all routes."""
        return [
            web.post("/api/slots", local_only(self.create)),
            web.patch("/api/slots/{name}", local_only(self.edit)),
            web.delete("/api/slots/{name}", local_only(self.delete)),
        ]

    async def create(self, request: web.Request) -> web.Response:
        """Write a slot's manifest, and wait until its definition is written."""
        asked = parsed(NewSlot, await request.read())
        return web.json_response(await authoring.create(self._reconciler, asked.name, asked.keys, who=asked.who))

    async def edit(self, request: web.Request) -> web.Response:
        """Change keys of a slot's manifest, and say what takes effect when."""
        asked, name = parsed(SlotKeys, await request.read()), request.match_info["name"]
        return web.json_response(await authoring.edit(self._reconciler, name, asked.given, who=asked.who))

    async def delete(self, request: web.Request) -> web.Response:
        """Take a slot out of its manifest, and wait until it is removed."""
        asked = parsed(Signed, await request.read() or b"{}")
        return web.json_response(await authoring.delete(self._reconciler, request.match_info["name"], who=asked.who))
