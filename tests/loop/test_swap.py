"""A swap: another model on a slot that serves, written to its manifest once it works."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from fakes import SILENT
from scenes import Scene

from hal0.core.facts import Known
from hal0.core.pools import RAM, Pool
from hal0.errors import Hal0Error, NotFound, UsageError
from hal0.host.edits import NotWritten
from hal0.host.manifests import ManifestRoot
from hal0.loop import authoring
from hal0.loop.acts import ActRequest, Verb, act

NEXT, SPARE = "chat.next", 8099
MODELS = (
    "kind: Model\nname: m\npath: m.gguf\n---\nkind: Model\nname: big\npath: big.gguf\naliases: [huge]\n"
    "---\nkind: Model\nname: lost\npath: lost.gguf\n"
)
CHAT = "# Mine.\nkind: Slot\nname: chat\nmodel:   m   # the old one\n"
SIZE = 100 * 2**20


class Files(Scene):
    """A scene whose manifests are files, so that they can be written."""

    def rewritten(self) -> str:
        return (self.root / "chat.yaml").read_text()

    @property
    def root(self) -> Path:
        return self.folder / "manifests"

    def make(self) -> Any:
        made = super().make()
        made.source.root = ManifestRoot(self.root)
        return made


@pytest.fixture
async def ready(tmp_path: Path) -> AsyncIterator[Files]:
    """A slot that is ready, on a host with memory for another engine."""
    (tmp_path / "manifests").mkdir()
    (tmp_path / "manifests" / "models.yaml").write_text(MODELS)
    (tmp_path / "manifests" / "chat.yaml").write_text(CHAT)
    made = Files(tmp_path)
    for name in ("m", "big"):
        with (tmp_path / "models" / f"{name}.gguf").open("wb") as file:
            file.truncate(SIZE)
    made.host.images["ggml-org/llama.cpp:server"] = "id"
    made.hardware.table[RAM] = Known(Pool(RAM, 2**30, 0, stated=True))
    await made.until(lambda: made.slot("chat").is_settled)
    try:
        yield made
    finally:
        await made.close()


def no_room(made: Scene) -> None:
    made.hardware.table.clear()


async def swapped(made: Scene, model: str = "big", **more: Any) -> list[dict[str, Any]]:
    """Swap while time passes, and return every event."""
    async with asyncio.timeout(20), made.driven(flowing=True):
        return [event async for event in act(made.reconciler, ActRequest("chat", Verb.SWAP, "eve", model, **more))]


def breaks(made: Scene, model: str) -> None:
    """Have engines of a model end for good when they start."""
    start = made.host.start

    def ending(engine: str) -> None:
        start(engine)
        if models(made)[engine] == f"{model}.gguf":
            made.host.die(engine)

    made.host.start = ending  # type: ignore[assignment,method-assign]


def models(made: Scene) -> dict[str, str]:
    """Return which model file each engine runs with."""
    words = {name: list(found.command) for name, found in made.host.instances.items()}
    return {name: own[own.index("--model") + 1].removeprefix("/models/") for name, own in words.items()}


def rows(made: Scene) -> list[tuple[str, str]]:
    return [(own.aspect.value, own.value) for own in made.store.overrides.rows]


def outcome(events: list[dict[str, Any]]) -> dict[str, Any]:
    (told,) = [event for event in events if event["event"] == "swap"]
    assert events[-2:] == [told, events[-1]]
    return told


@pytest.mark.parametrize("is_beside", [True, False])
@pytest.mark.parametrize("model", ["big", "huge"])
async def test_a_model_that_works_takes_over_and_is_written_to_the_manifest(
    ready: Files, model: str, is_beside: bool
) -> None:
    if not is_beside:
        no_room(ready)
    events = await swapped(ready, model)
    assert outcome(events) == {
        "event": "swap",
        "slot": "chat",
        "model": "big",
        "swapped": True,
        "file": str(ready.root / "chat.yaml"),
        "commit": "",
        "warning": "",
        "message": "",
    }
    assert events[-1]["converged"] is True
    assert list(events[-1]["slots"]) == ["chat"]
    assert ready.rewritten() == CHAT.replace("   m   #", "   big   #")
    assert (models(ready), rows(ready)) == ({"chat": "big.gguf"}, [])
    assert ready.host.starts == {"chat": 2} | ({NEXT: 1} if is_beside else {})
    await ready.pass_(600)
    assert (await ready.plan()).is_empty
    assert ready.host.starts["chat"] == 2


async def test_the_steps_of_a_stand_in_are_told_under_its_key_and_counted_for_its_slot(ready: Files) -> None:
    events = await swapped(ready)
    steps = [(event["slot"], event["step"]) for event in events if event["event"] == "step"]
    assert (NEXT, "start") in steps
    assert ("chat", "start") in steps
    done = [event for event in events if event["event"] == "step" and event["outcome"] == "ok"]
    assert events[-1]["slots"]["chat"]["changed"] == len(done)


async def test_without_persisting_the_manifest_stays_and_the_override_holds(ready: Files) -> None:
    events = await swapped(ready, persist=False)
    assert (outcome(events)["swapped"], outcome(events)["file"]) == (True, "")
    assert (models(ready), rows(ready)) == ({"chat": "big.gguf"}, [("model", "big")])
    assert ready.rewritten() == CHAT


async def test_a_swap_for_a_while_goes_back_when_that_is_over(ready: Files) -> None:
    await swapped(ready, persist=False, lasting=3600.0)
    await ready.pass_(3600 + 120)
    assert (models(ready), rows(ready)) == ({"chat": "m.gguf"}, [])


async def test_a_swap_to_what_the_manifest_says_takes_an_override_back(ready: Files) -> None:
    await swapped(ready, persist=False)
    events = await swapped(ready, "m")
    assert outcome(events)["swapped"] is True
    assert (models(ready), rows(ready), ready.rewritten()) == ({"chat": "m.gguf"}, [], CHAT)


@pytest.mark.parametrize("is_beside", [True, False])
async def test_a_model_that_does_not_work_is_given_up_with_its_last_lines(ready: Files, is_beside: bool) -> None:
    if not is_beside:
        no_room(ready)
    breaks(ready, "big")
    ready.runtime.last_lines = ["bad magic"]
    events = await swapped(ready)
    told = outcome(events)
    assert told["swapped"] is False
    assert "bad magic" in told["message"]
    row = events[-1]["slots"]["chat"]
    assert (events[-1]["converged"], row["failed"], row["message"]) == (False, 1, told["message"])
    assert (models(ready), rows(ready), ready.rewritten()) == ({"chat": "m.gguf"}, [], CHAT)
    assert ready.host.starts["chat"] == (1 if is_beside else 3)
    assert ready.slot("chat").is_settled
    assert not ready.slot("chat").failure
    act = next(act for act in ready.store.ledger.acts("chat") if act.action == "reset")
    assert (act.by, act.why.startswith("the swap to big failed: ")) == ("eve", True)


async def test_one_that_does_not_answer_a_real_request_is_given_up(ready: Files) -> None:
    ready.completer.replies[SPARE] = SILENT
    told = outcome(await swapped(ready))
    assert "the engine does not answer a real request: no answer in 45 s" in told["message"]
    assert ready.host.starts["chat"] == 1


async def test_a_swap_that_fails_goes_back_to_the_one_before_it(ready: Files) -> None:
    (ready.root / "models.yaml").write_text(MODELS + "---\nkind: Model\nname: other\npath: m.gguf\n")
    await swapped(ready, "other", persist=False)
    breaks(ready, "big")
    assert outcome(await swapped(ready))["swapped"] is False
    assert rows(ready) == [("model", "other")]


async def test_a_manifest_that_can_not_be_written_is_a_warning_and_the_swap_stays(
    ready: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuses(*_: object, **__: object) -> None:
        raise NotWritten("chat.yaml can't be written: Read-only file system")

    monkeypatch.setattr(authoring, "persist", refuses)
    events = await swapped(ready)
    told = outcome(events)
    assert (told["swapped"], told["file"]) == (True, "")
    assert told["warning"] == (
        "the swap is in force, and its manifest is not written: chat.yaml can't be written: Read-only file system"
    )
    assert events[-1]["converged"] is True
    assert (models(ready), rows(ready)) == ({"chat": "big.gguf"}, [("model", "big")])


@pytest.mark.parametrize(
    ("model", "more", "kind", "told"),
    [
        ("bih", {}, NotFound, r"there is no Model 'bih'.*did you mean 'big'"),
        ("lost", {}, UsageError, r"ModelMissing: there is no .*/lost\.gguf"),
        ("big", {"lasting": 60.0}, UsageError, r"a swap for a while is not written.*--no-persist"),
    ],
)
async def test_what_can_not_be_meant_is_told_at_once_and_changes_nothing(
    ready: Files, model: str, more: dict[str, Any], kind: type[Hal0Error], told: str
) -> None:
    with pytest.raises(kind) as caught:
        await swapped(ready, model, **more)
    assert re.search(told, f"{caught.value} {caught.value.hint}")
    assert (rows(ready), ready.store.ledger.acts("chat")[0].action) == ([], "create")


async def test_a_model_larger_than_the_whole_pool_is_told_with_the_arithmetic(ready: Files) -> None:
    with (ready.folder / "models" / "big.gguf").open("wb") as file:
        file.truncate(2 * 2**30)
    with pytest.raises(UsageError, match=r"pool ram has 1\.0 GiB, and big claims 2\.0 GiB: "):
        await swapped(ready)
    assert rows(ready) == []


async def test_a_swap_goes_on_when_whoever_asked_has_gone(ready: Files) -> None:
    events = aiter(act(ready.reconciler, ActRequest("chat", Verb.SWAP, "eve", "big")))
    assert (await anext(events))["event"] == "plan"
    await events.aclose()  # type: ignore[attr-defined]
    async with asyncio.timeout(10), ready.driven(flowing=True):
        while "big" not in ready.rewritten() or rows(ready):  # noqa: ASYNC110
            await asyncio.sleep(0)
    assert models(ready) == {"chat": "big.gguf"}


async def test_another_act_on_the_way_ends_a_swap(ready: Files) -> None:
    async with asyncio.timeout(20):
        events = aiter(act(ready.reconciler, ActRequest("chat", Verb.SWAP, "eve", "big")))
        told = [await anext(events)]
        reset = act(ready.reconciler, ActRequest("chat", Verb.RESET, "mallory", wait=False))
        _ = [event async for event in reset]
        async with ready.driven(flowing=True):
            told += [event async for event in events]
    assert outcome(told)["message"] == "something else was asked of the slot meanwhile"
    assert (models(ready), rows(ready), ready.rewritten()) == ({"chat": "m.gguf"}, [], CHAT)


async def test_a_killed_hal0_leaves_the_swap_in_force_and_named(ready: Files) -> None:
    events = aiter(act(ready.reconciler, ActRequest("chat", Verb.SWAP, "eve", "big")))
    await anext(events)
    await ready.reconciler.drop_kept()
    await ready.reconciler.batches.settle()
    ready.restart()
    await ready.pass_(60)
    assert (models(ready), rows(ready), ready.rewritten()) == ({"chat": "big.gguf"}, [("model", "big")], CHAT)
    await events.aclose()  # type: ignore[attr-defined]
