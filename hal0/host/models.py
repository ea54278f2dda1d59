"""Model files on disk."""

from __future__ import annotations

import stat
from pathlib import Path

from hal0.core.facts import Fact, Known, Unknown


def is_file(path: str) -> Fact[bool]:
    """Return whether a model's file is there; unknown where its folder can't be looked into."""
    try:
        return Known(stat.S_ISREG(Path(path).stat().st_mode))
    except (FileNotFoundError, NotADirectoryError):
        return Known(value=False)
    except OSError as error:
        return Unknown(f"{path}: {error.strerror}")
