from __future__ import annotations

import json
from pathlib import Path

import pytest

from .conftest import REPO, Place

SAMPLES = REPO / "tests" / "importing" / "samples"


@pytest.mark.parametrize(
    ("kind", "name"),
    [("llama-swap", "llama-swap.yaml"), ("compose", "compose-engines.yaml"), ("quadlet", "llama.container")],
)
def test_what_is_printed_is_a_file_of_manifests(place: Place, kind: str, name: str) -> None:
    done = place.hal0("import", kind, str(SAMPLES / name))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"# Made from {name} by hal0 import {kind}.")
    assert "# Not carried over:" in done.stdout
    place.put("imported.yaml", done.stdout)
    valid = place.hal0("validate", str(place.root), "--runtime", "systemd")
    assert (valid.returncode, valid.stdout.endswith("valid\n")) == (0, True)


def test_json_has_the_manifests_and_what_is_lost(place: Place, tmp_path: Path) -> None:
    file = tmp_path / "compose.yaml"
    file.write_text("services: {s: {image: llama.cpp, command: '-m ${DIR}/a.gguf', volumes: ['./m:/m'], user: me}}")
    found = place.json("import", "compose", str(file), "--set", "DIR=/m")
    assert found["version"] == 1
    assert found["manifests"][0] == {"kind": "Model", "name": "a", "path": f"{tmp_path}/m/a.gguf"}
    why = "the image's own user runs the engine"
    assert found["lost"] == [{"where": "services.s", "what": "user", "why": why}]


def test_the_home_folder_is_known(place: Place, tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(json.dumps({"models": {"m": {"cmd": "llama-server -m ${env.HOME}/m.gguf -ngl 99"}}}))
    found = place.json("import", "llama-swap", str(file), "--hardware", "gpu-cuda")
    assert [manifest.get("path") for manifest in found["manifests"]] == [f"{Path.home()}/m.gguf", None]
    assert found["manifests"][1]["device"] == "gpu-cuda"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("compose", "nowhere.yaml"), "nowhere.yaml can't be read: No such file or directory"),
        (("compose", "m.yaml"), "m.yaml has no table 'services'"),
        (("compose", "empty.yaml"), "empty.yaml holds nothing that hal0 could run"),
        (("compose", "m.yaml", "--set", "NAME"), "--set takes NAME=VALUE"),
        (("llama-swap", "m.yaml", "--hardware", "gpu"), "'gpu' is no hardware"),
    ],
)
def test_what_cant_be_imported_says_why(place: Place, words: tuple[str, ...], said: str) -> None:
    (place.folder / "m.yaml").write_text("kind: Model\n")
    (place.folder / "empty.yaml").write_text("services: {}\n")
    done = place.hal0("import", *words)
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr
