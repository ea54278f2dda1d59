"""What the commands are told: a value that costs no import."""

from __future__ import annotations

import os
import pwd
from dataclasses import dataclass
from pathlib import Path

_LONGEST_NAME = 64


@dataclass(frozen=True, slots=True)
class Options:
    """What plan, apply and the listing commands are told."""

    path: Path | None = None
    limit: list[str] | None = None
    prune_all: bool = False
    runtime: str = "auto"
    scope: str | None = None
    locked: bool = False


def who() -> str:
    """Return the name of whoever runs this command, behind sudo too."""
    if name := os.environ.get("SUDO_USER"):
        return name[:_LONGEST_NAME]
    try:
        return pwd.getpwuid(os.getuid()).pw_name[:_LONGEST_NAME]
    except KeyError:
        return f"uid {os.getuid()}"
