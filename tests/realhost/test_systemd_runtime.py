"""The systemd runtime against a real systemd and a real podman: this file is also the program that runs in the box."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import site
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from hal0.core.facts import Known, Unknown
from hal0.core.observed import Activity, Instance, Service, SlotObservation
from hal0.errors import StepFailed
from hal0.host.scope import Scope
from hal0.host.systemd_runtime import SystemdRuntime

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from .box import Box
    from .conftest import Engine
    from .session import UserSession

REPOSITORY = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.realhost

SCENARIO_S = 120.0
TEMPLATE = """[Unit]
Description=hal0 slot %i
StartLimitIntervalSec=60
StartLimitBurst=3

[Service]
Type=notify
NotifyAccess=all
KillMode=mixed
Delegate=yes
SuccessExitStatus=143
TimeoutStartSec=60
ExecStopPost=-/usr/bin/podman rm -v -f -i hal0-slot-%i
"""
OVERRIDE = Path("/etc/systemd/system/hal0-slot@edit.service.d/60-mine.conf")
SERVE = "trap 'exit 143' TERM; echo serving; sleep infinity & wait"


def argv_of(slot: str, image: str, script: str) -> list[str]:
    return [
        *("/usr/bin/podman", "run", "--name", f"hal0-slot-{slot}", "--replace", "--rm", "-d"),
        *("--cgroups=split", "--sdnotify=conmon", "--network=none", "--log-driver=journald"),
        *("--label", f"hal0.slot={slot}", "--label", "hal0.spec=abc", image, "sh", "-c", script),
    ]


def dropin(slot: str, image: str, script: str = SERVE, more: str = "") -> str:
    command = " ".join(f'"{word}"' for word in argv_of(slot, image, script))
    return f'[Service]\nExecStart=\nExecStart={command}\n{more}\n[X-Hal0]\nSlot = "{slot}"\n'


class Watched:
    """The names that the runtime announced and that a scenario has not yet waited for."""

    def __init__(self) -> None:
        self.names: set[str] = set()
        self._news = asyncio.Event()

    async def fill(self, runtime: SystemdRuntime) -> None:
        async for name in runtime.events():
            self.names.add(name)
            self._news.set()

    async def until(self, name: str) -> None:
        while name not in self.names:
            self._news.clear()
            await self._news.wait()
        self.names.discard(name)

    async def quiet(self) -> None:
        """Wait until half a second passes without news, and forget what was."""
        with contextlib.suppress(TimeoutError):
            while True:
                self._news.clear()
                async with asyncio.timeout(0.5):
                    await self._news.wait()
        self.names.clear()


@contextlib.asynccontextmanager
async def watched(runtime: SystemdRuntime) -> AsyncIterator[Watched]:
    watched = Watched()
    task = asyncio.create_task(watched.fill(runtime))
    try:
        await watched.until("*")
        yield watched
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def look(runtime: SystemdRuntime, slot: str, image: str) -> SlotObservation:
    return (await runtime.observe({slot: image}, only=frozenset({slot})))[slot]


async def look_until(
    runtime: SystemdRuntime, slot: str, image: str, good: Callable[[SlotObservation], bool]
) -> SlotObservation:
    """Look again until it is as expected; the scenario's deadline ends it otherwise."""
    while True:
        seen = await look(runtime, slot, image)
        if good(seen):
            return seen
        await asyncio.sleep(0.05)


async def logged(runtime: SystemdRuntime, slot: str, line: str) -> None:
    """Wait until the service's log holds a line."""
    while True:
        if line in await runtime.logs(slot, lines=20):
            return
        await asyncio.sleep(0.05)


def service_of(seen: SlotObservation) -> Service:
    assert isinstance(seen.service, Known), seen
    assert seen.service.value is not None, seen
    return seen.service.value


async def lifecycle(runtime: SystemdRuntime, image: str) -> None:
    absent = await look(runtime, "life", image)
    assert absent.definition == absent.service == absent.instance == Known(None), absent
    assert isinstance(absent.image, Known), absent
    assert absent.image.value, absent
    await runtime.write("life", dropin("life", image))
    await runtime.reload()
    assert service_of(await look(runtime, "life", image)).activity is Activity.INACTIVE
    await runtime.reset_failed("life")
    await runtime.start("life")
    seen = await look(runtime, "life", image)
    service = service_of(seen)
    assert (service.activity, service.load, service.needs_reload) == (Activity.ACTIVE, "loaded", False)
    assert service.argv == tuple(argv_of("life", image, SERVE))
    assert service.fragment.endswith("/hal0-slot@.service")
    assert service.operator_dropins == ()
    assert service.pid
    assert service.memory is None or service.memory > 0  # None where the box has no memory controller
    assert len(service.invocation) == 32
    assert isinstance(seen.instance, Known), seen
    assert seen.instance.value is not None, seen
    found = seen.instance.value
    assert found == Instance(found.id, True, "life", "abc", absent.image.value, service.argv)  # and no limits
    await logged(runtime, "life", "serving")
    assert set(await runtime.observe({})) >= {"life"}
    await runtime.stop("life")
    gone = await look(runtime, "life", image)
    assert service_of(gone).activity is Activity.INACTIVE
    assert gone.instance == Known(None)
    await runtime.stop("life")
    await runtime.remove("life")
    await runtime.remove("life")
    await runtime.reload()
    assert dataclasses.replace(await look(runtime, "life", image), image=absent.image) == absent
    await runtime.stop("life")


async def edits(runtime: SystemdRuntime, image: str) -> None:
    await runtime.write("edit", dropin("edit", image))
    await runtime.reload()
    await runtime.start("edit")
    await runtime.write("edit", dropin("edit", image, "sleep infinity"))
    assert service_of(await look(runtime, "edit", image)).needs_reload
    await asyncio.to_thread(OVERRIDE.write_text, "[Service]\nNice=5\n")
    await runtime.reload()
    service = service_of(await look(runtime, "edit", image))
    assert service.operator_dropins == (str(OVERRIDE),)
    assert not service.needs_reload
    assert service.argv[-1] == "sleep infinity"
    await runtime.remove("edit")
    await runtime.reload()
    orphan = await look(runtime, "edit", image)
    assert service_of(orphan).activity is Activity.ACTIVE
    assert orphan.definition == Known(None)
    await runtime.stop("edit")


async def events(runtime: SystemdRuntime, image: str) -> None:
    await runtime.write("event", dropin("event", image))
    async with watched(runtime) as news:
        await runtime.reload()
        await news.until("*")
        await news.quiet()
        for _ in range(5):
            await runtime.observe({"event": image})
        await asyncio.sleep(1)
        assert news.names == set(), f"looking is an event: {news.names}"
        await runtime.start("event")
        await news.until("event")
        await news.quiet()
        subprocess.run(["podman", "kill", "hal0-slot-event"], check=True, capture_output=True)  # noqa: ASYNC221
        await news.until("event")
        dead = await look_until(runtime, "event", image, lambda seen: service_of(seen).activity is Activity.FAILED)
        assert dead.instance == Known(None)
        assert service_of(dead).exit_status == 137
        await runtime.reset_failed("event")
        assert service_of(await look(runtime, "event", image)).activity is Activity.INACTIVE
        await news.quiet()
        for verb in ("daemon-reload", "daemon-reexec"):
            subprocess.run(["systemctl", verb], check=True)  # noqa: ASYNC221
            await news.until("*")
            await news.quiet()
        await runtime.start("event")
        await runtime.stop("event")


async def crash_loop(runtime: SystemdRuntime, image: str) -> None:
    crashing = dropin("crash", image, "exit 3", "Restart=on-failure\nRestartSec=1")
    await runtime.write("crash", crashing)
    await runtime.reload()
    with contextlib.suppress(StepFailed):  # conmon may have said READY before the container ended
        await runtime.start("crash")

    def is_restarting(seen: SlotObservation) -> bool:
        return service_of(seen).activity is Activity.RESTARTING

    def is_failed(seen: SlotObservation) -> bool:
        return service_of(seen).activity is Activity.FAILED

    await look_until(runtime, "crash", image, is_restarting)
    end = service_of(await look_until(runtime, "crash", image, is_failed))
    assert end.result in {"start-limit-hit", "exit-code"}, end
    assert end.exit_status == 3, end
    assert end.restarts >= 2, end
    with pytest.raises(StepFailed):
        await runtime.start("crash")
    await runtime.reset_failed("crash")
    await runtime.write("crash", dropin("crash", image))
    await runtime.reload()
    await runtime.start("crash")
    await runtime.stop("crash")


async def unstartable(runtime: SystemdRuntime, image: str) -> None:
    with pytest.raises(StepFailed) as bare:
        await runtime.start("bare")
    assert str(bare.value)
    await runtime.write("noimage", dropin("noimage", "localhost/no/such:1"))
    await runtime.reload()
    with pytest.raises(StepFailed, match="exit"):
        await runtime.start("noimage")
    seen = await look(runtime, "noimage", "localhost/no/such:1")
    assert seen.image == Known(None)
    assert service_of(seen).exit_status == 125
    await runtime.write("nonsense", "[Service]\nNice=1\n")
    await runtime.reload()
    assert service_of(await look(runtime, "nonsense", image)).load != "loaded"
    with pytest.raises(StepFailed, match="setting"):
        await runtime.start("nonsense")
    with pytest.raises(StepFailed):
        await runtime.pull("localhost/no/such:1")


async def sources_away(runtime: SystemdRuntime, image: str) -> None:
    await runtime.write("away", dropin("away", image))
    await runtime.reload()
    await runtime.start("away")
    async with watched(runtime) as news:
        await news.quiet()
        subprocess.run(["systemctl", "stop", "podman.socket", "podman.service"], check=True)  # noqa: ASYNC221
        seen = await look(runtime, "away", image)
        assert isinstance(seen.instance, Unknown), seen
        assert isinstance(seen.image, Unknown), seen
        assert service_of(seen).activity is Activity.ACTIVE
        subprocess.run(["systemctl", "start", "podman.socket"], check=True)  # noqa: ASYNC221
        await news.until("*")
        assert isinstance((await look(runtime, "away", image)).instance, Known)
    await runtime.stop("away")


async def no_bus(_: SystemdRuntime, image: str) -> None:
    lost = dataclasses.replace(Scope.of("system"), bus_address="unix:path=/run/no/bus")
    runtime = SystemdRuntime(lost)
    await runtime.write("nobus", dropin("nobus", image))
    seen = await look(runtime, "nobus", image)
    assert isinstance(seen.definition, Known), seen
    assert seen.definition.value is not None, seen
    assert isinstance(seen.service, Unknown), seen
    assert seen.instance == Known(None)
    await runtime.remove("nobus")
    await runtime.close()


async def nothing(runtime: SystemdRuntime, _: str) -> None:
    """Show that the program can run at all."""
    await runtime._podman.images(["x"])


SCENARIOS = {
    scenario.__name__: scenario
    for scenario in (lifecycle, edits, events, crash_loop, unstartable, sources_away, no_bus)
}


@pytest.fixture(scope="module")
def prepared(box: Box) -> Box:
    box.write("/etc/systemd/system/hal0-slot@.service", TEMPLATE)
    box.run("systemctl", "daemon-reload")
    box.run("systemctl", "start", "podman.socket")
    return box


@pytest.mark.parametrize("name", SCENARIOS)
def test_in_the_box(prepared: Box, engine: Engine, name: str) -> None:
    program = [sys.executable, "-W", "error", __file__, name, engine.image]
    prepared.run(*program, timeout=SCENARIO_S + 30, env={"PYTHONPATH": str(REPOSITORY)})


def test_as_a_user(box: Box, tester: UserSession, rootless_engine: Engine) -> None:
    box.run("usermod", "--append", "--groups", "systemd-journal", tester.name)
    # A user of the box may not enter this machine's /root, where the interpreter may lie.
    paths = [str(REPOSITORY), *site.getsitepackages()]
    program, env = ["/usr/bin/python3", __file__], {"PYTHONPATH": ":".join(paths)}
    if tester.run(*program, "nothing", "", "user", env=env, check=False).returncode:
        pytest.skip("the box's own python3 can't import what is installed for this one")
    tester.write(f"/home/{tester.name}/.config/systemd/user/hal0-slot@.service", TEMPLATE)
    tester.run("systemctl", "--user", "daemon-reload")
    tester.run("systemctl", "--user", "start", "podman.socket")
    tester.run(*program, "lifecycle", rootless_engine.image, "user", timeout=SCENARIO_S + 30, env=env)


async def main(name: str, image: str, scope: str = "system") -> None:
    runtime = SystemdRuntime(Scope.of(scope))
    try:
        async with asyncio.timeout(SCENARIO_S):
            await {**SCENARIOS, "nothing": nothing}[name](runtime, image)
    finally:
        await runtime.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
