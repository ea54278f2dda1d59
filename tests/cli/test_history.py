"""history, why and rollback, as a person types them."""

from __future__ import annotations

import os
import pwd
from typing import Any

import pytest

from hal0.cli.why import why_text

from .conftest import Place, slot

ME = os.environ.get("SUDO_USER") or pwd.getpwuid(os.getuid()).pw_name


def test_nothing_was_applied_where_nothing_is_remembered(place: Place) -> None:
    done = place.hal0("history")
    assert (done.returncode, done.stdout) == (0, "Nothing was applied yet, as far as hal0 remembers.\n")
    assert place.json("history") == {"version": 1, "applies": []}
    assert not (place.folder / "state" / "hal0.db").exists()


def test_a_rollback_needs_the_daemon_where_it_is_the_engines_parent(place: Place) -> None:
    place.put_slots("chat")
    done = place.hal0("rollback", "--runtime", "process")
    assert done.returncode == 1
    assert done.stderr.startswith("error: the process runtime lives inside the daemon")


def test_a_slot_that_is_unknown_has_no_why(place: Place) -> None:
    done = place.hal0("why", "caht", "--runtime", "process")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr


@pytest.mark.daemon
def test_an_edit_is_rolled_back_and_history_and_why_say_so(place: Place) -> None:
    first = slot("chat")
    place.put_slots()
    place.put("chat.yaml", first)
    with place.serving():
        place.until_ready("chat")
        place.put("chat.yaml", first + "env: {X: other}\n")
        place.until(lambda: place.ask("/api/history")["applies"][0]["generation"] == 2)
        place.until(lambda: place.ask("/api/history")["applies"][0]["result"] == "converged")
        refused = place.hal0("rollback", "nothing")
        done = place.hal0("rollback")
        table = place.hal0("history", "-n", "2").stdout.splitlines()
        told = place.hal0("why", "chat").stdout
        why = place.json("why", "chat")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr.startswith("error: git knows no revision 'nothing'")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("The manifests are those of g1 again:\n  ~ chat.yaml\n")
    assert "SLOT RECAP" in done.stdout
    assert (place.root / "chat.yaml").read_text() == first
    assert table[0].split() == ["WHEN", "GENERATION", "REVISION", "WHO", "RESULT", "TOOK", "CHANGES"]
    assert len(table) == 3
    assert "converged" in table[1]
    assert f"  {ME}  " in table[1]
    assert table[1].endswith("rollback to g1")
    assert f"because the manifests changed, applied by {ME}" in told
    assert why["acts"][0]["by"] == ME


WHY: dict[str, Any] = {
    "name": "chat",
    "state": "error",
    "since_seconds": 7.0,
    "message": "the service failed: exit-code",
    "verdict": {"up": True, "why": "on demand: 1 requests in flight"},
    "change": {
        "action": "wait",
        "reasons": [{"field": "retry 2", "before": "no such device", "after": "in 9.0s", "drift": False}],
    },
    "backoff": {"starts": 2, "error": "no such device", "next_in_seconds": 9.0},
    "acts": [
        {
            "at": 0.0,
            "action": "restart",
            "why": "service: stopped",
            "rule": "demand",
            "by": "",
            "request": "r-1",
            "revision": "abc",
        },
        {"at": 0.0, "action": "create", "why": "absent", "rule": "", "by": "", "request": "", "revision": ""},
    ],
    "refusals": [{"at": 0.0, "request": "r-1", "model": "gpt-4o", "code": "slot.load_failed", "status": 502}],
}


def test_why_reads_as_sentences(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hal0.cli.show.clock", lambda _: "NOW")
    assert list(why_text(WHY)) == [
        "chat is error for 7.0s: the service failed: exit-code",
        "It should be up (on demand: 1 requests in flight).",
        "The plan has for it: wait: retry 2: no such device -> in 9.0s",
        "2 starts since it was last ready (no such device); the next is due in 9.0s at the earliest.",
        "What hal0 last did:",
        "  NOW  restart: service: stopped",
        "    by demand, for request r-1, revision abc",
        "  NOW  create: absent",
        "Requests that it could not answer:",
        "  NOW  502 slot.load_failed: request r-1 for 'gpt-4o'",
    ]


def test_why_tells_what_a_slot_waits_for_once() -> None:
    total = "pool ram has 9 B; chat claims 10 B: 1 B too much"
    reasons = [("service", "stopped", "running (run: always)"), ("placement", "", total)]
    change = {
        "action": "wait",
        "reasons": [{"field": field, "before": old, "after": new, "drift": False} for field, old, new in reasons],
    }
    message = f"service: stopped -> running (run: always); placement: {total}"
    found = {**WHY, "verdict": {"up": True, "why": total}, "change": change, "message": message}
    assert list(why_text(found))[:3] == [
        "chat is error for 7.0s",
        f"It should be up ({total}).",
        "The plan has for it: wait: service: stopped -> running (run: always)",
    ]
