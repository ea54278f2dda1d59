"""``hal0 version``: which hal0 this is, and what it runs on."""

from __future__ import annotations

import json
import platform
import sys
from pathlib import Path

import hal0
from hal0.cli import show
from hal0.core.wire import VERSION


def version(*, as_json: bool) -> int:
    """Print the versions of hal0, Python and the kernel, and where this hal0 lies."""
    found = {
        "hal0": hal0.__version__,
        "python": platform.python_version(),
        "kernel": f"{platform.system()} {platform.release()} {platform.machine()}",
        "package": str(Path(hal0.__file__).parent),
        "interpreter": sys.executable,
    }
    if as_json:
        show.say([json.dumps({"version": VERSION, **found}, indent=2)])
    else:
        show.say(f"{key:<12} {value}" for key, value in found.items())
    return 0
