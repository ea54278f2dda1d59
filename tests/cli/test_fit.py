"""hal0 model fit, as a person types it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from headers import gguf

from hal0.cli.fit import fit_text

from .conftest import Place
from .test_models import Home, put

WORDS = ("--runtime", "process", "--device", "cpu")


def test_a_fit_is_told_with_its_exit_code(tmp_path: Path) -> None:
    place = Home(tmp_path)
    place.put_slots()
    put(place, "m.gguf", gguf())
    put(place, "Other.gguf", gguf())
    fits = place.hal0("model", "fit", "m", "--ctx-size", "512", *WORDS)
    assert (fits.returncode, fits.stderr) == (0, "")
    assert fits.stdout.startswith("m on cpu: fits now: ")
    assert place.hal0("model", "fit", "other", *WORDS).stdout.startswith("other on cpu: fits now: ")
    place.put("host.yaml", "kind: Host\npools: {ram: 1Mi}\n")
    never = place.hal0("model", "fit", "m", *WORDS)
    assert never.returncode == 3
    assert never.stdout.startswith("m on cpu: does not fit: pool ram has ")
    nobody = place.hal0("model", "fit", "mm", *WORDS)
    assert (nobody.returncode, nobody.stderr) == (1, "error: no Model 'mm'\nhint: did you mean 'm'?\n")


@pytest.mark.daemon
def test_the_daemon_is_asked_where_one_runs(place: Place) -> None:
    place.put_slots("chat")
    put(place, "m.gguf", gguf())
    with place.serving():
        place.until_ready("chat")
        found = place.json("model", "fit", "m", "--ctx-size", "512")
        assert (found["model"], found["device"], found["context_size"]) == ("m", "cpu", 512)
        nobody = place.hal0("model", "fit", "mm")
    assert (nobody.returncode, nobody.stderr) == (1, "error: there is no model 'mm' (did you mean 'm'?)\n")


FIT: dict[str, Any] = {
    "model": "m",
    "device": "gpu-vulkan",
    "device_why": "as asked",
    "pool": "gpu",
    "context_size": 4096,
    "fits": "later",
    "why": "2.0 GiB of pool gpu must get free first",
    "claim": {"bytes": 2**33, "source": "estimated", "how": "weights"},
    "at_least": False,
    "room_bytes": 2**34,
    "free_bytes": 2**32,
    "largest_context": 8192,
    "largest_context_now": None,
}


def test_a_fit_as_a_person_reads_it() -> None:
    assert list(fit_text(FIT)) == [
        "m on gpu-vulkan: fits, not now: 2.0 GiB of pool gpu must get free first",
        "takes     8.0 GiB (estimated): weights",
        "pool      gpu  16.0 GiB for slots, 4.0 GiB free now",
        "context   4096 tokens; up to 8192 would fit",
        "device    as asked",
    ]
    claim = {"bytes": 2**33, "source": "file", "how": "8.0 GiB, the size of its model's file"}
    lines = list(fit_text(FIT | {"claim": claim, "at_least": True, "largest_context": None}))
    assert lines[1] == "takes     at least 8.0 GiB (file): 8.0 GiB, the size of its model's file"
    assert not any(line.startswith("context") for line in lines)
