"""One upstream tried by hand: whether it answers, whether it takes the key, how long that takes.

No key is in the answer. The circuit breaker and what is known of the list are left as they are.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from enum import StrEnum
from http import HTTPStatus
from time import perf_counter

from hal0.core.spec import UpstreamSpec
from hal0.core.validate import did_you_mean
from hal0.core.wire import VERSION, Json
from hal0.dispatch.connection import EngineLost
from hal0.dispatch.envelope import Refusal
from hal0.dispatch.pool import EngineUnreachable
from hal0.dispatch.upstreams import Upstreams
from hal0.errors import NotFound

_PATIENCE = 10.0
_NO_ENTRY = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN})
_NO_LIST = frozenset({HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED, HTTPStatus.NOT_IMPLEMENTED})


class KeyVerdict(StrEnum):
    """What became of the key of an upstream's manifest."""

    ACCEPTED = "accepted"
    REFUSED = "refused"
    WANTED = "wanted"  # the manifest names none
    NONE = "none"  # the manifest names none, and none is asked for
    UNPROVED = "unproved"  # the list is told to those without a key, too
    MISSING = "missing"  # there is none at the place that the manifest names
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class _Answer:
    """What came of asking once. ``status`` is None where no answer came; ``error`` says why, or what is wrong with it.

    ``seconds`` lead from before the connection to the last byte.
    """

    status: int | None = None
    models: tuple[str, ...] = ()
    error: str = ""
    seconds: float = 0.0


async def tried(upstreams: Upstreams, name: str) -> Json:
    """Ask an upstream for its list of models, with its key and without it. Raises ``NotFound``."""
    specs = upstreams.reconciler.snapshot.upstreams
    if (spec := specs.get(name)) is None:
        hint = did_you_mean(name, specs) or f"upstreams: {', '.join(specs) or 'none'}"
        raise NotFound(f"there is no upstream {name!r}", hint=hint)
    try:
        upstreams.own_headers(spec)
    except Refusal as missing:
        return _told(spec, _Answer(error=missing.message), KeyVerdict.MISSING)
    answer = await _ask(upstreams, spec)
    return _told(spec, answer, await _key(upstreams, spec, answer))


async def _ask(upstreams: Upstreams, spec: UpstreamSpec) -> _Answer:
    began = perf_counter()
    try:
        status, body = await asyncio.wait_for(upstreams.ask_for_list(spec), _PATIENCE)
    except TimeoutError:
        return _Answer(error=f"no answer in {_PATIENCE:g} s")
    except (EngineUnreachable, EngineLost) as error:
        return _Answer(error=str(error) or "it closed the connection")
    seconds = perf_counter() - began
    if status != HTTPStatus.OK:
        return _Answer(status, error=f"it answered {status}", seconds=seconds)
    try:
        return _Answer(status, upstreams.ids(spec, body), seconds=seconds)
    except Refusal as wrong:
        return _Answer(status, error=wrong.message, seconds=seconds)


async def _key(upstreams: Upstreams, spec: UpstreamSpec, answer: _Answer) -> KeyVerdict:
    """Return what became of the key. Some tell their list to anybody: a key that is not needed proves nothing."""
    if answer.status in _NO_ENTRY:
        return KeyVerdict.REFUSED if spec.api_key else KeyVerdict.WANTED
    if answer.status != HTTPStatus.OK:
        return KeyVerdict.UNKNOWN if spec.api_key else KeyVerdict.NONE
    if spec.api_key is None:
        return KeyVerdict.NONE
    without = await _ask(upstreams, replace(spec, api_key=None))
    if without.status is None:
        return KeyVerdict.UNKNOWN
    return KeyVerdict.UNPROVED if without.status == HTTPStatus.OK else KeyVerdict.ACCEPTED


def _told(spec: UpstreamSpec, answer: _Answer, key: KeyVerdict) -> Json:
    has_own_list = bool(spec.models) and answer.status in _NO_LIST
    return {
        "version": VERSION,
        "name": spec.name,
        "base_url": spec.base_url,
        "api": spec.api.value,
        "ok": (answer.status == HTTPStatus.OK and not answer.error) or has_own_list,
        "status": answer.status,
        "error": answer.error,
        "key": key.value,
        "key_place": str(spec.api_key) if spec.api_key else "",
        "seconds": round(answer.seconds, 3) if answer.status else None,
        "models": list(answer.models),
        "not_listed": [each for each in spec.models if answer.models and each not in answer.models],
    }
