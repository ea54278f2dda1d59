"""The fixtures of tests of /v1 and /api: an engine, a scene, and hal0 served over both."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import plane
import pytest
import scenes
from plane import Bench, Engine
from scenes import Scene


@pytest.fixture
async def engine() -> AsyncIterator[Engine]:
    async with plane.engine_on() as made:
        yield made


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    async with scenes.scene(tmp_path) as made:
        yield made


@pytest.fixture
async def bench(scene: Scene, engine: Engine) -> AsyncIterator[Bench]:
    """One slot that is ready, with a real engine behind it."""
    async with plane.bench_of(scene, engine, aliases="[gpt-4o]", context_size=4096) as made:
        assert plane.ready(scene)()
        yield made


@pytest.fixture(params=["first", "next"])
async def either(request: pytest.FixtureRequest, bench: Bench) -> Bench:
    """A bench on which the test's request is the engine's first, and one on which it finds a connection there."""
    if request.param == "next":
        await bench.warm()
    return bench
