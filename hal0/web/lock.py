"""/api/lock: what is locked, for all to see. Locking is taken on the unix socket only."""

from __future__ import annotations

from aiohttp import web
from pydantic import Field

from hal0.loop.lock import LockRequest, lock, locked
from hal0.loop.reconcile import Reconciler
from hal0.web.bodies import Signed, parsed
from hal0.web.local import begun, local_only, of_root, streamed


class _Lock(Signed):
    """The body of a lock."""

    root: str | None = None
    upgrade: bool = False
    names: list[str] = Field(default_factory=list)
    check: bool = False

    @property
    def request(self) -> LockRequest:
        """What to lock, as the loop takes it."""
        return LockRequest(self.upgrade, tuple(self.names), self.check, self.who)


class Locks:
    """Handlers of the lock."""

    def __init__(self, reconciler: Reconciler) -> None:
        self._reconciler = reconciler

    def routes(self) -> list[web.RouteDef]:
        """Return all routes."""
        return [web.get("/api/lock", self.show), web.post("/api/lock", local_only(self.lock))]

    async def show(self, _: web.Request) -> web.Response:
        """Return what is locked, which pins are not in force, and what has none."""
        return web.json_response(await locked(self._reconciler))

    async def lock(self, request: web.Request) -> web.StreamResponse:
        """Lock what is not locked yet, or anew, and stream how far that is."""
        asked = parsed(_Lock, await request.read() or b"{}")
        of_root(self._reconciler, asked.root, "lock")
        return await streamed(request, await begun(lock(self._reconciler, asked.request)))
