"""What is counted of requests. Labels are slot names, known paths and codes, never a client's text."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_BUCKETS = (
    0.01,
    0.05,
    0.1,
    0.3,
    0.5,
    0.8,
    1.0,
    1.5,
    2.0,
    2.5,
    5.0,
    10.0,
    15.0,
    20.0,
    30.0,
    40.0,
    50.0,
    60.0,
    120.0,
    600.0,
)


class Measures:
    """Counters and histograms of /v1."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._requests = Counter(
            "hal0_requests_total", "Requests of /v1", ["slot", "endpoint", "code"], registry=registry
        )
        self._duration = Histogram(
            "hal0_request_duration_seconds", "From request to last byte", ["slot"], buckets=_BUCKETS, registry=registry
        )
        self._in_flight = Gauge(
            "hal0_requests_in_flight", "Requests that an engine works on", ["slot"], registry=registry
        )

    def request(self, slot: str, endpoint: str, code: int, seconds: float) -> None:
        """Count one request that has ended."""
        self._requests.labels(slot, endpoint, str(code)).inc()
        self._duration.labels(slot).observe(seconds)

    @contextmanager
    def in_flight(self, slot: str) -> Iterator[None]:
        """Count a request while an engine works on it."""
        with self._in_flight.labels(slot).track_inprogress():
            yield
