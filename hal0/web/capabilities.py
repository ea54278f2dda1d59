"""/api/capabilities: what is on and what serves it. What turns them on and off is taken on the unix socket only."""

from __future__ import annotations

from aiohttp import web
from pydantic import Field

from hal0.dispatch.dispatcher import Dispatcher
from hal0.loop import capabilities
from hal0.loop.capabilities import Switch
from hal0.web.bodies import Signed, parsed
from hal0.web.local import local_only


class _Children(Signed):
    """The body of a disable: no children are all of them."""

    children: tuple[str, ...] = Field((), strict=False)


class _Enable(_Children):
    """The body of an enable; ``model`` and ``device`` are those of a Slot manifest."""

    model: str | None = None
    device: str | None = None


class Capabilities:
    """Handlers of capabilities."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher
        self._reconciler = dispatcher.reconciler

    def routes(self) -> list[web.RouteDef]:
        """Return all routes."""
        return [
            web.get("/api/capabilities", self.list),
            web.post("/api/capabilities/{name}/enable", local_only(self.enable)),
            web.post("/api/capabilities/{name}/disable", local_only(self.disable)),
        ]

    async def list(self, _: web.Request) -> web.Response:
        """Return every capability with its children."""
        return web.json_response(await capabilities.capabilities(self._reconciler, self._dispatcher.routes))

    async def enable(self, request: web.Request) -> web.Response:
        """Turn children on, and wait until their slots' definitions are written."""
        asked = parsed(_Enable, await request.read() or b"{}")
        return web.json_response(await capabilities.enable(self._reconciler, _switch(request, asked)))

    async def disable(self, request: web.Request) -> web.Response:
        """Turn children off, and wait until their slots are removed."""
        asked = parsed(_Children, await request.read() or b"{}")
        return web.json_response(await capabilities.disable(self._reconciler, _switch(request, asked)))


def _switch(request: web.Request, asked: _Children) -> Switch:
    return Switch(request.match_info["name"], **asked.model_dump())
