"""apply --atomic, as a person types it."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest

from hal0.cli.show import plan_text

from .conftest import Place, slot

_NEVER = json.dumps([sys.executable, "-S", "-c", "import time; time.sleep(600)"])
NEVER = f"kind: Profile\nname: never\nengine: custom\ncommand: {_NEVER}\nstart_deadline: 1s\n"


@pytest.mark.daemon
def test_a_spec_that_never_gets_ready_is_taken_back_and_the_way_on_is_said(place: Place) -> None:
    place.put_slots("chat")
    place.put("never.yaml", NEVER)
    with place.serving():
        place.until_ready("chat")
        place.until(lambda: place.ask("/api/history")["applies"][0]["result"] == "converged")
        place.put("chat.yaml", slot("chat").replace("tiny", "never"))
        done = place.hal0("apply", "--atomic")
        plan = place.hal0("plan")
        table = place.hal0("history", "-n", "1").stdout
        found = place.json("slot", "show", "chat")
        back = place.hal0("rollback", "--atomic", "--json")
    assert done.returncode == 3, done.stderr
    assert "failed=1" in done.stdout
    assert "rolled back: spec " in done.stdout
    assert "not ready within 1.0s" in done.stdout
    assert "; hal0 slot retry chat tries it again, or change the manifest" in done.stdout
    assert "rejected, and not tried again:\n  x chat  spec " in plan.stdout
    assert "but for what was rejected." in plan.stdout
    assert "rolled-back" in table
    assert (found["state"], found["profile"]) == ("ready", "tiny")
    assert back.returncode == 0, back.stderr
    assert json.loads(back.stdout.splitlines()[-1])["converged"] is True


def test_a_plan_names_what_was_rejected() -> None:
    plan: dict[str, Any] = {"changes": [], "overrides": [], "summary": "Plan: ..."}
    rejection = {"slot": "chat", "text": "spec 3c8521b7 was rejected"}
    assert list(plan_text(plan | {"rejections": [rejection]}, diffs=False)) == [
        "rejected, and not tried again:",
        "  x chat  spec 3c8521b7 was rejected",
        "Nothing to change: the host is what the manifests say, but for what was rejected.",
        "Plan: ...",
    ]
