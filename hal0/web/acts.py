"""POST /api/slots/{name}/{verb}: what a person asks of one slot. Unix socket only."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Annotated

from aiohttp import web
from pydantic import BeforeValidator, Field

from hal0.core.quantity import parse_duration
from hal0.loop.acts import ActRequest, Verb, act
from hal0.loop.adopt import adoption
from hal0.loop.operations import ApplyRequest
from hal0.loop.reconcile import Reconciler
from hal0.web.bodies import Signed, parsed
from hal0.web.local import begun, local_only, streamed


class _Asked(Signed):
    """The body that every verb takes."""

    timeout: float = Field(ApplyRequest().timeout, ge=0)
    wait: bool = True


class _Unload(_Asked):
    """The body of an unload. ``for`` is a duration as in a manifest."""

    lasting: Annotated[float, BeforeValidator(parse_duration)] | None = Field(None, alias="for")


class _Load(_Unload):
    """The body of a load. ``model`` is a Model's name or alias."""

    model: str = ""


class _Swap(_Unload):
    """The body of a swap; ``model`` as in a load. ``persist``: the manifest is to say so."""

    model: str
    persist: bool = True


class _Adopt(_Asked):
    """The body of an adoption. ``seen`` is what GET said that would be replaced."""

    seen: str = ""


_BODIES: Mapping[Verb, type[_Asked]] = {Verb.LOAD: _Load, Verb.UNLOAD: _Unload, Verb.SWAP: _Swap, Verb.ADOPT: _Adopt}


class SlotActs:
    """Handlers of the verbs."""

    def __init__(self, reconciler: Reconciler) -> None:
        self._reconciler = reconciler

    def routes(self) -> list[web.RouteDef]:
        """Return a route for each verb."""
        acts = [web.post(f"/api/slots/{{name}}/{verb}", local_only(partial(self.act, verb))) for verb in Verb]
        return [*acts, web.get("/api/slots/{name}/adopt", local_only(self.adoption))]

    async def adoption(self, request: web.Request) -> web.Response:
        """Return what an adoption would replace, and by what. Changes nothing."""
        return web.json_response(await adoption(self._reconciler, request.match_info["name"]))

    async def act(self, verb: Verb, request: web.Request) -> web.StreamResponse:
        """Do what is asked and stream what happens, a JSON object a line. A refusal has a status of its own."""
        asked = parsed(_BODIES.get(verb, _Asked), await request.read() or b"{}")
        events = act(self._reconciler, ActRequest(request.match_info["name"], verb, **asked.model_dump()))
        return await streamed(request, await begun(events))
