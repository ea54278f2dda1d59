"""hal0 lock, as a person types it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hal0.cli.lock import lock_text

from .conftest import MODEL, Place, slot
from .test_models import EMPTY, Home

WORDS = ("--runtime", "process")


def test_a_lock_is_written_checked_and_read_back(tmp_path: Path) -> None:
    place = Home(tmp_path)
    place.put_slots()
    place.put("chat.yaml", slot("chat", run="never"))
    due = place.hal0("lock", "--check", *WORDS)
    assert (due.returncode, due.stdout.splitlines()[0].split()[:3]) == (2, ["+", "model", "m"]), due.stderr
    assert not (place.root / "hal0.lock").exists()
    done = place.hal0("lock", *WORDS)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        f"  + model m  sha256:{EMPTY[:12]}",
        f"{place.root / 'hal0.lock'}: written; 1 model, 0 images",
    ]
    assert place.hal0("lock", "--check", *WORDS).returncode == 0
    assert place.hal0("validate", str(place.root), *WORDS).returncode == 0
    again = place.hal0("lock", "--upgrade", "m", "--json", *WORDS).stdout.splitlines()
    events = [json.loads(line) for line in again]
    assert [event["event"] for event in events] == ["begin", "look", "end"]
    assert events[-1]["changes"] == []


def test_what_cannot_be_locked_is_told_and_the_exit_code_says_so(tmp_path: Path) -> None:
    place = Home(tmp_path)
    place.put("m.yaml", MODEL.replace("m.gguf", "gone.gguf"))
    done = place.hal0("lock", *WORDS)
    assert done.returncode == 3
    assert "warning: not locked: model m: there is no " in done.stderr
    assert "(put it there, then lock it)" in done.stderr
    wrong = place.hal0("lock", "m", *WORDS)
    assert (wrong.returncode, wrong.stderr.splitlines()[0]) == (1, "error: names are for --upgrade")


def test_manifests_are_named_by_path(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.put("m.yaml", MODEL)
    assert place.hal0("lock", "--path", str(place.root), *WORDS).returncode == 0
    assert EMPTY in (place.root / "hal0.lock").read_text()


@pytest.mark.daemon
def test_the_daemon_writes_the_lock_and_takes_it_up(place: Place) -> None:
    place.put_slots("chat")
    with place.serving():
        place.until_ready("chat")
        before = place.json("slot", "show", "chat")["spec_hash"]
        refused = place.hal0("apply", "--locked")
        assert (refused.returncode, "model m: it is not locked" in refused.stderr) == (1, True)
        planned = place.hal0("apply", "--locked", "--check")
        assert (planned.returncode, "model m: it is not locked" in planned.stderr) == (1, True)
        assert place.hal0("apply").returncode == 0
        done = place.hal0("lock")
        assert done.returncode == 0, done.stderr
        place.until(lambda: place.json("slot", "show", "chat")["spec_hash"] != before)
        place.until(lambda: place.states() == {"chat": "ready"})
        assert place.hal0("apply", "--locked").returncode == 0
        other = place.hal0("lock", "--path", str(place.folder))
        assert (other.returncode, "the daemon serves" in other.stderr) == (1, True)


def test_what_changed_is_told() -> None:
    change = {"kind": "model", "before": None, "after": None, "is_due": False, "is_other": False}
    end = {
        "path": "/m/hal0.lock",
        "changes": [
            change | {"name": "a", "after": "sha256:1"},
            change | {"name": "b", "before": "sha256:1", "after": "sha256:2", "is_other": True},
            change | {"name": "c", "before": "sha256:1"},
            change | {"name": "d", "is_due": True},
        ],
        "models": 2,
        "images": 1,
        "written": True,
        "commit": "abc",
    }
    assert json.dumps([*lock_text(end)], indent=0).splitlines()[1:-1] == [
        '"  + model a  sha256:1",',
        '"  ~ model b  sha256:1 -> sha256:2",',
        '"      the file here is another one: a slot that needs it fetches it, or hal0 model pull",',
        '"  - model c  sha256:1",',
        '"  + model d  to be looked up",',
        '"/m/hal0.lock: written; 2 models, 1 image, commit abc"',
    ]
