"""A booted host for what is measured there, with what it needs from this machine."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench import report
from bench.measure import Skipped
from realhost import requirements
from realhost.box import Box, BoxError
from realhost.conftest import MODELS, REPOSITORY, hidden_paths
from realhost.host import Host
from realhost.images import default_cache

_INSIDE = str(Path(__file__).with_name("inside.py"))
_PATIENCE_S = 300.0


@contextmanager
def booted() -> Iterator[tuple[Box, Path]]:
    """Boot a box with podman's storage of the benchmarks; yield it and the cache of images and models.

    Raises ``Skipped`` where this machine can't. The cached models are in the box's ``MODELS``.
    """
    if reasons := requirements.missing():
        raise Skipped(f"no real host here: {'; '.join(reasons)}")
    requirements.install()
    cache = default_cache().resolve()
    (cache / "models").mkdir(parents=True, exist_ok=True)
    binds = {cache / "models": MODELS, **hidden_paths(REPOSITORY, Path(sys.prefix), Path(sys.base_prefix))}
    with Box.boot(cache / "state-bench", binds) as box:
        report.note(f"booted a host in {box.boot_seconds:.1f} s")
        try:
            yield box, cache
        except BoxError as error:
            raise RuntimeError(f"{error}\nthe journal:\n{box.journal('-n', '80')}") from error


def inside(host: Host, *words: str, text: str = "") -> Any:
    """Run the program that measures from within; ``text`` is its stdin."""
    return json.loads(host.shell.run(sys.executable, _INSIDE, *words, input=text, timeout=_PATIENCE_S).stdout)
