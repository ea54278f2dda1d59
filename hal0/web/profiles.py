"""/api of profiles, and of where a slot's command line comes from."""

from __future__ import annotations

from aiohttp import web

from hal0.loop import profiles
from hal0.loop.reconcile import Reconciler


class ProfileViews:
    """Handlers of what profiles say, and what is made of them."""

    def __init__(self, reconciler: Reconciler) -> None:
        self._reconciler = reconciler

    def routes(self) -> list[web.RouteDef]:
        """Return all routes."""
        return [
            web.get("/api/profiles", self.profiles),
            web.get("/api/profiles/{name}", self.profile),
            web.get("/api/slots/{name}/resolved", self.resolved),
        ]

    async def profiles(self, _: web.Request) -> web.Response:
        """Return all profiles, seeds too."""
        return web.json_response(await profiles.profiles(self._reconciler))

    async def profile(self, request: web.Request) -> web.Response:
        """Return one profile with all that it extends, and where each key and flag comes from."""
        return web.json_response(await profiles.profile(self._reconciler, request.match_info["name"]))

    async def resolved(self, request: web.Request) -> web.Response:
        """Return a slot's command line, and where each part of it comes from."""
        return web.json_response(await profiles.resolved(self._reconciler, request.match_info["name"]))
