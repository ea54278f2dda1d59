from __future__ import annotations

import contextlib
import dataclasses
from typing import TYPE_CHECKING

import pytest
from dbus_next.signature import Variant

from hal0.core.facts import Known, Unknown
from hal0.core.observed import Activity, Service, SlotObservation
from hal0.core.spec import unit_name
from hal0.host.scope import Scope
from hal0.host.systemd_runtime import SystemdRuntime, activity_of

from .fake_podman import IMAGE, FakePodman, inspected, row_4
from .fake_systemd import FakeSystemd

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

REF = "localhost/tiny:1"


@pytest.fixture
def scope(tmp_path: Path) -> Scope:
    return dataclasses.replace(
        Scope.of("system"),
        unit_dir=tmp_path / "units",
        bus_address=f"unix:path={tmp_path}/bus",
        podman_socket=f"unix://{tmp_path}/podman.sock",
    )


@pytest.fixture
async def podman(tmp_path: Path) -> AsyncIterator[FakePodman]:
    fake = FakePodman(tmp_path / "podman.sock")
    await fake.serve()
    fake.image(REF)
    yield fake
    await fake.close()


@pytest.fixture
async def runtime(scope: Scope) -> AsyncIterator[SystemdRuntime]:
    runtime = SystemdRuntime(scope)
    yield runtime
    await runtime.close()


def service_of(seen: SlotObservation) -> Service:
    assert isinstance(seen.service, Known)
    assert seen.service.value is not None
    return seen.service.value


async def test_a_host_with_nothing_knows_only_its_disk(runtime: SystemdRuntime) -> None:
    await runtime.write("chat", "text")
    seen = await runtime.observe({"chat": REF, "embed": REF})
    assert isinstance(seen["chat"].definition, Known)
    assert seen["chat"].definition.value is not None
    assert seen["embed"].definition == Known(None)
    for facts in seen.values():
        for fact in (facts.service, facts.instance, facts.image, facts.probe):
            assert isinstance(fact, Unknown)


async def test_all_sources_name_slots(runtime: SystemdRuntime, fake_systemd: FakeSystemd, podman: FakePodman) -> None:
    await runtime.write("on-disk", "text")
    fake_systemd.add(unit_name("in-memory"), "active", "running")
    podman.containers = [row_4("hal0-slot-orphan"), row_4("x", **{"hal0.slot": "../not a slot"})]
    podman.inspections = {"id-of-hal0-slot-orphan": inspected(["podman"])}
    seen = await runtime.observe({"wanted": REF})
    assert set(seen) == {"wanted", "on-disk", "in-memory", "orphan"}
    assert seen["wanted"].image == Known(IMAGE)
    assert seen["orphan"].image == Known(None)
    only = await runtime.observe({"wanted": REF}, only=frozenset({"orphan", "nowhere"}))
    assert set(only) == {"orphan", "nowhere"}
    absent = only["nowhere"]
    assert absent.definition == absent.service == absent.instance == absent.image == Known(None)


async def test_a_service_as_systemd_has_it(
    runtime: SystemdRuntime, fake_systemd: FakeSystemd, podman: FakePodman
) -> None:
    assert podman.images
    await runtime.write("chat", "text")
    own = str(runtime._dropins.path("chat"))
    fake_systemd.add(
        unit_name("chat"),
        "failed",
        "failed",
        NeedDaemonReload=Variant("b", True),
        FragmentPath=Variant("s", "/etc/x.service"),
        DropInPaths=Variant("as", ["/etc/mine.conf", own]),
        Result=Variant("s", "signal"),
        NRestarts=Variant("u", 4),
        ExecMainCode=Variant("i", 2),
        ExecMainStatus=Variant("i", 9),
        InvocationID=Variant("ay", b"\x01\xff"),
        MainPID=Variant("u", 0),
    )
    seen = await runtime.observe({}, only=frozenset({"chat"}))
    assert service_of(seen["chat"]) == Service(
        activity=Activity.FAILED,
        argv=("/bin/x", "-y"),
        needs_reload=True,
        fragment="/etc/x.service",
        operator_dropins=("/etc/mine.conf",),
        result="signal",
        restarts=4,
        exit_status=137,
        invocation="01ff",
    )


async def test_a_bare_instance_of_the_template_is_no_service(
    runtime: SystemdRuntime, fake_systemd: FakeSystemd
) -> None:
    fake_systemd.add(unit_name("bare"))
    fake_systemd.add(unit_name("failed"), "failed", "failed")
    seen = await runtime.observe({})
    assert seen["bare"].service == Known(None)
    assert service_of(seen["failed"]).activity is Activity.FAILED


async def test_what_cannot_be_understood_is_unknown(runtime: SystemdRuntime, fake_systemd: FakeSystemd) -> None:
    fake_systemd.add(unit_name("odd"), "levitating")
    fake_systemd.add(unit_name("poor"), "active")
    del fake_systemd.units[unit_name("poor")]["NeedDaemonReload"]
    seen = await runtime.observe({})
    assert isinstance(seen["odd"].service, Unknown)
    assert isinstance(seen["poor"].service, Unknown)


@pytest.mark.parametrize(
    ("active", "sub", "job", "activity"),
    [
        ("active", "running", "", Activity.ACTIVE),
        ("active", "running", "stop", Activity.ACTIVE),
        ("reloading", "reload", "", Activity.ACTIVE),
        ("inactive", "dead", "", Activity.INACTIVE),
        ("inactive", "dead", "start", Activity.ACTIVATING),
        ("failed", "failed", "start", Activity.ACTIVATING),
        ("activating", "start", "", Activity.ACTIVATING),
        ("activating", "auto-restart", "", Activity.RESTARTING),
        ("activating", "auto-restart-queued", "", Activity.RESTARTING),
        ("deactivating", "stop-sigterm", "", Activity.DEACTIVATING),
        ("failed", "failed", "", Activity.FAILED),
    ],
)
def test_activities(active: str, sub: str, job: str, activity: Activity) -> None:
    assert activity_of(active, sub, job) is activity


async def test_events_of_both_sources(runtime: SystemdRuntime, fake_systemd: FakeSystemd, podman: FakePodman) -> None:
    async with contextlib.aclosing(runtime.events()) as events:
        assert await anext(events) == "*"
        await podman.streams.get()
        await fake_systemd.subscribed.wait()
        fake_systemd.change("ssh.service")
        fake_systemd.change(unit_name("chat"))
        while (name := await anext(events)) == "*":
            pass
        assert name == "chat"


async def test_starting_and_stopping(runtime: SystemdRuntime, fake_systemd: FakeSystemd) -> None:
    fake_systemd.add(unit_name("chat"), TimeoutStartUSec=Variant("t", 2**64 - 1))
    await runtime.reload()
    await runtime.reset_failed("chat")
    await runtime.start("chat")
    await runtime.stop("chat")
    verbs = [name for name, _ in fake_systemd.calls if name not in {"GetAll", "Subscribe"}]
    assert verbs == ["Reload", "ResetFailedUnit", "StartUnit", "StopUnit"]
