"""/api/models: what is declared and found. What fetches, reads or removes files is taken on the unix socket only."""

from __future__ import annotations

from aiohttp import web

from hal0.loop import declare, models
from hal0.loop.fit import Fitting, model_fit
from hal0.loop.reconcile import Reconciler
from hal0.web.bodies import Signed, parsed
from hal0.web.local import begun, local_only, streamed
from hal0.web.numbers import whole_number


class _Named(Signed):
    """The body that names a model: ids hold slashes."""

    model: str


class _Pulled(_Named):
    """The body that says what to fetch: a Model, or where one comes from; ``name`` is what that one is to be called."""

    name: str = ""


class Models:
    """Handlers of models."""

    def __init__(self, reconciler: Reconciler) -> None:
        self._reconciler = reconciler

    def routes(self) -> list[web.RouteDef]:
        """Return all routes."""
        return [
            web.get("/api/models", self.list),
            web.get("/api/models/{name:.+}", self.show),
            web.post("/api/models/pull", local_only(self.pull)),
            web.post("/api/models/verify", local_only(self.verify)),
            web.post("/api/models/scan", local_only(self.scan)),
            web.delete("/api/models/{name:.+}", local_only(self.remove)),
        ]

    async def list(self, _: web.Request) -> web.Response:
        """Return every model that is declared, or found in the model directory."""
        return web.json_response(await models.models(self._reconciler))

    async def show(self, request: web.Request) -> web.Response:
        """Return one model, with its chat template; with ``fit`` whether a slot of it would fit, too."""
        name, query = request.match_info["name"], request.query
        found = await models.model(self._reconciler, name)
        if "fit" in query:
            size = whole_number(request, "ctx_size", 0)
            asked = Fitting(found["name"], size or None, query.get("device"), query.get("profile"))
            found["fit"] = await model_fit(self._reconciler, asked)
        return web.json_response(found)

    async def pull(self, request: web.Request) -> web.StreamResponse:
        """Fetch a model, and stream how far it is; it goes on when the client has gone. What is new is declared."""
        asked = parsed(_Pulled, await request.read())
        events = declare.pull(self._reconciler, asked.model, name=asked.name, who=asked.who)
        return await streamed(request, await begun(events))

    async def scan(self, request: web.Request) -> web.Response:
        """Declare the models that were found."""
        asked = parsed(Signed, await request.read() or b"{}")
        return web.json_response(await declare.scan(self._reconciler, who=asked.who))

    async def verify(self, request: web.Request) -> web.StreamResponse:
        """Hash a model's files, and stream how far that is."""
        asked = parsed(_Named, await request.read())
        return await streamed(request, await begun(models.verify(self._reconciler, asked.model)))

    async def remove(self, request: web.Request) -> web.Response:
        """Remove the files of a model that no slot has."""
        return web.json_response(await models.remove(self._reconciler, request.match_info["name"]))
