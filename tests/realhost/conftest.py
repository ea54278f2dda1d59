"""Fixtures that boot a box, or skip with the reason why this machine cannot."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from . import images, requirements
from .box import Box

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .session import UserSession

REPOSITORY = Path(__file__).resolve().parents[2]
# Readable for users of the box too, which the cache in root's home directory is not.
MODELS = Path("/srv/hal0-test-models")


@dataclass(frozen=True)
class Engine:
    """What it takes to run a real engine in the box: an image's tag and a model file's path in the box."""

    image: str
    model: Path


def hidden_paths(*paths: Path) -> dict[Path, Path]:
    """Those paths which a box does not see by itself: its /tmp and /run are its own, and other mounts are left out."""
    mounts = {Path(line.split()[1]) for line in Path("/proc/self/mounts").read_text().splitlines()} - {Path("/")}
    covered = mounts | {Path("/tmp"), Path("/run")}  # noqa: S108 - compared, not written to
    return {path: path for path in paths if path.exists() and not covered.isdisjoint({path, *path.parents})}


@pytest.fixture(scope="session")
def realhost_cache() -> Path:
    """The directory for images, models and podman's storage; skips where this machine cannot host a box."""
    reasons = requirements.missing()
    if reasons:
        pytest.skip(f"no real host for tests here: {'; '.join(reasons)}")
    requirements.install()
    cache = images.default_cache().resolve()
    cache.mkdir(parents=True, exist_ok=True)
    return cache


@pytest.fixture(scope="session")
def realhost_binds(realhost_cache: Path) -> dict[Path, Path]:
    """Binds that show a box the models, and the checkout and the interpreter where it would not see them."""
    models = realhost_cache / "models"
    models.mkdir(exist_ok=True)
    return {models: MODELS, **hidden_paths(REPOSITORY, Path(sys.prefix), Path(sys.base_prefix))}


@pytest.fixture(scope="module")
def box(realhost_cache: Path, realhost_binds: dict[Path, Path], worker_id: str) -> Iterator[Box]:
    """A freshly booted box of one test module: no containers, cached images. Runners side by side have one each."""
    state = "state" if worker_id in {"master", "gw0"} else f"state-{worker_id}"
    with Box.boot(realhost_cache / state, realhost_binds) as booted:
        yield booted


@pytest.fixture(scope="module")
def engine(box: Box, realhost_cache: Path) -> Engine:
    """An image with real engines in the box's podman, and a real model."""
    images.load(box, images.engine_image(realhost_cache))
    return Engine(images.ENGINE_TAG, MODELS / images.model(realhost_cache).name)


@pytest.fixture(scope="module")
def tester(box: Box) -> UserSession:
    """A user of the box with a systemd user manager and rootless podman."""
    return box.user_session("tester")


@pytest.fixture(scope="module")
def rootless_engine(tester: UserSession, realhost_cache: Path) -> Engine:
    """The same image in the user's own podman, and the model."""
    images.load(tester, images.engine_image(realhost_cache))
    return Engine(images.ENGINE_TAG, MODELS / images.model(realhost_cache).name)
