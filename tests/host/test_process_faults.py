from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import hal0
from hal0.core.facts import Known, Unknown
from hal0.core.launch import hash_of
from hal0.core.observed import Activity
from hal0.errors import HostUnreachable, StepFailed
from hal0.host import process_table as table
from hal0.host.process import ProcessRuntime

from .process_bench import (
    CRASHES,
    DEAF,
    QUICK,
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
    from collections.abc import AsyncIterator, Awaitable, Callable

    from hal0.core.observed import Instance

REPO = Path(hal0.__file__).parents[1]
OWNER = """
import asyncio, sys
from pathlib import Path
from hal0.host.process import ProcessRuntime

async def main():
    runtime = ProcessRuntime(Path(sys.argv[1]))
    await runtime.start("a")
    print("started", flush=True)
    await asyncio.sleep(3600)

asyncio.run(main())
"""


@pytest.fixture
async def make(tmp_path: Path) -> AsyncIterator[Callable[[], ProcessRuntime]]:
    """Make runtimes over one state folder; at the end the last one stops all."""
    made: list[ProcessRuntime] = []

    def make_one() -> ProcessRuntime:
        made.append(ProcessRuntime(tmp_path, policy=QUICK))
        return made[-1]

    yield make_one
    await made[-1].stop_all()
    for runtime in made:
        await runtime.close()


async def started(runtime: ProcessRuntime, argv: list[str], *, wait_for: int = 1) -> Instance:
    await put(runtime, argv, stop_timeout=0.2)
    await runtime.start("a")
    await written(runtime, wait_for)
    running = await instance(runtime)
    assert running is not None
    return running


async def test_a_crash_loop_is_given_up_and_can_be_reset(make: Callable[[], ProcessRuntime]) -> None:
    runtime = make()
    await put(runtime, script(CRASHES))
    await runtime.start("a")
    await until(lambda: runtime._units["a"].activity is Activity.FAILED)
    found = await service(runtime)
    assert (found.result, found.restarts, found.exit_status) == ("start-limit-hit", 4, 7)
    pids = await written(runtime, 5)
    assert len(pids) == 5
    assert all(table.stat(pid) is None for pid in pids)  # not even zombies
    await runtime.reset_failed("a")
    found = await service(runtime)
    assert (found.activity, found.result) == (Activity.INACTIVE, "success")
    await runtime.start("a")
    await written(runtime, 10)


async def test_a_start_in_the_backoff_starts_at_once(tmp_path: Path) -> None:
    async def never(_: float) -> None:
        await asyncio.Event().wait()

    runtime = ProcessRuntime(tmp_path, sleep=never)
    await put(runtime, script(CRASHES))
    await runtime.start("a")
    await until(lambda: runtime._units["a"].activity is Activity.RESTARTING)
    await put(runtime, script(SLEEPS))
    await runtime.start("a")
    found = await service(runtime)
    assert (found.activity, found.restarts) == (Activity.ACTIVE, 0)
    await runtime.stop_all()
    await runtime.close()


async def test_a_deaf_child_is_killed(make: Callable[[], ProcessRuntime]) -> None:
    runtime = make()
    await started(runtime, script(DEAF))
    (pid,) = await written(runtime, 1)
    await runtime.stop("a")
    assert is_dead(pid)
    found = await service(runtime)
    assert (found.activity, found.result, found.exit_status) == (Activity.FAILED, "timeout", 9)


@pytest.mark.parametrize("more", ["start_new_session=True", "env={}"])
async def test_grandchildren_end_with_the_child(make: Callable[[], ProcessRuntime], more: str) -> None:
    runtime = make()
    code = f"import subprocess, sys; subprocess.Popen([sys.executable, '-S', '-c', {DEAF!r}], {more}); {SLEEPS}"
    await started(runtime, script(code), wait_for=2)
    pids = await written(runtime, 2)
    await runtime.stop("a")
    await until(lambda: all(is_dead(pid) for pid in pids))


async def test_grandchildren_of_a_crashed_child_end_before_the_next_start(
    make: Callable[[], ProcessRuntime],
) -> None:
    runtime = make()
    helper = f"subprocess.Popen([sys.executable, '-S', '-c', {DEAF!r}], start_new_session=True)"
    running = await started(runtime, script(f"import subprocess, sys; {helper}; {SLEEPS}"), wait_for=2)
    first = await written(runtime, 2)
    os.kill(int(running.id.split(":")[0]), signal.SIGKILL)
    await written(runtime, 4)
    assert all(is_dead(pid) for pid in first)


async def test_children_of_a_killed_hal0_are_adopted(make: Callable[[], ProcessRuntime], tmp_path: Path) -> None:
    (tmp_path / "slots").mkdir()
    (tmp_path / "slots" / "a.toml").write_text(definition(script(SLEEPS)))
    command = [sys.executable, "-c", OWNER, str(tmp_path)]
    with popen(command, cwd=REPO, stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == b"started\n"
        owner.kill()
    runtime = make()
    await written(runtime, 1)
    found, running = await service(runtime), await instance(runtime)
    assert (found.activity, found.restarts) == (Activity.ACTIVE, 0)
    assert found.invocation == json.loads((tmp_path / "run" / "a.json").read_text())["invocation"]
    assert running is not None
    assert (running.slot, running.spec_hash) == ("a", hash_of(script(SLEEPS), {}))
    assert running.command == tuple(script(SLEEPS))

    os.kill(found.pid or 0, signal.SIGKILL)
    await written(runtime, 2)
    again = await service(runtime)
    assert (again.activity, again.restarts) == (Activity.ACTIVE, 1)
    assert again.pid != found.pid


async def test_an_adopted_child_is_stopped(make: Callable[[], ProcessRuntime]) -> None:
    first = make()
    running = await started(first, script(DEAF))
    await first.close()
    second = make()
    assert await instance(second) == running
    await second.start("a")
    assert await instance(second) == running
    await second.stop("a")
    assert await instance(second) is None
    assert is_dead(int(running.id.split(":")[0]))


async def test_a_child_without_a_record_is_found_by_its_mark(
    make: Callable[[], ProcessRuntime], tmp_path: Path
) -> None:
    first = make()
    running = await started(first, script(SLEEPS))
    await first.close()
    (tmp_path / "run" / "a.json").unlink()
    second = make()
    assert await instance(second) == running
    assert json.loads((tmp_path / "run" / "a.json").read_text())["pid"] == int(running.id.split(":")[0])


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"pid": 1}', '{"argv": 3}'])
async def test_a_damaged_record_is_made_again_from_the_mark(
    make: Callable[[], ProcessRuntime], tmp_path: Path, text: str
) -> None:
    first = make()
    running = await started(first, script(SLEEPS))
    await first.close()
    (tmp_path / "run" / "a.json").write_text(text)
    assert await instance(make()) == running


async def test_a_session_that_a_child_made_is_not_taken_for_the_child(make: Callable[[], ProcessRuntime]) -> None:
    first = make()
    helper = f"subprocess.Popen([sys.executable, '-S', '-c', {SLEEPS!r}], start_new_session=True)"
    running = await started(first, script(f"import subprocess, sys; {helper}; {SLEEPS}"), wait_for=2)
    await first.close()
    (first._folders.run / "a.json").unlink()
    assert await instance(make()) == running


@pytest.mark.parametrize("shift", [0, 1])
async def test_a_record_never_names_someone_elses_process(
    make: Callable[[], ProcessRuntime], tmp_path: Path, shift: int
) -> None:
    first = make()
    await started(first, script(SLEEPS))
    record = json.loads((tmp_path / "run" / "a.json").read_text())
    await first.stop("a")
    await first.close()
    with popen(script(SLEEPS), stdout=subprocess.DEVNULL, start_new_session=True) as stranger:
        start_time = table.start_time(stranger.pid)
        assert start_time
        reused = {**record, "pid": stranger.pid, "start_time": start_time + shift}
        (tmp_path / "run" / "a.json").write_text(json.dumps(reused))
        second = make()
        assert await instance(second) is None
        assert not (tmp_path / "run" / "a.json").exists()
        await second.stop("a")
        await second.start("a")
        assert stranger.poll() is None
        stranger.kill()


async def test_a_record_of_another_boot_is_not_believed(make: Callable[[], ProcessRuntime], tmp_path: Path) -> None:
    first = make()
    running = await started(first, script(SLEEPS))
    await first.close()
    path = tmp_path / "run" / "a.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "boot_id": "another", "argv": ["lies"]}))
    second = make()
    assert await instance(second) == running
    assert json.loads(path.read_text())["boot_id"] == table.boot_id()


async def test_the_child_of_another_state_folder_is_left_alone(
    make: Callable[[], ProcessRuntime], tmp_path: Path
) -> None:
    running = await started(make(), script(SLEEPS))
    other = ProcessRuntime(tmp_path / "other")
    assert (await other.observe({"a": ""}))["a"].instance == Known(None)
    await other.stop_all()
    await other.close()
    assert not is_dead(int(running.id.split(":")[0]))


async def test_a_command_that_vanishes_is_given_up(make: Callable[[], ProcessRuntime], tmp_path: Path) -> None:
    runtime = make()
    engine = tmp_path / "engine"
    engine.symlink_to(sys.executable)
    running = await started(runtime, [str(engine), "-S", "-c", SLEEPS])
    engine.unlink()
    os.kill(int(running.id.split(":")[0]), signal.SIGKILL)
    await until(lambda: runtime._units["a"].activity is Activity.FAILED)
    found = await service(runtime)
    assert (found.result, found.exit_status) == ("start-limit-hit", 203)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("not toml", "definition is wrong"),
        ("[other]\n", "no \\[process\\] table"),
        ("[process]\nargv = []\n", "argv must be"),
        ('[process]\nargv = "engine --x"\n', "argv must be"),
        ('[process]\nargv = ["x"]\nenv = {A = 1}\n', "env must be"),
        ('[process]\nargv = ["x"]\nstop_timeout = "long"\n', "stop_timeout must be"),
        ('[process]\nargv = ["x"]\nstop_timeout = true\n', "stop_timeout must be"),
    ],
)
async def test_a_damaged_definition_is_seen_and_refused(
    make: Callable[[], ProcessRuntime], text: str, problem: str
) -> None:
    runtime = make()
    await runtime.write("a", text)
    await runtime.reload()
    found = await service(runtime)
    assert (found.load, found.argv) == ("bad-setting", ())
    with pytest.raises(StepFailed, match=problem):
        await runtime.start("a")


async def test_a_definition_that_cant_be_read_is_unknown_not_absent(
    make: Callable[[], ProcessRuntime], tmp_path: Path
) -> None:
    runtime = make()
    (tmp_path / "slots" / "a.toml").mkdir()
    seen = (await runtime.observe({"a": ""}))["a"]
    assert isinstance(seen.definition, Unknown)
    assert isinstance(seen.service, Unknown)
    with pytest.raises(StepFailed, match="can't write"):
        await runtime.write("a", "x")
    with pytest.raises(StepFailed, match="can't remove"):
        await runtime.remove("a")
    (tmp_path / "slots" / "a.toml").rmdir()


async def test_an_unreadable_definition_leaves_what_is_loaded(
    make: Callable[[], ProcessRuntime], tmp_path: Path
) -> None:
    runtime = make()
    await started(runtime, script(SLEEPS))
    await runtime.remove("a")
    (tmp_path / "slots" / "a.toml").mkdir()
    await runtime.reload()
    found = await service(runtime)
    assert (found.activity, found.argv) == (Activity.ACTIVE, tuple(script(SLEEPS)))
    (tmp_path / "slots" / "a.toml").rmdir()


async def test_folders_that_were_removed_are_made_again(make: Callable[[], ProcessRuntime], tmp_path: Path) -> None:
    runtime = make()
    for name in ("slots", "run", "logs"):
        (tmp_path / name).rmdir()
    await started(runtime, script(SLEEPS))


async def test_without_a_record_the_child_runs_all_the_same(
    make: Callable[[], ProcessRuntime], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    runtime = make()
    (tmp_path / "run").rmdir()
    (tmp_path / "run").write_text("in the way")
    assert await started(runtime, script(SLEEPS))
    assert "can't record its process" in caplog.text
    (tmp_path / "run").unlink()


async def test_when_processes_cant_be_listed_nothing_is_known(
    make: Callable[[], ProcessRuntime], monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = make()
    await runtime.write("a", definition(script(SLEEPS)))
    with monkeypatch.context() as patch:
        patch.setattr(table, "marked", _refuse)
        assert isinstance((await runtime.observe({"a": ""}))["a"].instance, Unknown)
        with pytest.raises(HostUnreachable, match="can't look for children"):
            await runtime.start("a")
    assert (await runtime.observe({"a": ""}))["a"].instance == Known(None)


async def test_a_state_folder_that_cant_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(HostUnreachable, match="can't use"):
        ProcessRuntime(tmp_path / "file")


async def test_starts_and_stops_at_once_leave_one_child_or_none(make: Callable[[], ProcessRuntime]) -> None:
    runtime = make()
    await put(runtime, script(SLEEPS))
    calls: list[Awaitable[None]] = [runtime.start("a"), runtime.stop("a"), runtime.start("a"), runtime.start("a")]
    await asyncio.gather(*calls)
    running = await instance(runtime)
    assert running is not None
    marks = [mark.pid for mark in table.marked(runtime._folders.state)]
    assert marks == [int(running.id.split(":")[0])]


async def test_a_stop_that_is_cancelled_can_be_asked_for_again(make: Callable[[], ProcessRuntime]) -> None:
    runtime = make()
    await put(runtime, script(DEAF), stop_timeout=3600)
    await runtime.start("a")
    (pid,) = await written(runtime, 1)
    stopping = asyncio.create_task(runtime.stop("a"))
    await until(lambda: runtime._units["a"].activity is Activity.DEACTIVATING)
    stopping.cancel()
    await asyncio.wait({stopping})
    await put(runtime, script(SLEEPS), stop_timeout=0.1)
    await runtime.start("a")
    await written(runtime, 2)
    assert is_dead(pid)
    assert (await service(runtime)).activity is Activity.ACTIVE


def popen(command: list[str], **more: Any) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command, **more)


def _refuse(_: Path) -> list[table.Marked]:
    raise PermissionError(13, "Permission denied")
