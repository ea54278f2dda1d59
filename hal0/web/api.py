"""/api: the reconciler's picture as JSON. What changes the host is taken on the unix socket only."""

from __future__ import annotations

from aiohttp import web

from hal0.core.explain import endpoint_of, explain
from hal0.core.wire import plan_json
from hal0.dispatch import tryout
from hal0.dispatch.dispatcher import Dispatcher
from hal0.loop import operations
from hal0.loop.history import history_json
from hal0.loop.operations import ApplyRequest
from hal0.loop.reconcile import Leave
from hal0.loop.rollback import RollbackRequest, rollback
from hal0.loop.why import why
from hal0.web.acts import SlotActs
from hal0.web.bodies import Signed, Who, parsed
from hal0.web.local import local_only, of_root, streamed
from hal0.web.numbers import whole_number
from hal0.web.profiles import ProfileViews

_MOST_LINES = 10_000


class Api:
    """Handlers of /api."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher
        self._reconciler = dispatcher.reconciler

    def routes(self) -> list[web.RouteDef]:
        """Return all routes."""
        return [
            web.get("/api/health", self.health),
            web.get("/api/status", self.status),
            web.get("/api/slots", self.slots),
            web.get("/api/slots/{name}", self.slot),
            web.get("/api/slots/{name}/logs", local_only(self.logs)),
            web.get("/api/slots/{name}/why", self.why),
            web.get("/api/plan", self.plan),
            web.get("/api/history", self.history),
            web.get("/api/route", self.route),
            web.get("/api/upstreams", self.upstreams),
            web.post("/api/upstreams/{name}/test", local_only(self.upstream_test)),
            web.post("/api/apply", local_only(self.apply)),
            web.post("/api/rollback", local_only(self.rollback)),
            *SlotActs(self._reconciler).routes(),
            *ProfileViews(self._reconciler).routes(),
        ]

    async def health(self, _: web.Request) -> web.Response:
        """Answer 200 once a first look at the host was made, whatever state the slots are in."""
        ready = self._reconciler.snapshot.is_ready
        return web.json_response({"status": "ok" if ready else "starting"}, status=200 if ready else 503)

    async def status(self, _: web.Request) -> web.Response:
        """Return the whole picture."""
        return web.json_response(operations.overview(self._reconciler))

    async def slots(self, _: web.Request) -> web.Response:
        """Return all slots."""
        picture = operations.overview(self._reconciler)
        return web.json_response({"version": picture["version"], "slots": picture["slots"]})

    async def slot(self, request: web.Request) -> web.Response:
        """Return one slot, with everything that is known of it."""
        return web.json_response(operations.slot_detail(self._reconciler, request.match_info["name"]))

    async def why(self, request: web.Request) -> web.Response:
        """Return why one slot is as it is: what is wanted of it, what was done to it, who was refused."""
        return web.json_response(why(self._reconciler, request.match_info["name"]))

    async def plan(self, request: web.Request) -> web.Response:
        """Return the plan of the last pass: what is pending, and what was changed outside hal0.

        With ``fresh=1``, read and look anew; ``limit`` (repeated), ``prune_all=1`` and ``locked=1`` are those of apply.
        """
        if request.query.get("fresh") != "1":
            return web.json_response(plan_json(self._reconciler.snapshot.plan))
        limit = frozenset(request.query.getall("limit", [])) or None
        leave = Leave(limit, request.query.get("prune_all") == "1")
        locked = request.query.get("locked") == "1"
        return web.json_response(plan_json(await operations.preview(self._reconciler, leave, locked=locked)))

    async def history(self, request: web.Request) -> web.Response:
        """Return the last applies, newest first; ``limit`` says how many."""
        limit = min(whole_number(request, "limit", 20), _MOST_LINES)
        return web.json_response(history_json(self._reconciler.store.ledger, limit=limit))

    async def route(self, request: web.Request) -> web.Response:
        """Explain where a request for ``model`` to ``path`` would go, and send nothing to any engine."""
        endpoint = endpoint_of(request.query.get("path", "/v1/chat/completions"))
        model = request.query.get("model") or None
        await self._dispatcher.decide(model, endpoint)  # so that upstreams are asked first where a request would ask
        return web.json_response(explain(self._dispatcher.routes, model, endpoint))

    async def upstreams(self, _: web.Request) -> web.Response:
        """Return every upstream: its breaker, and how many models it lists."""
        return web.json_response(self._dispatcher.upstreams.as_json())

    async def upstream_test(self, request: web.Request) -> web.Response:
        """Ask one upstream for its list, and say how it took that and the key. Unix socket only."""
        return web.json_response(await tryout.tried(self._dispatcher.upstreams, request.match_info["name"]))

    async def logs(self, request: web.Request) -> web.StreamResponse:
        """Return the last lines of a slot's service; with ``follow=1``, those to come as well. Unix socket only."""
        name = operations.slot(self._reconciler, request.match_info["name"]).name
        lines = min(whole_number(request, "lines", 200), _MOST_LINES)
        runtime = self._reconciler.observer.runtime
        last = await runtime.logs(name, lines=lines)
        response = web.StreamResponse(headers={"Content-Type": "text/plain; charset=utf-8"})
        await response.prepare(request)
        for line in last:
            await response.write(f"{line}\n".encode())
        if request.query.get("follow") == "1":
            async for line in runtime.follow(name):
                await response.write(f"{line}\n".encode())
        return response

    async def apply(self, request: web.Request) -> web.StreamResponse:
        """Apply the manifests and stream what happens, a JSON object a line. Unix socket only."""
        asked = parsed(_Apply, await request.read())
        of_root(self._reconciler, asked.root, "apply")
        return await streamed(request, operations.apply(self._reconciler, asked.request))

    async def rollback(self, request: web.Request) -> web.StreamResponse:
        """Bring earlier manifests back, apply them, and stream what happens. Unix socket only."""
        asked = parsed(_Rollback, await request.read())
        return await streamed(request, rollback(self._reconciler, asked.request))


class _Asked(Signed):
    """What the body of an act may say."""

    who: Who = "api"
    prune_all: bool = False
    atomic: bool = False
    timeout: float = ApplyRequest().timeout


class _Apply(_Asked):
    """The body of an apply."""

    root: str | None = None
    limit: list[str] | None = None
    locked: bool = False

    @property
    def request(self) -> ApplyRequest:
        """What to apply, as the loop takes it."""
        limit = frozenset(self.limit) if self.limit else None
        return ApplyRequest(limit, self.prune_all, self.timeout, self.who, atomic=self.atomic, locked=self.locked)


class _Rollback(_Asked):
    """The body of a rollback."""

    rev: str = ""
    force: bool = False

    @property
    def request(self) -> RollbackRequest:
        """Where to go back to, as the loop takes it."""
        return RollbackRequest(self.rev, self.force, self.prune_all, self.timeout, self.who, self.atomic)
