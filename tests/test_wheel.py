"""What travels in the wheel is found by an installed hal0."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from worlds import SEEDS

REPOSITORY = Path(__file__).resolve().parents[1]
_LOOK = """
from hal0 import resources
from hal0.host.manifests import seed_manifests
assert "/hal0/_data/" in str(resources.folder("templates")), resources.folder("templates")
names = [resources.read("templates", name) and name for name in ("slot.conf.j2", "process.toml.j2")]
names += [resources.read("systemd", name) and name for name in ("hal0-slot@.service", "hal0.target")]
print(*names, *sorted(found.manifest.name for found in seed_manifests()))
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel that was built from this checkout, unpacked as pip would."""
    folder = tmp_path_factory.mktemp("wheel")
    build = "import hatchling.build, sys; print(hatchling.build.build_wheel(sys.argv[1]))"
    command = [sys.executable, "-c", build, str(folder)]
    done = subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True, text=True, timeout=60)
    with zipfile.ZipFile(folder / done.stdout.strip().splitlines()[-1]) as wheel:
        wheel.extractall(folder / "site")
    return folder / "site"


def test_templates_units_and_seed_profiles_are_found_in_a_wheel(installed: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-c", f"import sys; sys.path.insert(0, {str(installed)!r})\n{_LOOK}"],
        cwd="/",
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.split() == [
        *("slot.conf.j2", "process.toml.j2", "hal0-slot@.service", "hal0.target"),
        *sorted(seed.manifest.name for seed in SEEDS),
    ]


def test_nothing_but_the_package_is_in_a_wheel(installed: Path) -> None:
    tops = {path.name.partition("-")[0] for path in installed.iterdir()}
    assert tops == {"hal0"}
