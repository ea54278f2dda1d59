"""The programs that the measurement needs: two small ones that are compiled here, and nginx."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from bench.measure import Skipped

_SOURCES = Path(__file__).parent
_COMPILERS = ("cc", "gcc", "clang")
_ADMIN_PATH = "/usr/local/sbin:/usr/sbin:/sbin"
"""Where Debian has nginx, and an ordinary user's PATH has no look."""


@dataclass(frozen=True)
class Tools:
    """``mock`` is the engine, ``loadgen`` the client; their sources say how they are called."""

    mock: Path
    loadgen: Path
    nginx: Path


def make(folder: Path) -> Tools:
    """Compile into a folder. Raises ``Skipped`` where something is missing: nothing is fetched."""
    nginx = shutil.which("nginx") or shutil.which("nginx", path=_ADMIN_PATH)
    if nginx is None:
        raise Skipped("no nginx here (Debian: apt-get install nginx-light)")
    compiler = next(filter(None, map(shutil.which, _COMPILERS)), None)
    if compiler is None:
        raise Skipped("no C compiler here (Debian: apt-get install gcc libc6-dev)")
    return Tools(_compile(compiler, "mock", folder), _compile(compiler, "loadgen", folder), Path(nginx))


def _compile(compiler: str, name: str, folder: Path) -> Path:
    program = folder / name
    argv = [compiler, "-O2", "-w", "-o", str(program), str(_SOURCES / f"{name}.c")]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Skipped(f"{compiler} can't compile {name}.c: {done.stderr.strip()[:300]}")
    return program
