"""``Hardware`` of this machine: its memory and GPUs, sampled, and all else on request."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Generic, TypeVar

from hal0.core import hardware
from hal0.core.facts import Fact, Known, Unknown
from hal0.core.hardware import NOT_SAMPLED, Disk, Gpu, Machine, Platform, Sample, Vendor
from hal0.core.pools import Pool
from hal0.host import drm, machine, ram
from hal0.host.nvml import Nvml
from hal0.host.ports import Clock
from hal0.host.threads import in_thread

T = TypeVar("T")
_KEPT_S = 2.0
_DEADLINE_S = 2.0


class HostHardware:
    """``Hardware`` of this machine. A sample is kept for two seconds: a burst of passes asks once.

    ``root`` stands before /proc, /sys and /dev. ``is_own_group``: slots run in hal0's own control group.
    """

    def __init__(self, clock: Clock, *, is_own_group: bool, root: Path = Path("/")) -> None:
        self.last = NOT_SAMPLED
        self._clock = clock
        self._is_own_group = is_own_group
        self._root = root
        self._nvml = Nvml(root)
        self._nvidia, self._cards = _Gpus(_Source("NVML")), _Gpus(_Source("/sys/class/drm"))
        self._platform, self._disk = _Source[Platform]("/proc and /sys"), _Source[Disk]("the disk")
        self._sampled_at: float | None = None

    async def pools(self, *, fresh: bool = False) -> Mapping[str, Fact[Pool]]:
        """Return the memory pools by name."""
        return hardware.pools(await self._sample(fresh=fresh))

    async def machine(self, models: str) -> Machine:
        """Return everything that is known of this machine."""
        sample = await self._sample(fresh=False)
        platform = await self._platform.ask(lambda: Known(machine.platform(self._root)))
        return Machine(platform, sample, await self.disk(models))

    async def disk(self, folder: str) -> Fact[Disk]:
        """Return the disk of a folder, which may be far away and not answer."""
        return await self._disk.ask(lambda: machine.disk(folder, self._root))

    async def _sample(self, *, fresh: bool) -> Sample:
        now = self._clock.now()
        if fresh or self._sampled_at is None or now - self._sampled_at >= _KEPT_S:
            nvidia, cards = await asyncio.gather(
                self._nvidia.ask(self._nvml.gpus), self._cards.ask(lambda: Known(drm.gpus(self._root)))
            )
            memory = ram.memory(self._root)
            pool = ram.pool(memory, self._root, is_own_group=self._is_own_group)
            self.last = Sample(memory, pool, hardware.joined(nvidia, _or_one(cards)))
            self._sampled_at = now
        return self.last


def _or_one(cards: Fact[tuple[Gpu, ...]]) -> tuple[Gpu, ...]:
    """Return the cards, or one of which nothing is known: unknown is never read as absent."""
    return cards.value if isinstance(cards, Known) else (Gpu(Vendor.UNKNOWN, "GPU", memory=cards),)


@dataclass
class _Source(Generic[T]):
    """A driver or a disk, asked in a thread: one that hangs must not hang hal0, nor collect threads."""

    name: str
    _is_asked: bool = field(default=False, init=False)
    _answer: asyncio.Task[Fact[T]] | None = field(default=None, init=False)

    async def ask(self, work: Callable[[], Fact[T]]) -> Fact[T]:
        """Return the answer, or that there is none in time. Who asks while a question is open shares its answer.

        A question that was given no answer in time stays open, and none is asked beside it.
        """
        if self._answer is None or self._answer.done():
            if self._is_asked:
                return self._late
            self._is_asked = True
            self._answer = asyncio.create_task(self._answered(work))
        return await asyncio.shield(self._answer)

    @property
    def _late(self) -> Unknown:
        return Unknown(f"{self.name}: no answer in {_DEADLINE_S:g} s")

    async def _answered(self, work: Callable[[], Fact[T]]) -> Fact[T]:
        def asked() -> Fact[T]:
            try:
                return work()
            finally:
                self._is_asked = False

        try:
            return await in_thread(asked, _DEADLINE_S)
        except TimeoutError:
            return self._late


@dataclass
class _Gpus:
    """The GPUs of one source. Those that were seen once stay, with unknown memory, while it does not answer."""

    source: _Source[tuple[Gpu, ...]]
    _seen: tuple[Gpu, ...] = field(default=(), init=False)

    async def ask(self, work: Callable[[], Fact[tuple[Gpu, ...]]]) -> Fact[tuple[Gpu, ...]]:
        found = await self.source.ask(work)
        if isinstance(found, Known):
            self._seen = found.value
        elif self._seen:
            return Known(tuple(_silent(gpu, found) for gpu in self._seen))
        return found


def _silent(gpu: Gpu, why: Unknown) -> Gpu:
    return replace(gpu, memory=None if gpu.memory is None else why, busy=None)
