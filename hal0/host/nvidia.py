"""Memory of NVIDIA's GPUs, as nvidia-smi tells it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from hal0.core.facts import Fact, Known, Unknown
from hal0.core.pools import Pool

_QUERY = ("--query-gpu=memory.total,memory.used", "--format=csv,noheader,nounits")
_FURTHER = ("/usr/local/nvidia/bin", "/usr/lib/wsl/lib")
"""Where container toolkits and WSL put the program, outside of a service's PATH."""
_MIB = 2**20


def pools(root: Path, limit: float) -> list[Fact[Pool]]:
    """Return the memory of each GPU, in the driver's order; nothing where there is no driver. ``limit`` is seconds."""
    has_driver = (root / "dev/nvidiactl").exists()
    program = shutil.which("nvidia-smi", path=os.pathsep.join((os.environ.get("PATH", os.defpath), *_FURTHER)))
    if program is None:
        return [Unknown("NVIDIA's driver is there, and nvidia-smi is not in PATH")] if has_driver else []
    try:
        done = subprocess.run([program, *_QUERY], capture_output=True, text=True, timeout=limit, check=False)
    except subprocess.TimeoutExpired:
        return [Unknown(f"nvidia-smi: no answer in {limit:g} s")]
    except (OSError, UnicodeDecodeError) as error:
        return [Unknown(f"nvidia-smi: {error}")]
    lines = [line for line in (done.stdout or done.stderr).splitlines() if line.strip()]
    if done.returncode:
        said = lines[0] if lines else f"exit status {done.returncode}"
        return [Unknown(f"nvidia-smi: {said}")] if has_driver else []
    return [_pool(f"nvidia{index}", line) for index, line in enumerate(lines)]


def _pool(name: str, line: str) -> Fact[Pool]:
    total, _, used = (number.strip() for number in line.partition(","))
    if not (total.isdecimal() and int(total)):
        return Unknown(f"nvidia-smi says of {name}: {line.strip()}")
    return Known(Pool(name, int(total) * _MIB, int(used) * _MIB if used.isdecimal() else None, stated=False))
