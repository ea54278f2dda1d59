"""/metrics: gauges read from the Snapshot when they are asked for, and what the loop and the requests have counted."""

from __future__ import annotations

from collections.abc import Iterator

from aiohttp import web
from prometheus_client import CollectorRegistry, disable_created_metrics, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from hal0.core.breaker import BreakerState
from hal0.core.schedule import Ground
from hal0.core.state import SlotState
from hal0.core.status import Snapshot
from hal0.dispatch.dispatcher import Dispatcher
from hal0.dispatch.measures import Measures
from hal0.dispatch.upstreams import Upstreams
from hal0.loop.counts import Counts, Restart, Result
from hal0.loop.reconcile import Reconciler
from hal0.web.hardware_metrics import HardwareMetrics

disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each counter, which nobody reads


class Metrics(Collector):
    """Renders the registry, with the current Snapshot in it."""

    def __init__(self, dispatcher: Dispatcher, measures: Measures) -> None:
        self._reconciler = dispatcher.reconciler
        self._dispatcher = dispatcher
        self._registry = CollectorRegistry()
        self._registry.register(self)
        self._registry.register(measures)
        self._hardware = HardwareMetrics(dispatcher.reconciler)
        self._registry.register(self._hardware)

    async def handle(self, _: web.Request) -> web.Response:
        """Answer a scrape."""
        self._dispatcher.recorder.flush()
        await self._hardware.look()
        text = generate_latest(self._registry)
        return web.Response(body=text, headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})

    def collect(self) -> Iterator[Metric]:
        """Yield what the Snapshot says, and what the loop has counted."""
        snapshot = self._reconciler.snapshot
        yield from _slots(snapshot)
        yield from _requests(self._reconciler)
        yield _upstreams(self._dispatcher.upstreams, snapshot)
        yield _drift(snapshot)
        yield _overrides(snapshot)
        yield _restarts(self._reconciler.counts, snapshot)
        yield _evictions(self._reconciler.counts, snapshot)
        yield from _memory(snapshot)
        yield from _passes(self._reconciler.counts)
        yield _applied(self._reconciler.store.applied)
        info = GaugeMetricFamily("hal0_config_info", "The manifests in force", labels=["revision", "generation"])
        info.add_metric([snapshot.revision, str(snapshot.generation)], 1)
        yield info
        age = self._reconciler.clock.now() - snapshot.at
        yield GaugeMetricFamily("hal0_observe_age_seconds", "Since the host was last looked at", value=age)


def _slots(snapshot: Snapshot) -> Iterator[Metric]:
    up = GaugeMetricFamily("hal0_slot_up", "Whether requests may be sent to a slot", labels=["slot"])
    state = GaugeMetricFamily("hal0_slot_state", "1 for the state that a slot is in", labels=["slot", "state"])
    memory = GaugeMetricFamily("hal0_slot_memory_bytes", "Memory of a slot's service", labels=["slot"])
    for name, slot in snapshot.slots.items():
        up.add_metric([name], float(slot.is_ready))
        for candidate in SlotState:
            state.add_metric([name, candidate.value], float(slot.state is candidate))
        if slot.service and slot.service.memory is not None:
            memory.add_metric([name], float(slot.service.memory))
    yield from (up, state, memory)


def _requests(reconciler: Reconciler) -> Iterator[Metric]:
    flight = GaugeMetricFamily("hal0_requests_in_flight", "Requests that an engine works on", labels=["slot"])
    queued = GaugeMetricFamily("hal0_requests_queued", "Requests that wait for a slot", labels=["slot"])
    uses = reconciler.demands.all
    for name in reconciler.snapshot.slots:
        use = uses.get(name)
        flight.add_metric([name], use.serving if use else 0)
        queued.add_metric([name], use.waiting if use else 0)
    yield from (flight, queued)


def _upstreams(upstreams: Upstreams, snapshot: Snapshot) -> Metric:
    up = GaugeMetricFamily("hal0_upstream_up", "Whether an upstream's circuit breaker is closed", labels=["upstream"])
    for name, spec in snapshot.upstreams.items():
        up.add_metric([name], float(upstreams.state(spec)[0] is BreakerState.CLOSED))
    return up


def _drift(snapshot: Snapshot) -> Metric:
    drift = GaugeMetricFamily("hal0_drift", "What was changed outside hal0 and is not healed", labels=["slot", "kind"])
    for change in snapshot.plan.changes:
        for kind in sorted({reason.field for reason in change.reasons if reason.drift}):
            drift.add_metric([change.slot, kind], 1)
    return drift


def _overrides(snapshot: Snapshot) -> Metric:
    overrides = GaugeMetricFamily("hal0_overrides", "What people asked of a slot by hand", labels=["slot", "aspect"])
    for found in snapshot.plan.overrides:
        overrides.add_metric([found.override.slot, found.override.aspect.value], 1)
    return overrides


def _restarts(counts: Counts, snapshot: Snapshot) -> Metric:
    restarts = CounterMetricFamily("hal0_slot_restarts_total", "Starts of a slot again", labels=["slot", "reason"])
    for name in snapshot.slots:
        for reason in Restart:
            restarts.add_metric([name, reason.value], counts.restarts[name, reason])
    return restarts


def _evictions(counts: Counts, snapshot: Snapshot) -> Metric:
    labels = ["slot", "reason"]
    evictions = CounterMetricFamily("hal0_evictions_total", "Stops of a slot to make room for another", labels=labels)
    for name in snapshot.slots:
        for ground in (Ground.MEMORY, Ground.EXCLUSIVE, Ground.IMAGE):
            evictions.add_metric([name, ground.value], counts.evictions[name, ground])
    return evictions


def _memory(snapshot: Snapshot) -> Iterator[Metric]:
    pools = GaugeMetricFamily("hal0_pool_bytes", "Memory that slots share out", labels=["pool", "kind"])
    for pool in snapshot.pools.values():
        pools.add_metric([pool.name, "total"], pool.total)
        pools.add_metric([pool.name, "claimed"], pool.claimed)
        if pool.used is not None:
            pools.add_metric([pool.name, "used"], pool.used)
    claims = GaugeMetricFamily("hal0_slot_claim_bytes", "What a slot takes of its pool", labels=["slot", "source"])
    for name, slot in snapshot.slots.items():
        if slot.claim and slot.claim.bytes is not None:
            claims.add_metric([name, slot.claim.source.value], slot.claim.bytes)
    yield from (pools, claims)


def _passes(counts: Counts) -> Iterator[Metric]:
    runs = CounterMetricFamily("hal0_reconcile_runs_total", "Passes of the loop", labels=["result"])
    for result in Result:
        runs.add_metric([result.value], counts.passes[result])
    yield runs
    duration = HistogramMetricFamily("hal0_reconcile_duration_seconds", "From a pass's begin to its plan under way")
    duration.add_metric([], counts.durations.buckets(), counts.durations.total)
    yield duration


def _applied(at: float | None) -> Metric:
    applied = GaugeMetricFamily("hal0_last_apply_timestamp_seconds", "When changes were last carried out in full")
    if at is not None:
        applied.add_metric([], at)
    return applied
