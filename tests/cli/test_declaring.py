"""Models that hal0 declares and fetches by what a person calls them, from a hub that is a server here."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from headers import gguf
from host.file_server import FileServer, serving

from .conftest import Place
from .test_models import Home, put

WORDS = ("--runtime", "process")
CONTENT = gguf()
HEAD = {
    "X-Repo-Commit": "c0" * 20,
    "X-Linked-Etag": f'"{hashlib.sha256(CONTENT).hexdigest()}"',
    "X-Linked-Size": str(len(CONTENT)),
}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    with serving() as files:
        monkeypatch.setenv("HF_ENDPOINT", files.url)
        for quant in ("Q4_K_M", "Q8_0"):
            files.put(f"/org/repo/resolve/main/Big-{quant}.gguf", headers=HEAD)
            files.put(f"/org/repo/resolve/{'c0' * 20}/Big-{quant}.gguf", CONTENT)
        names = ("Big-Q4_K_M.gguf", "Big-Q8_0.gguf", "mmproj-F16.gguf", "README.md")
        listed = [{"rfilename": name, "size": len(CONTENT), "blobId": "a"} for name in names]
        answer = {"id": "org/repo", "sha": "c0" * 20, "siblings": listed}
        files.put("/api/models/org/repo/revision/main", json.dumps(answer).encode())
        yield files


@pytest.mark.usefixtures("hub")
def test_a_model_of_the_hub_without_a_daemon(tmp_path: Path) -> None:
    place = Home(tmp_path)
    path = tmp_path / "state/models/org/repo/Big-Q8_0.gguf"
    listed = place.hal0("model", "pull", "org/repo", *WORDS)
    assert (listed.returncode, listed.stderr) == (1, "hint: name one of them: nothing was fetched\n")
    assert [line.split()[-1] for line in listed.stdout.splitlines()[1:]] == [
        "org/repo/Big-Q4_K_M.gguf",
        "org/repo/Big-Q8_0.gguf",
    ]
    lost = place.hal0("model", "pull", "org/repo/Big.gguf", *WORDS)
    assert (lost.returncode, list(place.root.iterdir())) == (3, [])
    assert "There are: " in lost.stderr
    done = place.hal0("model", "pull", "org/repo:q8_0", "--name", "big", *WORDS)
    assert (done.returncode, done.stdout) == (
        0,
        f"big: declared in {place.root}/models.yaml\nbig: fetched, {path}\n",
    ), done.stderr
    assert path.read_bytes() == CONTENT
    assert place.hal0("model", "fit", "big", *WORDS).stdout.startswith("big on cpu: fits now: ")
    again = place.hal0("model", "pull", "org/repo/Big-Q8_0.gguf", *WORDS)
    assert again.stdout == f"big: is there already, {path}\n"


@pytest.mark.usefixtures("hub")
def test_a_fit_of_what_is_not_here_asks_the_hub(tmp_path: Path) -> None:
    place = Home(tmp_path)
    place.put("big.yaml", "kind: Model\nname: big\nsource: {repo: org/repo, file: Big-Q8_0.gguf}\n")
    found = place.hal0("model", "fit", "big", *WORDS)
    assert (found.returncode, found.stderr) == (0, ""), found.stdout
    assert f"takes     at least {len(CONTENT)} B (file): " in found.stdout


def test_found_models_are_declared_without_a_daemon(tmp_path: Path) -> None:
    place = Home(tmp_path)
    put(place, "Tiny-Q8_0.gguf", gguf())
    place.put("m.yaml", "kind: Model\nname: m\npath: m.gguf\n")
    found = place.hal0("model", "scan", "--write", *WORDS)
    assert found.stdout == f"tiny-q8_0: declared in {place.root}/models.yaml\n", found.stderr
    assert (place.root / "models.yaml").read_text() == "kind: Model\nname: tiny-q8_0\npath: Tiny-Q8_0.gguf\n"
    again = place.hal0("model", "scan", "--write", *WORDS)
    assert again.stdout == f"every model file below {tmp_path}/state/models is declared\n"


@pytest.mark.daemon
@pytest.mark.usefixtures("hub")
def test_a_slot_of_a_found_model_and_one_of_the_hub_with_a_daemon(place: Place) -> None:
    put(place, "Tiny-Q8_0.gguf", gguf())
    place.put_slots("chat")
    with place.serving():
        place.until_ready("chat")
        lost = place.hal0("slot", "create", "one", "--model", "tyni-q8_0", "--profile", "tiny")
        made = place.hal0("slot", "create", "one", "--model", "tiny-q8_0", "--profile", "tiny", "--run", "always")
        place.until_ready("chat", "one")
        done = place.hal0("model", "pull", "org/repo/Big-Q8_0.gguf")
        nothing = place.hal0("model", "pull", "org/repo/Big.gguf")
        second = place.hal0("slot", "create", "two", "--model", "big-q8_0", "--profile", "tiny", "--run", "always")
        assert second.returncode == 0, second.stderr + done.stderr
        place.until_ready("chat", "one", "two")
    assert lost.returncode == 1
    assert "no Model 'tyni-q8_0' (declare it: hal0 model scan --write if" in lost.stderr
    assert f"  model tiny-q8_0: declared in {place.root}/models.yaml\n" in made.stdout, made.stderr
    assert (nothing.returncode, nothing.stdout) == (3, "")
    assert "has no file Big.gguf" in nothing.stderr
    assert done.stdout.startswith(f"big-q8_0: declared in {place.root}/models.yaml\nbig-q8_0: fetched, ")
