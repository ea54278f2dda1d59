"""An engine image of two megabytes: busybox, which answers 200 on /health and takes next to no memory."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

from bench import report
from realhost import images
from realhost.shell import Shell

TAG = "localhost/hal0/tiny:bench"
PROFILE = f"""kind: Profile
name: tiny
engine: custom
image: {TAG}
entrypoint: /bin/busybox
args: [sh, -c, "trap exit TERM; /bin/busybox httpd -f -p 0.0.0.0:8080 -h /www & wait"]
"""
_PACKAGE = "busybox-static"
_PROGRAMS = ("bin/busybox", "usr/bin/busybox")
_DEADLINE_S = 300


def load(shell: Shell, cache: Path) -> None:
    """Have the image in a host's podman, under ``TAG``."""
    tar = cache / "busybox.tar"
    if not tar.exists():
        report.note(f"building {tar.name} from Debian's {_PACKAGE}")
        with tempfile.TemporaryDirectory(prefix="busybox-", dir=cache) as scratch:
            _build(Path(scratch)).rename(tar)
    images.load(shell, tar, TAG)


def _build(scratch: Path) -> Path:
    root, unpacked, tar = scratch / "root", scratch / "unpacked", scratch / "image.tar"
    for folder in ("bin", "tmp", "www"):
        (root / folder).mkdir(parents=True)
    _run(scratch, "apt-get", "download", "--quiet", _PACKAGE)
    (package,) = scratch.glob("*.deb")
    _run(scratch, "dpkg-deb", "--extract", str(package), str(unpacked))
    program = next(unpacked / name for name in _PROGRAMS if (unpacked / name).exists())
    shutil.copy2(program, root / "bin/busybox")
    (root / "www/health").write_text("ok\n")
    _run(scratch, "tar", "--create", "--numeric-owner", "--sort=name", "-C", str(root), "-f", str(tar), ".")
    return tar


def _run(folder: Path, *argv: str) -> None:
    subprocess.run(argv, cwd=folder, check=True, capture_output=True, timeout=_DEADLINE_S)
