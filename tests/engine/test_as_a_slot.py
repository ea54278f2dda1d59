from __future__ import annotations

import asyncio
import json
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from worlds import MODEL, desired

import hal0
from hal0.core.definition import stamp
from hal0.core.facts import Known
from hal0.core.observed import Activity, ProbeResult, Service
from hal0.core.proof import Ask, Reply, ask_of
from hal0.core.schema import SlotType
from hal0.host.completer import HttpCompleter
from hal0.host.probe import HttpProber
from hal0.host.process import ProcessRuntime
from hal0.host.process_unit import RestartPolicy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.embedded

REPO = Path(hal0.__file__).parents[1]
LOOKS = 6000  # at least 10 ms apart


@pytest.fixture
async def runtime(tmp_path: Path) -> AsyncIterator[ProcessRuntime]:
    runtime = ProcessRuntime(tmp_path / "state", policy=RestartPolicy(first=0.001, limit=2))
    yield runtime
    await runtime.stop_all()
    await runtime.close()


async def start(runtime: ProcessRuntime, model: Path) -> int:
    """Start the engine as slot ``chat`` and return its port."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    flags = ["--model", str(model), "--port", str(port), "--ctx-size", "256"]
    argv = json.dumps([sys.executable, "-P", "-m", "hal0.engine.xllamacpp", *flags])
    body = f"[process]\nargv = {argv}\n\n[process.env]\nPYTHONPATH = {json.dumps(str(REPO))}\n"
    await runtime.write("chat", stamp(body, slot="chat", spec_hash="s", generation=1))
    await runtime.reload()
    await runtime.start("chat")
    return port


def question(type_: SlotType) -> Ask:
    (slot,) = desired(f"{MODEL}---\nkind: Slot\nname: chat\nmodel: m\ntype: {type_}\n").slots.values()
    ask = ask_of(slot.spec)
    assert ask
    return ask


async def service(runtime: ProcessRuntime) -> Service:
    fact = (await runtime.observe({"chat": ""}))["chat"].service
    assert isinstance(fact, Known)
    assert fact.value is not None
    return fact.value


async def test_an_engine_loads_serves_and_stops(runtime: ProcessRuntime, model_path: Path) -> None:
    target = ("chat", await start(runtime, model_path), "/health")
    prober, seen = HttpProber(), set()
    for _ in range(LOOKS):
        seen.add(result := (await prober.probe([target]))["chat"])
        if result is ProbeResult.UP:
            break
        await asyncio.sleep(0.01)
    assert seen == {ProbeResult.LOADING, ProbeResult.UP}
    assert (await service(runtime)).restarts == 0
    assert await HttpCompleter().complete(target[1], question(SlotType.LLM)) == Reply(200)
    wrong = await HttpCompleter().complete(target[1], question(SlotType.RERANKING))
    assert (400 <= wrong.status < 600, bool(wrong.error)) == (True, True)
    await runtime.stop("chat")
    found = await service(runtime)
    assert (found.activity, found.result) == (Activity.INACTIVE, "success")
    assert await prober.probe([target]) == {"chat": ProbeResult.LOADING}


async def test_a_damaged_model_is_given_up_with_its_cause_in_the_log(runtime: ProcessRuntime, tmp_path: Path) -> None:
    (model := tmp_path / "page.gguf").write_text("<html>")
    await start(runtime, model)
    for _ in range(LOOKS):
        if (found := await service(runtime)).activity is Activity.FAILED:
            break
        await asyncio.sleep(0.01)
    assert (found.result, found.exit_status) == ("start-limit-hit", 1)
    assert "is not a GGUF file" in (await runtime.logs("chat", lines=1))[0]
