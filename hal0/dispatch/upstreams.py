"""Upstreams: what each of them lists, whether it may be asked now, and how it is addressed."""

from __future__ import annotations

import asyncio
import json
import logging
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from urllib.parse import urlsplit

from hal0.core import breaker
from hal0.core.breaker import Breaker, BreakerState
from hal0.core.endpoints import Endpoint
from hal0.core.routes import Listing
from hal0.core.schema import UpstreamApi
from hal0.core.spec import UpstreamSpec
from hal0.core.wire import VERSION, Json
from hal0.dispatch.answer import Sink, Unchunked
from hal0.dispatch.connection import Collector, Connection, EngineLost
from hal0.dispatch.envelope import Refusal
from hal0.dispatch.heads import Header, RequestHead, lines
from hal0.dispatch.pool import EngineUnreachable, Pool, Tcp, tcp
from hal0.host.secrets import SecretMissing, Secrets
from hal0.loop.reconcile import Reconciler

_log = logging.getLogger(__name__)
_LIST_PATIENCE = 10.0
_PREFETCH_PATIENCE = 5.0
_LOOK = 5.0
_RETRY_LIST = 30.0
_LARGEST_LIST = 8 * 2**20
_MOST_MODELS = 10_000
_LONGEST_ID = 256
_ANTHROPIC_VERSION = b"2023-06-01"
_FAILING = 500


@dataclass
class Upstreams:
    """The catalogue and the circuit breakers. The specs are the Snapshot's; nothing of them is kept here."""

    reconciler: Reconciler
    pool: Pool
    secrets: Secrets = field(default_factory=Secrets)
    catalogue: Mapping[str, Listing] = field(default_factory=dict)
    _asked: dict[str, tuple[UpstreamSpec, float]] = field(default_factory=dict)
    _fetches: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    _breakers: dict[str, Breaker] = field(default_factory=dict)

    # What they have.

    async def refresh(self) -> None:
        """Keep the lists fresh, for ever. What an upstream that fails said before stays in force."""
        while True:
            for spec in self._specs().values():
                if not spec.models and self._is_due(spec):
                    self._fetch(spec)
            await asyncio.sleep(_LOOK)

    def _is_due(self, spec: UpstreamSpec) -> bool:
        asked, at = self._asked.get(spec.name, (spec, -math.inf))
        if asked != spec:
            return True
        wait = _RETRY_LIST if self._listing(spec).error else spec.refresh
        return self._now() - at >= min(wait, spec.refresh)

    async def prefetch(self, cold: Iterable[UpstreamSpec]) -> None:
        """Ask upstreams for their lists, all at once, each of them once however many requests want it."""
        tasks = [self._fetch(spec) for spec in cold]
        await asyncio.wait(tasks, timeout=_PREFETCH_PATIENCE)
        for spec in cold:
            if self._listing(spec) == Listing():
                self._note(spec, Listing(error="it did not tell in time", address=spec.base_url))

    def close(self) -> None:
        """End what is under way."""
        for task in self._fetches.values():
            task.cancel()

    def _fetch(self, spec: UpstreamSpec) -> asyncio.Task[None]:
        task = self._fetches.get(spec.name)
        if task is None:
            self._asked[spec.name] = (spec, self._now())
            task = self._fetches[spec.name] = asyncio.create_task(self._ask_for_list(spec))
            task.add_done_callback(lambda _: self._fetches.pop(spec.name, None))
        return task

    async def _ask_for_list(self, spec: UpstreamSpec) -> None:
        try:
            models = await asyncio.wait_for(self.list_models(spec), _LIST_PATIENCE)
        except (Refusal, EngineUnreachable, EngineLost, TimeoutError) as error:
            why = str(error) or "it did not answer in time"
            _log.warning("upstream %s does not tell its models: %s", spec.name, why)
            self._note(spec, Listing(self._listing(spec).models, why, spec.base_url))
        else:
            self._note(spec, Listing(models, address=spec.base_url))

    def _listing(self, spec: UpstreamSpec) -> Listing:
        """Return what is known of an upstream's models, at the address that it has now."""
        listing = self.catalogue.get(spec.name, Listing())
        return listing if listing.address == spec.base_url else Listing()

    def _note(self, spec: UpstreamSpec, listing: Listing) -> None:
        known = self._specs()
        kept = {name: old for name, old in self.catalogue.items() if name in known}
        if known.get(spec.name) == spec:
            self.catalogue = {**kept, spec.name: listing}

    async def list_models(self, spec: UpstreamSpec) -> tuple[str, ...]:
        """Ask an upstream for the ids of its models. Raises what asking may raise, ``Refusal`` for a bad answer."""
        status, body = await self.ask_for_list(spec)
        if status != HTTPStatus.OK:
            raise self._broken(spec, f"it answered {status}")
        return self.ids(spec, body)

    async def ask_for_list(self, spec: UpstreamSpec) -> tuple[int, bytes]:
        """Ask an upstream for its models, and return the answer's status and body. Raises what asking may raise."""
        query = "?limit=1000" if spec.api is UpstreamApi.ANTHROPIC else ""
        start = f"GET {base_path(spec)}/models{query} HTTP/1.1\r\naccept: application/json\r\n".encode()
        origin = origin_of(spec)
        connection = await self.pool.ask(origin, start + lines(self.own_headers(spec)) + b"\r\n", gap=_LIST_PATIENCE)
        try:
            return connection.status, await whole_body(connection, _LARGEST_LIST)
        finally:
            self.pool.give_back(origin, connection)

    def ids(self, spec: UpstreamSpec, body: bytes) -> tuple[str, ...]:
        """Return the ids of the models that an upstream lists. Raises ``Refusal`` where that is no list."""
        try:
            data = json.loads(body)["data"]
            ids = [entry["id"] for entry in data]
        except (ValueError, KeyError, TypeError, RecursionError):
            raise self._broken(spec, "its list of models is not one") from None
        good = (each for each in ids if isinstance(each, str) and each.isprintable() and 0 < len(each) <= _LONGEST_ID)
        return tuple(dict.fromkeys(good))[:_MOST_MODELS]

    # Whether and how to ask one.

    def check(self, spec: UpstreamSpec) -> None:
        """Note that an upstream is about to be asked. Raises ``Refusal`` while its circuit breaker is open."""
        now, before = self._now(), self._breakers.get(spec.name)
        if before is None:
            return
        if not breaker.allows(before, spec.breaker, now):
            wait = breaker.retry_in(before, spec.breaker, now)
            message = f"upstream {spec.name} keeps failing and is left alone for {wait:.0f} s: {before.error}"
            raise Refusal(503, "upstream.unavailable", message, retry_after=max(1.0, min(60.0, wait)))
        self._breakers[spec.name] = breaker.begun(before, spec.breaker, now)

    def succeeded(self, spec: UpstreamSpec) -> None:
        """Note that an upstream answered."""
        self._breakers[spec.name] = breaker.succeeded()

    def failed(self, spec: UpstreamSpec, error: str) -> None:
        """Note that an upstream did not answer, or with a failure of its own."""
        before = self._breakers.get(spec.name, Breaker())
        self._breakers[spec.name] = breaker.failed(before, spec.breaker, self._now(), error)

    def answered(self, spec: UpstreamSpec, status: int) -> None:
        """Note the status of an upstream's answer."""
        if status >= _FAILING:
            self.failed(spec, f"it answered {status}")
        else:
            self.succeeded(spec)

    def state(self, spec: UpstreamSpec) -> tuple[BreakerState, str]:
        """Return how an upstream's breaker stands, and its last error."""
        found = self._breakers.get(spec.name, Breaker())
        return breaker.state(found, spec.breaker, self._now()), found.error

    def own_headers(self, spec: UpstreamSpec, asked: RequestHead | None = None) -> list[Header]:
        """Return the headers that hal0 sends an upstream: its address, its key, and those of its manifest.

        Anthropic's API wants a version: the client's own, where the request to pass on has one. Raises ``Refusal``.
        """
        headers = [(b"host", urlsplit(spec.base_url).netloc.encode())]
        headers += [(name.lower().encode(), value.encode()) for name, value in spec.headers.items()]
        said = {name for name, _ in headers} | (asked.fields.keys() if asked else set())
        if spec.api is UpstreamApi.ANTHROPIC and b"anthropic-version" not in said:
            headers.append((b"anthropic-version", _ANTHROPIC_VERSION))
        if spec.api_key is None:
            return headers
        try:
            key = self.secrets.read(spec.api_key).encode()
        except SecretMissing as error:
            raise self._broken(spec, f"{error} {error.hint}") from None
        is_own = spec.api is UpstreamApi.ANTHROPIC
        return [*headers, (b"x-api-key", key) if is_own else (b"authorization", b"Bearer " + key)]

    def as_json(self) -> Json:
        """Return how each upstream is: its breaker, its last error, what it lists. Keys are not read."""
        rows = []
        for name, spec in self._specs().items():
            state, error = self.state(spec)
            listing = self._listing(spec)
            row = {"name": name, "base_url": spec.base_url, "api": spec.api.value, "prefix": spec.prefix}
            row |= {"breaker": state.value, "error": error, "list_error": listing.error}
            rows.append(row | {"models": list(spec.models or listing.models)})
        return {"version": VERSION, "upstreams": rows}

    @staticmethod
    def _broken(spec: UpstreamSpec, why: str) -> Refusal:
        return Refusal(502, "upstream.failed", f"upstream {spec.name}: {why}")

    def _specs(self) -> Mapping[str, UpstreamSpec]:
        return self.reconciler.snapshot.upstreams

    def _now(self) -> float:
        return self.reconciler.clock.now()


def origin_of(spec: UpstreamSpec) -> Tcp:
    """Return where an upstream is reached."""
    parts = urlsplit(spec.base_url)
    tls = parts.scheme == "https"
    port = parts.port or (443 if tls else 80)
    return tcp(parts.hostname or "", port, tls=tls, connect_timeout=spec.connect_timeout)


def base_path(spec: UpstreamSpec) -> str:
    """Return where an upstream's API begins, without a slash at the end."""
    return urlsplit(spec.base_url).path.rstrip("/")


def path_of(spec: UpstreamSpec, endpoint: Endpoint) -> str:
    """Return an upstream's path of an endpoint: its base address stands for ``/v1``."""
    return base_path(spec) + endpoint.path.removeprefix("/v1")


async def whole_body(connection: Connection, limit: int) -> bytes:
    """Return an answer's whole body without its framing. Raises ``EngineLost`` where it breaks off or is too large."""
    collector = Collector(limit)
    sink: Sink = Unchunked(collector) if connection.head and connection.head.is_chunked else collector
    await connection.relay(sink)
    return collector.body
