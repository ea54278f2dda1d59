"""Real child processes of tiny scripts, for the tests of the process runtime."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import TYPE_CHECKING

import pytest

from hal0.core.definition import stamp
from hal0.core.facts import Known
from hal0.core.launch import hash_of
from hal0.host import process_table as table
from hal0.host.process_unit import RestartPolicy

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hal0.core.observed import Instance, Service
    from hal0.host.process import ProcessRuntime

DEADLINE = 60.0
QUICK = RestartPolicy(first=0.001, cap=0.004)

SLEEPS = "import os, time; print('pid', os.getpid(), flush=True); time.sleep(3600)"
CRASHES = "import os, sys; print('pid', os.getpid(), flush=True); sys.exit(7)"
DEAF = (
    "import os, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
    "print('pid', os.getpid(), flush=True); time.sleep(3600)"
)


def script(code: str) -> list[str]:
    return [sys.executable, "-S", "-c", code]


def definition(
    argv: Sequence[str],
    *,
    slot: str = "a",
    env: dict[str, str] | None = None,
    stop_timeout: float = 20.0,
) -> str:
    pairs = "".join(f"{key} = {json.dumps(value)}\n" for key, value in (env or {}).items())
    body = f"[process]\nargv = {json.dumps(list(argv))}\nstop_timeout = {stop_timeout}\n\n[process.env]\n{pairs}"
    return stamp(body, slot=slot, spec_hash=hash_of(argv, env or {}), generation=1)


async def put(runtime: ProcessRuntime, argv: Sequence[str], *, slot: str = "a", **more: object) -> None:
    await runtime.write(slot, definition(argv, slot=slot, **more))  # type: ignore[arg-type]
    await runtime.reload()


async def until(what: Callable[[], object]) -> None:
    end = time.monotonic() + DEADLINE
    while not what():
        if time.monotonic() > end:
            pytest.fail(f"never came true: {what}")
        await asyncio.sleep(0.005)


async def service(runtime: ProcessRuntime, slot: str = "a") -> Service:
    fact = (await runtime.observe({}, only=frozenset({slot})))[slot].service
    assert isinstance(fact, Known)
    assert fact.value is not None
    return fact.value


async def instance(runtime: ProcessRuntime, slot: str = "a") -> Instance | None:
    fact = (await runtime.observe({}, only=frozenset({slot})))[slot].instance
    assert isinstance(fact, Known)
    return fact.value


async def pids(runtime: ProcessRuntime, slot: str = "a") -> list[int]:
    """Return the pids that the slot's children and their children wrote to the log, oldest first."""
    lines = await runtime.logs(slot, lines=1000)
    return [int(line.split()[1]) for line in lines if line.startswith("pid ")]


async def written(runtime: ProcessRuntime, count: int, slot: str = "a") -> list[int]:
    """Wait until so many pids are in the log."""
    end = time.monotonic() + DEADLINE
    while len(found := await pids(runtime, slot)) < count:
        if time.monotonic() > end:
            pytest.fail(f"only {found} of {count}")
        await asyncio.sleep(0.005)
    return found


def is_dead(pid: int) -> bool:
    return table.start_time(pid) is None
