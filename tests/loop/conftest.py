from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import scenes
from scenes import Scene


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    async with scenes.scene(tmp_path) as made:
        yield made
