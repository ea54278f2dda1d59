"""``hal0 slot adopt`` as a process, beside a daemon of the process runtime."""

from __future__ import annotations

import subprocess
import sys

import pytest

from .conftest import DEADLINE, Place

THEIRS = '[process]\nargv = ["/bin/theirs"]\n'


def answered(place: Place, answer: str) -> subprocess.CompletedProcess[str]:
    """Run the command, and answer its question."""
    argv = [sys.executable, "-m", "hal0.cli", "slot", "adopt", "chat"]
    return subprocess.run(
        argv, input=answer, capture_output=True, text=True, env=place.env, timeout=DEADLINE, check=False
    )


@pytest.mark.daemon
def test_a_slot_is_taken_over_once_somebody_says_yes(place: Place) -> None:
    theirs = place.folder / "state" / "slots" / "chat.toml"
    theirs.parent.mkdir()
    theirs.write_text(THEIRS)
    place.put_slots("chat")
    with place.serving():
        place.until((place.folder / "run" / "hal0.sock").exists)
        no = answered(place, "n\n")
        assert (no.returncode, theirs.read_text()) == (1, THEIRS)
        assert f"ForeignUnit: {theirs} does not carry hal0's mark" in no.stdout
        assert '-argv = ["/bin/theirs"]' in no.stdout
        assert "+[X-Hal0]" in no.stdout
        assert "nothing was changed" in no.stderr
        yes = answered(place, "y\n")
        assert yes.returncode == 0, yes.stderr
        assert "SLOT RECAP" in yes.stdout
        place.until_ready("chat")
        again = place.hal0("slot", "adopt", "chat", "--force")
        assert again.returncode == 1
        assert "slot chat is hal0's already" in again.stderr
    assert theirs.with_name("chat.toml.bak").read_text() == THEIRS
