from __future__ import annotations

import asyncio
import json
import logging
import os
import stat
from typing import TYPE_CHECKING

import pytest

from hal0.core.facts import Known
from hal0.core.launch import hash_of
from hal0.core.observed import Activity, Definition
from hal0.errors import StepFailed
from hal0.host import process_table as table
from hal0.host.ports import EVERYTHING
from hal0.host.process import ProcessRuntime
from hal0.host.process_logs import LogFile
from hal0.host.process_unit import RestartPolicy

from .process_bench import (
    CRASHES,
    SLEEPS,
    definition,
    instance,
    is_dead,
    put,
    script,
    service,
    until,
    written,
)

if TYPE_CHECKING:
    from pathlib import Path

    from hal0.host.ports import Runtime


async def test_it_is_a_runtime(runtime: ProcessRuntime) -> None:
    port: Runtime = runtime
    assert port.name == "process"


async def test_a_slot_that_was_never_defined_is_absent(runtime: ProcessRuntime) -> None:
    seen = (await runtime.observe({"a": ""}))["a"]
    assert (seen.definition, seen.service, seen.instance) == (Known(None), Known(None), Known(None))
    assert seen.image == Known("")


async def test_a_written_slot_is_seen_without_being_named(runtime: ProcessRuntime, tmp_path: Path) -> None:
    text = definition(script(SLEEPS))
    await runtime.write("a", text)
    seen = (await runtime.observe({}))["a"]
    assert seen.definition == Known(Definition(str(tmp_path / "slots" / "a.toml"), text))
    found = await service(runtime)
    assert (found.activity, found.argv, found.pid) == (Activity.INACTIVE, tuple(script(SLEEPS)), None)


async def test_only_the_named_slots_are_looked_at(runtime: ProcessRuntime) -> None:
    await runtime.write("a", definition(script(SLEEPS)))
    assert set(await runtime.observe({"b": ""}, only=frozenset({"c"}))) == {"c"}
    assert set(await runtime.observe({"b": ""})) == {"a", "b"}


async def test_start_makes_an_instance_that_says_whose_it_is(runtime: ProcessRuntime) -> None:
    await put(runtime, script(SLEEPS))
    await runtime.start("a")
    found, running = await service(runtime), await instance(runtime)
    assert found.activity is Activity.ACTIVE
    assert found.pid in await written(runtime, 1)
    assert found.memory
    assert len(found.invocation) == 32
    assert running is not None
    assert running.id.startswith(f"{found.pid}:")
    assert (running.slot, running.spec_hash) == ("a", hash_of(script(SLEEPS), {}))
    assert running.command == tuple(script(SLEEPS))


async def test_starting_a_running_slot_changes_nothing(runtime: ProcessRuntime) -> None:
    await put(runtime, script(SLEEPS))
    await runtime.start("a")
    before = await instance(runtime)
    await runtime.start("a")
    assert await instance(runtime) == before


async def test_stop_ends_it_and_leaves_no_zombie(runtime: ProcessRuntime, tmp_path: Path) -> None:
    await put(runtime, script(SLEEPS))
    await runtime.start("a")
    (pid,) = await written(runtime, 1)
    await runtime.stop("a")
    found = await service(runtime)
    assert (found.activity, found.result, found.pid) == (Activity.INACTIVE, "success", None)
    assert await instance(runtime) is None
    assert table.stat(pid) is None
    assert not (tmp_path / "run" / "a.json").exists()
    await runtime.stop("a")
    await runtime.stop("nobody")


async def test_each_start_is_another_invocation(runtime: ProcessRuntime) -> None:
    await put(runtime, script(SLEEPS))
    seen = set()
    for _ in range(2):
        await runtime.start("a")
        seen.add((await service(runtime)).invocation)
        await runtime.stop("a")
    assert len(seen) == 2


@pytest.mark.parametrize(
    ("status", "activity", "result"),
    [
        ("0", Activity.INACTIVE, "success"),
        ("143", Activity.INACTIVE, "success"),
        ("9", Activity.FAILED, "exit-code"),
    ],
)
async def test_how_it_exits_when_told_decides_whether_it_failed(
    runtime: ProcessRuntime, status: str, activity: Activity, result: str
) -> None:
    code = f"import os, signal; signal.signal(15, lambda *_: os._exit({status})); {SLEEPS}"
    await put(runtime, script(code))
    await runtime.start("a")
    await written(runtime, 1)
    await runtime.stop("a")
    found = await service(runtime)
    assert (found.activity, found.result, found.exit_status) == (activity, result, int(status))
    await runtime.reset_failed("a")
    assert (await service(runtime)).activity is Activity.INACTIVE


async def test_a_change_on_disk_counts_after_a_reload(runtime: ProcessRuntime) -> None:
    await put(runtime, script(SLEEPS))
    assert not (await service(runtime)).needs_reload
    other = script(f"{SLEEPS}  # other")
    await runtime.write("a", definition(other))
    found = await service(runtime)
    assert (found.needs_reload, found.argv) == (True, tuple(script(SLEEPS)))
    await runtime.reload()
    found = await service(runtime)
    assert (found.needs_reload, found.argv) == (False, tuple(other))


async def test_a_removed_definition_leaves_the_child_until_it_is_stopped(runtime: ProcessRuntime) -> None:
    await put(runtime, script(SLEEPS))
    await runtime.start("a")
    await runtime.remove("a")
    await runtime.remove("a")
    assert (await service(runtime)).needs_reload
    await runtime.reload()
    found = await service(runtime)
    assert (found.load, found.argv, found.activity) == ("not-found", (), Activity.ACTIVE)
    await runtime.stop("a")
    assert (await runtime.observe({"a": ""}))["a"].service == Known(None)


async def test_a_slot_without_a_definition_does_not_start(runtime: ProcessRuntime) -> None:
    with pytest.raises(StepFailed, match="slot a can't start: there is no"):
        await runtime.start("a")
    assert (await runtime.observe({"a": ""}))["a"].service == Known(None)


async def test_the_child_gets_no_more_than_it_needs(
    runtime: ProcessRuntime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HAL0_TOKEN", "daemon-secret")
    code = "import json, os, time; print(json.dumps([dict(os.environ), os.getcwd(), os.getsid(0) == os.getpid()]))"
    argv, env = script(f"{code}; {SLEEPS}"), {"MODE": 'quick "and" dirty'}
    await put(runtime, argv, env=env)
    await runtime.start("a")
    await written(runtime, 1)
    environ, folder, leads = json.loads((await runtime.logs("a", lines=10))[0])
    assert environ["MODE"] == 'quick "and" dirty'
    assert (environ["HAL0_SLOT"], environ["HAL0_SPEC"]) == ("a", hash_of(argv, env))
    assert environ["HAL0_STATE"] == folder == str(tmp_path)
    assert environ.keys() <= {
        *("PATH", "HOME", "LANG", "LD_LIBRARY_PATH", "PYTHONPATH", "LC_CTYPE"),
        *("MODE", "HAL0_SLOT", "HAL0_SPEC", "HAL0_STATE"),
    }
    assert leads


async def test_files_are_for_the_owner_alone(runtime: ProcessRuntime, tmp_path: Path) -> None:
    await put(runtime, script(SLEEPS))
    await runtime.start("a")
    for name in ("slots/a.toml", "run/a.json", "logs/a.log"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
    assert sorted(path.name for path in (tmp_path / "slots").iterdir()) == ["a.toml"]


async def test_stop_all_stops_every_slot(runtime: ProcessRuntime) -> None:
    for slot in ("a", "b", "c"):
        await put(runtime, script(SLEEPS), slot=slot)
        await runtime.start(slot)
    await runtime.stop_all()
    activities = {slot: (await service(runtime, slot)).activity for slot in ("a", "b", "c")}
    assert set(activities.values()) == {Activity.INACTIVE}


async def test_events_name_the_slot_that_changed(runtime: ProcessRuntime, tmp_path: Path) -> None:
    events = runtime.events()
    assert await anext(events) == EVERYTHING
    await put(runtime, script(SLEEPS))
    await runtime.start("a")
    assert await anext(events) == "a"
    await runtime.close()
    assert [event async for event in events] == []
    next_one = ProcessRuntime(tmp_path)
    await next_one.stop_all()
    await next_one.close()


async def test_a_crash_is_an_event_and_a_restart(runtime: ProcessRuntime) -> None:
    await put(runtime, script(SLEEPS))
    await runtime.start("a")
    (pid,) = await written(runtime, 1)
    before = await service(runtime)
    os.kill(pid, 9)
    await written(runtime, 2)
    after = await service(runtime)
    assert (after.activity, after.restarts, after.result) == (Activity.ACTIVE, 1, "success")
    assert after.pid != before.pid
    assert after.invocation != before.invocation
    assert is_dead(pid)


async def test_logs_are_the_last_lines(runtime: ProcessRuntime) -> None:
    await put(runtime, script(f"[print('line', n) for n in range(50)]; {SLEEPS}"))
    await runtime.start("a")
    await written(runtime, 1)
    lines = await runtime.logs("a", lines=3)
    assert lines[:2] == ["line 48", "line 49"]
    assert await runtime.logs("b", lines=3) == []
    with pytest.raises(StepFailed, match="can't name a slot"):
        await runtime.logs("../a", lines=3)


async def test_pulling_is_refused(runtime: ProcessRuntime) -> None:
    with pytest.raises(StepFailed, match="without images"):
        await runtime.pull("registry.example/x")


def test_the_backoff_doubles_to_its_cap() -> None:
    assert [RestartPolicy().delay(failures) for failures in range(1, 8)] == [1, 2, 4, 8, 16, 30, 30]


async def test_a_follower_reads_across_a_rotation(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.write_text("old\n")
    file = LogFile(path, limit=1)
    lines: list[str] = []

    async def follow() -> None:
        async for line in file.follow(lambda _: asyncio.sleep(0)):
            lines.append(line)  # noqa: PERF401  (it never ends)

    task = asyncio.create_task(follow())
    await asyncio.sleep(0)
    with path.open("a") as out:
        out.write("one\ntw")
    await until(lambda: lines == ["one"])
    with path.open("a") as out:
        out.write("o\nthree\n")
    file.rotate()
    with path.open("a") as out:
        out.write("four\n")
    await until(lambda: len(lines) >= 4)
    assert lines == ["one", "two", "three", "four"]
    path.write_text("")
    await asyncio.sleep(0.01)
    path.write_text("five\n")
    await until(lambda: lines[4:] == ["five"])
    task.cancel()
    await asyncio.wait({task})


def test_rotation_keeps_two_parts_and_the_tail_reads_them(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    file = LogFile(path, limit=4)
    for number in range(4):
        with path.open("a") as out:
            out.write(f"line {number}\n")
        assert file.is_full()
        file.rotate()
        assert not file.is_full()
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["a.log", "a.log.1", "a.log.2"]
    path.write_text("now\n")
    assert file.tail(10) == ["line 2", "line 3", "now"]
    assert file.tail(2) == ["line 3", "now"]
    assert file.tail(0) == []


async def test_the_child_writes_on_after_a_rotation(
    runtime: ProcessRuntime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks = "import time, itertools\nfor n in itertools.count(): print('tick', n, flush=True); time.sleep(0.002)"
    await put(runtime, script(ticks))
    await runtime.start("a")
    log = tmp_path / "logs" / "a.log"
    await until(lambda: log.stat().st_size > 20)
    monkeypatch.setattr(LogFile, "is_full", lambda _: True)
    runtime.rotate()
    await until(lambda: log.stat().st_size > 20)
    assert log.read_bytes().startswith(b"tick")  # appended at the new end, without a hole of NUL bytes
    assert (tmp_path / "logs" / "a.log.1").read_bytes().startswith(b"tick 0\n")


async def test_a_long_log_is_read_backwards_in_blocks(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.write_text("".join(f"{n:0100d}\n" for n in range(3000)))
    tail = LogFile(path).tail(2000)
    assert [int(line) for line in tail] == list(range(1000, 3000))


async def test_a_unit_that_crashed_once_long_ago_starts_a_new_series(tmp_path: Path) -> None:
    now = 0.0
    runtime = ProcessRuntime(tmp_path, policy=RestartPolicy(first=0.001, limit=2), now=lambda: now)
    await put(runtime, script(SLEEPS))
    await runtime.start("a")
    for count in (1, 2, 3, 4):
        pid = (await written(runtime, count))[-1]
        now += 61.0
        os.kill(pid, 9)
    await written(runtime, 5)
    assert (await service(runtime)).restarts == 4
    await runtime.stop_all()
    await runtime.close()


async def test_crashes_are_told_apart_from_signals(tmp_path: Path) -> None:
    held = asyncio.Event()

    async def hold(_: float) -> None:
        await held.wait()

    runtime = ProcessRuntime(tmp_path, sleep=hold)
    await put(runtime, script(CRASHES))
    await runtime.start("a")
    await until(lambda: runtime._units["a"].activity is Activity.RESTARTING)
    found = await service(runtime)
    assert (found.result, found.exit_status, found.restarts, found.pid) == ("exit-code", 7, 0, None)
    await runtime.stop("a")
    assert (await service(runtime)).activity is Activity.INACTIVE
    await runtime.close()


async def test_secrets_of_the_environment_are_never_logged(
    runtime: ProcessRuntime, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    await put(runtime, script(CRASHES), env={"API_KEY": "s3cr3t-value"})
    await runtime.start("a")
    await until(lambda: runtime._units["a"].activity is Activity.FAILED)
    assert "exit-code 7" in caplog.text
    assert "s3cr3t" not in caplog.text
    assert "s3cr3t" not in repr(runtime._units["a"]._command)


async def test_a_command_that_does_not_exist_is_a_failed_step(runtime: ProcessRuntime) -> None:
    await put(runtime, ["/no/such/engine"])
    with pytest.raises(StepFailed, match=r"slot a: can't run /no/such/engine"):
        await runtime.start("a")
    found = await service(runtime)
    assert (found.activity, found.result, found.exit_status) == (Activity.FAILED, "exit-code", 203)
