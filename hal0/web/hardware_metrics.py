"""What was sampled of the machine, on /metrics: memory, GPUs, and the disk of the models."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from hal0.core.facts import Fact, Unknown, known
from hal0.core.hardware import Disk, GpuMemory, Sample, pool_names
from hal0.loop.reconcile import Reconciler


class HardwareMetrics(Collector):
    """Renders the last pass's sample, and the disk as it was when ``look`` was last called."""

    def __init__(self, reconciler: Reconciler) -> None:
        self._reconciler = reconciler
        self._disk: Fact[Disk] = Unknown("not looked at yet")

    async def look(self) -> None:
        """Look at the disk of the models: no pass has a use for it."""
        self._disk = await self._reconciler.observer.hardware.disk(self._reconciler.snapshot.host.model_dir)

    def collect(self) -> Iterator[Metric]:
        """Yield what is known. What is not has no series."""
        sample = self._reconciler.observer.hardware.last
        yield _memory(sample)
        yield from _gpus(sample)
        yield _disk(known(self._disk))


def _memory(sample: Sample) -> Metric:
    family = GaugeMetricFamily("hal0_memory_bytes", "Memory of the machine", labels=["kind"])
    if memory := known(sample.memory):
        for kind in ("total", "available", "swap"):
            family.add_metric([kind], getattr(memory, kind))
    return family


def _gpus(sample: Sample) -> Iterator[Metric]:
    info = GaugeMetricFamily(
        "hal0_gpu_info", "A GPU of the machine", labels=["gpu", "vendor", "name", "driver", "pci", "pool"]
    )
    memory = GaugeMetricFamily("hal0_gpu_memory_bytes", "Memory of a GPU", labels=["gpu", "kind"])
    busy = GaugeMetricFamily("hal0_gpu_busy_ratio", "Share of the time in which a GPU computes", labels=["gpu"])
    for index, (gpu, pool) in enumerate(zip(sample.gpus, pool_names(sample.gpus), strict=True)):
        info.add_metric([str(index), gpu.vendor.value, gpu.name, gpu.driver, gpu.pci, pool], 1)
        for kind, size in _sizes(known(gpu.memory) if gpu.memory else None):
            memory.add_metric([str(index), kind], size)
        if gpu.busy is not None:
            busy.add_metric([str(index)], gpu.busy)
    yield from (info, memory, busy)


def _sizes(memory: GpuMemory | None) -> Iterator[tuple[str, int]]:
    if memory is None:
        return
    yield "vram", memory.vram
    if memory.vram_used is not None:
        yield "vram_used", memory.vram_used
    if memory.shared:
        yield "shared", memory.shared
        yield "shared_used", memory.shared_used


def _disk(disk: Disk | None) -> Metric:
    family = GaugeMetricFamily("hal0_model_disk_bytes", "The disk of the model directory", labels=["kind"])
    if disk:
        family.add_metric(["total"], disk.total)
        family.add_metric(["free"], disk.free)
    return family
