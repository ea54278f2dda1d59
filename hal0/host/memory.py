"""Memory pools of this machine: its own memory, and that of its GPUs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from hal0.core.facts import Fact, Known, Unknown
from hal0.core.pools import GPU, RAM, Pool
from hal0.host import amdgpu, nvidia, ram
from hal0.host.ports import Clock
from hal0.host.threads import in_thread

_KEPT_S = 2.0
_DEADLINE_S = 2.0
_GRACE_S = 0.5  # for a program that was told to end at its deadline


class HostMemory:
    """``Hardware`` of this machine. An answer is kept for two seconds: a burst of passes asks once.

    ``root`` stands before /proc, /sys and /dev. ``is_own_group``: slots run in hal0's own control group.
    """

    def __init__(self, clock: Clock, *, is_own_group: bool, root: Path = Path("/")) -> None:
        self._clock = clock
        self._is_own_group = is_own_group
        self._root = root
        self._makers = (
            _Maker("nvidia-smi", lambda: nvidia.pools(root, _DEADLINE_S)),
            _Maker("amdgpu", lambda: amdgpu.pools(root)),
        )
        self._kept: tuple[float, Mapping[str, Fact[Pool]]] | None = None

    async def pools(self, *, fresh: bool = False) -> Mapping[str, Fact[Pool]]:
        """Return the pools by name: ``ram``, and ``gpu``, or ``gpu0``, ``gpu1`` and so on where there are several."""
        now = self._clock.now()
        if fresh or self._kept is None or now - self._kept[0] >= _KEPT_S:
            gpus = [gpu for found in await asyncio.gather(*(maker.ask() for maker in self._makers)) for gpu in found]
            host = ram.pool(self._root, is_own_group=self._is_own_group)
            self._kept = now, {RAM: host} | _named(gpus)
        return self._kept[1]


def _named(gpus: list[Fact[Pool]]) -> dict[str, Fact[Pool]]:
    names = [GPU] if len(gpus) == 1 else [f"{GPU}{index}" for index in range(len(gpus))]
    return {
        name: Known(replace(gpu.value, name=name)) if isinstance(gpu, Known) else gpu
        for name, gpu in zip(names, gpus, strict=True)
    }


@dataclass
class _Maker:
    """The GPUs of one maker, asked in a thread: a driver that hangs must not hang hal0, nor collect threads."""

    name: str
    pools: Callable[[], list[Fact[Pool]]]
    _count: int = 0
    _is_asked: bool = field(default=False, init=False)

    async def ask(self) -> list[Fact[Pool]]:
        """Return the GPUs' memory. GPUs that were seen once stay, unknown, while their driver does not answer."""
        found = await self._answer()
        if len(found) == 1 and isinstance(found[0], Unknown):
            return found * max(1, self._count)
        self._count = len(found)
        return found

    async def _answer(self) -> list[Fact[Pool]]:
        late = Unknown(f"{self.name}: no answer in {_DEADLINE_S:g} s")
        if self._is_asked:
            return [late]
        self._is_asked = True
        try:
            return await in_thread(self._ask, _DEADLINE_S + _GRACE_S)
        except TimeoutError:
            return [late]

    def _ask(self) -> list[Fact[Pool]]:
        try:
            return self.pools()
        finally:
            self._is_asked = False
