from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from hypothesis import settings

# A deadline for an example would be a timed assert.
settings.register_profile("hal0", deadline=None)
settings.load_profile("hal0")

# Who starts the tests in the background of a shell has them ignore it, and so all that they start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

REPO = Path(__file__).resolve().parents[1]
MODEL = REPO / ".cache" / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf"


@pytest.fixture(scope="session")
def model_path() -> Path:
    path = Path(os.environ.get("HAL0_TEST_MODEL") or MODEL)
    if not path.is_file():
        pytest.skip(f"no model at {path}: run `make model`, or name one in HAL0_TEST_MODEL")
    return path
