from __future__ import annotations

from collections.abc import Iterator

import pytest

from .conftest import Place

EMBED = "kind: Capability\nname: embed\nembed: {model: m, profile: tiny} # ours\nrerank: false\n"


@pytest.fixture
def up(place: Place) -> Iterator[Place]:
    place.put_slots("chat")
    with place.serving():
        place.until_ready("chat")
        yield place


@pytest.mark.daemon
def test_a_capability_is_turned_on_listed_and_turned_off(up: Place) -> None:
    made = up.hal0("capability", "enable", "embed", "rerank")
    assert (made.returncode, made.stderr) == (0, "")
    assert made.stdout == (
        f"capability embed: rerank on in {up.root}/embed.toml\n"
        "  slot rerank: takes effect when it next starts\n"
        "rerank: its model is not here: hal0 model pull bge-reranker-v2-m3\n"
    )
    again = up.hal0("capability", "enable", "embed", "rerank")
    assert again.stdout.startswith(f"capability embed is on already: {up.root}/embed.toml says so\nrerank: its model ")
    table = up.hal0("capability", "list").stdout.splitlines()
    assert table[2].split() == [
        *("embed", "rerank", "offline", "reranking", "bge-reranker-v2-m3", "(not", "here)", "slot", "rerank"),
    ]
    assert table[3].split() == ["voice", "stt", "off", "transcription", "whisper-base", "-"]
    assert table[-1] == "rerank: its model is not here: hal0 model pull bge-reranker-v2-m3"
    gone = up.json("capability", "disable", "embed")
    assert (gone["changes"], gone["settled"]) == ([{"key": "rerank", "before": True, "after": False}], True)
    assert up.states() == {"chat": "ready"}
    off = up.hal0("capability", "disable", "embed")
    assert (off.returncode, off.stdout) == (0, "capability embed is off already\n")


@pytest.mark.daemon
def test_what_does_not_fit_is_told_with_what_to_do(up: Place) -> None:
    up.put("e.yaml", EMBED)
    up.until(lambda: "embed" in up.states())
    wrong = up.hal0("capability", "enable", "embed", "embd")
    assert wrong.returncode == 1
    assert "'embd' is no part of capability embed (did you mean 'embed'?)" in wrong.stderr
    edited = up.hal0("slot", "edit", "embed", "--ctx-size", "5")
    assert edited.returncode == 1
    assert f"declared by capability embed at {up.root}/e.yaml:3" in edited.stderr
    assert "hal0 capability enable embed embed --model M" in edited.stderr
    assert (up.root / "e.yaml").read_text() == EMBED


def test_without_a_daemon_it_is_listed_and_not_switched(place: Place) -> None:
    place.put_slots()
    place.put("e.yaml", EMBED)
    options = ("--runtime", "process", "--scope", "user")
    done = place.hal0("capability", "disable", "embed", *options)
    assert done.returncode == 1
    assert "hal0 serve" in done.stderr
    assert (place.root / "e.yaml").read_text() == EMBED
    embed, *_ = place.json("capability", "list", str(place.root), *options)["capabilities"]
    assert (embed["name"], embed["place"]) == ("embed", f"{place.root}/e.yaml:1")
    child, rerank = embed["children"]
    assert (child["on"], child["model"], child["model_present"], child["state"]) == (True, "m", True, "offline")
    assert (rerank["on"], child["served_by"]["name"], rerank["served_by"]) == (False, "embed", None)
