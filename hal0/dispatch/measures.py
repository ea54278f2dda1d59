"""What is counted of requests. Labels are names of manifests, known paths and codes, never a client's text."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from hal0.core.histogram import Histogram
from hal0.dispatch.record import Record
from hal0.dispatch.usage import Usage

_SECONDS = (
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
    240.0,
    480.0,
    960.0,
)
_FIRST = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0)
_BETWEEN = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)
_LOAD = (0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1200.0)


class _OfSlot:
    """The measures of one slot or upstream."""

    __slots__ = ("between", "duration", "first", "generated", "load", "prompt", "queue", "requests")

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, str]] = Counter()
        self.prompt = self.generated = 0
        self.duration, self.queue = Histogram.of(_SECONDS), Histogram.of(_SECONDS)
        self.first, self.between = Histogram.of(_FIRST), Histogram.of(_BETWEEN)
        self.load = Histogram.of(_LOAD)


class Measures(Collector):
    """Counters and histograms of /v1; ``slot`` is a slot's or an upstream's name. Buckets are vLLM's, in seconds."""

    def __init__(self) -> None:
        self._slots: defaultdict[str, _OfSlot] = defaultdict(_OfSlot)

    def loaded(self, slot: str, seconds: float) -> None:
        """Count one load of a slot."""
        self._slots[slot].load.observe(seconds)

    def take(self, record: Record, used: Usage) -> None:
        """Count one request that has ended."""
        slot = self._slots[record.slot]
        slot.requests[record.endpoint, str(record.status or record.outcome)] += 1
        slot.duration.observe(record.ended - record.began)
        slot.queue.observe(record.queued)
        slot.prompt += used.prompt_tokens or 0
        slot.generated += used.completion_tokens or 0
        if record.is_stream and record.first:
            slot.first.observe(record.first - record.began)
            if used.completion_tokens and used.completion_tokens > 1 and record.outcome == "ok":
                slot.between.observe((record.last - record.first) / (used.completion_tokens - 1))

    def collect(self) -> Iterator[Metric]:
        """Yield what was counted so far."""
        requests = CounterMetricFamily("hal0_requests_total", "Requests of /v1", labels=["slot", "endpoint", "code"])
        prompt = CounterMetricFamily("hal0_prompt_tokens_total", "Tokens of prompts", labels=["slot"])
        generated = CounterMetricFamily("hal0_generation_tokens_total", "Tokens generated", labels=["slot"])
        for name, slot in self._slots.items():
            for (endpoint, code), count in slot.requests.items():
                requests.add_metric([name, endpoint, code], count)
            if name:  # what was refused had no tokens
                prompt.add_metric([name], slot.prompt)
                generated.add_metric([name], slot.generated)
        yield from (requests, prompt, generated)
        for attribute, name, text in _HISTOGRAMS:
            family = HistogramMetricFamily(name, text, labels=["slot"])
            for slot_name, slot in self._slots.items():
                histogram: Histogram = getattr(slot, attribute)
                family.add_metric([slot_name], histogram.buckets(), histogram.total)
            yield family


_HISTOGRAMS = (
    ("duration", "hal0_request_duration_seconds", "From request to last byte"),
    ("queue", "hal0_request_queue_seconds", "From request to its going to the engine"),
    ("first", "hal0_time_to_first_token_seconds", "From request to a stream's first byte"),
    ("between", "hal0_inter_token_latency_seconds", "Mean time between a request's tokens"),
    ("load", "hal0_slot_load_seconds", "From start to ready"),
)
