"""The planner over real children: what it restarts, and what it leaves running."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from worlds import FACTS, desired

from hal0.core.definition import split
from hal0.core.launch import hash_of
from hal0.core.observed import Observed
from hal0.core.plan import plan
from hal0.core.steps import Plan, StepKind
from hal0.core.world import World
from hal0.host import process_table as table
from hal0.host.process import ProcessRuntime

from .process_bench import SLEEPS, definition, instance, put, script, service

if TYPE_CHECKING:
    from hal0.core.spec import Desired

HIDDEN = "s3cr3t-value"


def wanted(folder: Path, env: dict[str, str]) -> Desired:
    """Return one slot whose engine sleeps."""
    model = folder / "m.gguf"
    model.touch()
    profile = f"kind: Profile\nname: sleeps\nengine: custom\ncommand: {json.dumps(script(SLEEPS))}\n"
    slot = f"kind: Slot\nname: a\nmodel: m\nprofile: sleeps\nenv: {json.dumps(env)}\n"
    found = desired(
        f"kind: Model\nname: m\npath: {model}\n---\n{profile}---\n{slot}", facts=replace(FACTS, runtime="process")
    )
    assert not found.problems
    return found


async def planned(runtime: ProcessRuntime, now: Desired) -> Plan:
    return plan(World(now, Observed(await runtime.observe({"a": ""}))))


async def carry_out(runtime: ProcessRuntime, current: Plan) -> None:
    on_slots = {
        StepKind.STOP: runtime.stop,
        StepKind.RESET_FAILED: runtime.reset_failed,
        StepKind.START: runtime.start,
    }
    for step in current.steps:
        if step.kind is StepKind.WRITE:
            await runtime.write(step.slot, step.payload)
        elif step.kind is StepKind.RELOAD:
            await runtime.reload()
        else:
            await on_slots[step.kind](step.slot)


async def environment(runtime: ProcessRuntime) -> dict[str, str]:
    """Return the child's environment, as the kernel has it."""
    entries = (Path("/proc") / str((await service(runtime)).pid) / "environ").read_text().split("\0")
    return dict(entry.split("=", 1) for entry in entries if entry)


async def test_a_changed_environment_restarts_the_child_once(runtime: ProcessRuntime, tmp_path: Path) -> None:
    await carry_out(runtime, await planned(runtime, wanted(tmp_path, {"A": "1"})))
    first, now = await instance(runtime), wanted(tmp_path, {"A": 'two "words"', "B": "ü"})
    await carry_out(runtime, await planned(runtime, now))
    second, has = await instance(runtime), await environment(runtime)
    assert first
    assert second
    assert first.id != second.id
    assert (has["A"], has["B"]) == ('two "words"', "ü")
    assert second.spec_hash == now.slots["a"].spec_hash
    assert (await planned(runtime, now)).is_empty
    await carry_out(runtime, await planned(runtime, wanted(tmp_path, {})))
    assert not {"A", "B"} & (await environment(runtime)).keys()


@pytest.mark.parametrize("record", ["kept", "lost"])
async def test_a_child_of_an_earlier_hal0_is_known_by_what_it_was_started_with(
    tmp_path: Path, runtime: ProcessRuntime, record: str
) -> None:
    first = ProcessRuntime(tmp_path)
    before, after = wanted(tmp_path, {"A": "1"}), wanted(tmp_path, {"A": "2"})
    await carry_out(first, await planned(first, before))
    await first.close()
    if record == "lost":
        (tmp_path / "run" / "a.json").unlink()
    await runtime.write("a", definition(before.slots["a"].launch.argv, env={"A": "not loaded by anyone"}))
    running = await instance(runtime)
    assert running
    assert running.spec_hash == before.slots["a"].spec_hash
    assert [step.kind for step in (await planned(runtime, before)).steps] == [StepKind.WRITE, StepKind.RELOAD]
    assert StepKind.STOP in [step.kind for step in (await planned(runtime, after)).steps]


async def test_an_environment_that_was_edited_and_started_is_not_taken_for_the_declared_one(
    runtime: ProcessRuntime, tmp_path: Path
) -> None:
    now = wanted(tmp_path, {"A": "1"})
    await carry_out(runtime, await planned(runtime, now))
    path = tmp_path / "slots" / "a.toml"
    edited = path.read_text().replace('A = "1"', 'A = "2"')
    path.write_text(edited)
    mark = split(edited)[1]
    assert mark
    await runtime.reload()
    await runtime.stop("a")
    await runtime.start("a")
    running = await instance(runtime)
    assert running
    assert running.spec_hash == hash_of(now.slots["a"].launch.argv, {"A": "2"}) != mark.spec_hash
    await carry_out(runtime, await planned(runtime, now))
    assert (await environment(runtime))["A"] == "1"


async def test_the_environments_values_are_in_no_file_but_the_definition(
    runtime: ProcessRuntime, tmp_path: Path
) -> None:
    await put(runtime, script(SLEEPS), env={"API_KEY": HIDDEN})
    await runtime.start("a")
    running = await instance(runtime)
    holders = [path for path in tmp_path.rglob("*") if path.is_file() and HIDDEN in path.read_text()]
    assert holders == [tmp_path / "slots" / "a.toml"]
    assert HIDDEN not in repr(running)
    assert HIDDEN not in " ".join(table.argv((await service(runtime)).pid or 0))
