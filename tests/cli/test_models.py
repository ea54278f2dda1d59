"""hal0 model, as a person types it."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import pytest
from headers import gguf
from ruamel.yaml import YAML

from hal0.cli.models import list_text, manifests_text, show_count
from hal0.cli.progress import Progress
from hal0.core.documents import parse_file
from hal0.core.validate import validate

from .conftest import MODEL, Place, slot

EMPTY = hashlib.sha256(b"").hexdigest()
FAR = "kind: Model\nname: far\nsource: {url: 'http://127.0.0.1:9/far.gguf'}\nfetch: manual\n"


class Home(Place):
    """A place whose manifests are where the commands look for them without a daemon."""

    @property
    def root(self) -> Path:
        return self.folder / "config" / "hal0" / "manifests"

    @property
    def env(self) -> dict[str, str]:
        return super().env | {"XDG_CONFIG_HOME": str(self.folder / "config"), "HAL0_SCOPE": "user"}


def put(place: Place, name: str, content: bytes = b"") -> Path:
    path = place.folder / "state" / "models" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


@pytest.mark.daemon
def test_models_from_the_list_to_their_end(place: Place) -> None:
    put(place, "Tiny-Q8_0.gguf", gguf())
    place.put("m.yaml", MODEL + f"sha256: {EMPTY}\n")
    place.put("far.yaml", FAR)
    with place.serving():
        place.until((place.folder / "run" / "hal0.sock").exists)
        table = place.hal0("model", "list").stdout.splitlines()
        shown = place.hal0("model", "show", "tiny-q8_0").stdout
        scanned = place.hal0("model", "scan").stdout
        verified = place.hal0("model", "verify", "m")
        there = place.hal0("model", "pull", "m")
        lost = place.hal0("model", "pull", "fra")
        asked = place.hal0("model", "rm", "tiny-q8_0")
        removed = place.hal0("model", "rm", "tiny-q8_0", "-f")
        listed = place.json("model", "list")
    assert [line.split()[:2] for line in table] == [
        ["NAME", "STATE"],
        ["far", "missing"],
        ["m", "present"],
        ["tiny-q8_0", "*"],
        ["*", "found"],
    ]
    assert "architecture   llama" in shown
    assert scanned == "kind: Model\nname: tiny-q8_0\npath: Tiny-Q8_0.gguf\n"
    assert (verified.returncode, verified.stdout.splitlines()[-1]) == (0, "m: as its manifest says")
    assert there.stderr.startswith("error: nobody says where m comes from")
    assert lost.stderr == "error: there is no model 'fra' (did you mean 'far'?)\n"
    assert asked.returncode == 1
    assert removed.stdout.startswith("tiny-q8_0: ")
    assert [model["name"] for model in listed["models"]] == ["far", "m"]


def test_without_a_daemon_the_command_looks_itself(tmp_path: Path) -> None:
    place = Home(tmp_path)
    put(place, "deep/x.gguf", gguf())
    place.put_slots()
    place.put("m.yaml", MODEL + f"sha256: {'0a' * 32}\n")
    place.put("chat.yaml", slot("chat", run="never"))
    words = ("--runtime", "process")
    assert [model["name"] for model in place.json("model", "list", *words)["models"]] == ["m", "x"]
    differs = place.hal0("model", "verify", "m", *words)
    assert (differs.returncode, differs.stdout.split()[0]) == (3, EMPTY), differs.stderr
    assert "differs" in place.hal0("model", "list", *words).stdout
    kept = place.hal0("model", "rm", "m", "-f", *words)
    assert (kept.returncode, kept.stderr.splitlines()[0]) == (1, "error: m is the model of chat: it stays")
    assert place.hal0("model", "rm", "x", "-f", *words).returncode == 0
    assert not (place.folder / "state" / "models" / "deep" / "x.gguf").exists()


# What is printed.


def test_the_manifests_of_a_scan_are_valid_whatever_the_names_are() -> None:
    found = [{"kind": "Model", "name": "a", "path": f"{odd}.gguf"} for odd in ("x", "é #", "- 'q'", "{b}", "yes")]
    text = "\n".join(manifests_text(found))
    assert [dict(document) for document in YAML(typ="safe").load_all(text)] == found
    documents, errors = parse_file("m.yaml", text)
    assert errors == []
    assert validate(documents)[1] == []


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (None, "-"),
        (5, "5"),
        (134_515_008, "135M"),
        (8_190_735_360, "8.2B"),
        (1_040_000_000_000, "1.0T"),
        (1500, "1.5k"),
    ],
)
def test_parameters_are_shown_as_everyone_calls_them(count: int | None, text: str) -> None:
    assert show_count(count) == text


def test_a_model_on_its_way_is_listed_with_its_percent() -> None:
    model = {
        "name": "m",
        "declared": True,
        "state": "fetching",
        "size_bytes": 0,
        "partial_bytes": 5,
        "slots": ["a", "b"],
        "quantization": "",
        "parameters": None,
        "context_length": None,
        "transfer": {"done_bytes": 5, "total_bytes": 10},
    }
    lines = list(list_text({"models": [model], "model_dir": "/m", "model_dirs": []}))
    assert lines[1].split() == ["m", "fetching", "50%", "5", "B", "-", "-", "-", "a,", "b"]


EVENT = {"event": "transfer", "model": "m", "phase": "fetching", "file": 1, "files": 1, "done_bytes": 5}


def test_progress_is_a_line_now_and_then_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress(as_json=False) as progress:
        for _ in range(3):
            progress.show({**EVENT, "total_bytes": 10, "message": "fetching m: 5 of 10 B"})
    assert capsys.readouterr() == ("", "fetching m: 5 of 10 B\n")
    assert progress.last["done_bytes"] == 5


def test_progress_is_a_bar_on_a_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with Progress(as_json=False) as progress:
        progress.show({"event": "begin", "model": "m"})
        progress.show({**EVENT, "total_bytes": None, "files": 3})
        progress.show({"event": "verify", "model": "m", "done_bytes": 7, "total_bytes": 10})
    assert "verifying m" in capsys.readouterr().err


def test_progress_as_json_is_every_event(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress(as_json=True) as progress:
        progress.show({"event": "begin"})
        progress.show({"event": "end"})
    assert capsys.readouterr().out == '{"event": "begin"}\n{"event": "end"}\n'
