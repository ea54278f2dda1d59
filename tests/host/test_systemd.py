from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from typing import TYPE_CHECKING

import pytest
from dbus_next.signature import Variant
from hypothesis import given
from hypothesis import strategies as st

from hal0.errors import HostUnreachable, StepFailed
from hal0.host import systemd as module
from hal0.host.scope import Scope
from hal0.host.systemd import Systemd, unit_name, unit_path

from .fake_systemd import MANAGER, PATH, Daemon, FakeSystemd

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator
    from pathlib import Path

UNIT = "hal0-slot@chat.service"


def scope_at(address: str) -> Scope:
    return dataclasses.replace(Scope.of("system"), bus_address=address)


@pytest.fixture
def fake(fake_systemd: FakeSystemd) -> FakeSystemd:
    fake_systemd.add(UNIT)
    return fake_systemd


@pytest.fixture
async def systemd(fake: FakeSystemd, daemon: Daemon) -> AsyncIterator[Systemd]:
    assert fake.bus.connected
    systemd = Systemd(scope_at(daemon.address))
    yield systemd
    await systemd.close()


@pytest.fixture
async def changes(systemd: Systemd) -> AsyncIterator[AsyncGenerator[str]]:
    async with contextlib.aclosing(systemd.changes()) as changes:
        assert await anext(changes) == "*"
        yield changes


@pytest.mark.parametrize("moment", ["early", "late"])
async def test_a_job_is_matched_whenever_its_signal_comes(systemd: Systemd, fake: FakeSystemd, moment: str) -> None:
    fake.moment = moment
    await systemd.start(UNIT)
    await systemd.stop(UNIT)
    assert [call for call in fake.calls if call[0] in {"StartUnit", "StopUnit"}] == [
        ("StartUnit", [UNIT, "replace"]),
        ("StopUnit", [UNIT, "replace"]),
    ]


async def test_signals_are_asked_for_before_any_job(systemd: Systemd, fake: FakeSystemd) -> None:
    await systemd.start(UNIT)
    assert fake.calls[0][0] == "Subscribe"


@pytest.mark.parametrize(
    ("result", "text"),
    [
        ("failed", "failed to start"),
        ("timeout", "job timeout"),
        ("dependency", "depends on"),
        ("canceled", "cancelled"),
        ("skipped", "skipped"),
        ("novelty", "novelty"),
    ],
)
async def test_any_result_but_done_fails_the_step(systemd: Systemd, fake: FakeSystemd, result: str, text: str) -> None:
    fake.result = result
    with pytest.raises(StepFailed, match=text):
        await systemd.start(UNIT)


async def test_a_failure_tells_how_the_process_ended(systemd: Systemd, fake: FakeSystemd) -> None:
    fake.add(UNIT, "failed", "failed", Result=Variant("s", "exit-code"), ExecMainStatus=Variant("i", 125))
    fake.result = "failed"
    with pytest.raises(StepFailed, match="exit-code, exit status 125"):
        await systemd.start(UNIT)


@pytest.mark.parametrize(("active", "fine"), [("active", True), ("inactive", False)])
async def test_a_lost_signal_is_made_up_for_by_looking(
    systemd: Systemd, fake: FakeSystemd, monkeypatch: pytest.MonkeyPatch, active: str, fine: bool
) -> None:
    monkeypatch.setattr(module, "_POLL_S", 0.01)
    fake.add(UNIT, active)
    fake.moment = "lost"
    with contextlib.nullcontext() if fine else pytest.raises(StepFailed):
        await systemd.start(UNIT)


async def test_a_job_that_never_ends_ends_the_wait(systemd: Systemd, fake: FakeSystemd) -> None:
    fake.moment = "never"
    with pytest.raises(StepFailed, match="still runs"):
        await systemd.start(UNIT, timeout=0.05)


async def test_a_condition_that_is_not_met_is_no_start(systemd: Systemd, fake: FakeSystemd) -> None:
    fake.add(UNIT, ConditionResult=Variant("b", False))
    with pytest.raises(StepFailed, match="condition"):
        await systemd.start(UNIT)


async def test_two_starts_of_one_unit_both_end(systemd: Systemd, fake: FakeSystemd) -> None:
    fake.moment = "early"
    await asyncio.gather(systemd.start(UNIT), systemd.start(UNIT))


async def test_a_refusal_says_what_to_do(systemd: Systemd, fake: FakeSystemd) -> None:
    fake.refuse["StartUnit"] = ("org.freedesktop.DBus.Error.AccessDenied", "Access denied")
    with pytest.raises(StepFailed, match="Access denied") as caught:
        await systemd.start(UNIT)
    assert "root" in caught.value.hint


async def test_a_unit_that_is_not_loaded_is_stopped_and_not_failed(systemd: Systemd, fake: FakeSystemd) -> None:
    refusal = ("org.freedesktop.systemd1.NoSuchUnit", "Unit not loaded.")
    fake.refuse = {"StopUnit": refusal, "ResetFailedUnit": refusal, "StartUnit": refusal}
    await systemd.stop(UNIT)
    await systemd.reset_failed(UNIT)
    with pytest.raises(StepFailed):
        await systemd.start(UNIT)


async def test_listing_and_showing(systemd: Systemd, fake: FakeSystemd) -> None:
    fake.add(UNIT, "activating", "auto-restart")
    listed = await systemd.list_units("hal0-slot@*.service")
    assert (listed[UNIT].active, listed[UNIT].sub) == ("activating", "auto-restart")
    shown = await systemd.show(UNIT)
    assert shown["ExecStart"][0][1] == ["/bin/x", "-y"]
    assert shown["MemoryCurrent"] is None
    assert shown["NeedDaemonReload"] is False
    assert "Nice" not in shown


async def test_a_refused_read_is_not_an_answer(systemd: Systemd, fake: FakeSystemd) -> None:
    fake.refuse["GetAll"] = ("org.freedesktop.DBus.Error.AccessDenied", "no")
    with pytest.raises(HostUnreachable):
        await systemd.show(UNIT)


async def test_a_silent_systemd_is_unreachable(systemd: Systemd, fake: FakeSystemd) -> None:
    fake.refuse["Reload"] = None
    with pytest.raises(HostUnreachable, match="no answer"):
        await systemd._do(f"{MANAGER}.Reload", timeout=0.05)


async def test_changes_name_units_and_reloads(
    systemd: Systemd, fake: FakeSystemd, changes: AsyncGenerator[str]
) -> None:
    fake.change(UNIT)
    assert await anext(changes) == UNIT
    await systemd.reload()
    assert await anext(changes) == "*"
    await systemd.start(UNIT)
    assert await anext(changes) == UNIT


async def test_loading_a_unit_is_not_a_change(fake: FakeSystemd, changes: AsyncGenerator[str]) -> None:
    for member in ("UnitNew", "UnitRemoved"):
        fake.signal(PATH, MANAGER, member, "so", [UNIT, unit_path(UNIT)])
    fake.change("hal0-slot@other.service")
    assert await anext(changes) == "hal0-slot@other.service"


async def test_a_restarted_systemd_is_subscribed_to_again(
    daemon: Daemon, fake: FakeSystemd, changes: AsyncGenerator[str]
) -> None:
    fake.close()
    again = FakeSystemd(daemon.address)
    await again.serve()
    assert await anext(changes) == "*"
    assert again.calls == [("Subscribe", [])]
    again.close()


async def test_a_lost_bus_is_connected_again(
    daemon: Daemon, fake: FakeSystemd, systemd: Systemd, changes: AsyncGenerator[str]
) -> None:
    daemon.kill()
    await systemd._lost.wait()
    with pytest.raises(HostUnreachable):
        await systemd.show(UNIT)
    daemon.start()
    fake.close()
    await fake.serve()
    assert await anext(changes) == "*"
    assert await systemd.list_units("*") != {}


async def test_a_bus_lost_during_a_job_ends_the_wait(
    daemon: Daemon, fake: FakeSystemd, systemd: Systemd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_POLL_S", 0.01)
    fake.moment = "never"
    start = asyncio.create_task(systemd.start(UNIT))
    await fake.called.wait()
    daemon.kill()
    with pytest.raises(HostUnreachable):
        await start


async def test_no_bus_is_unreachable_at_once(tmp_path: Path) -> None:
    systemd = Systemd(scope_at(f"unix:path={tmp_path}/none"))
    with pytest.raises(HostUnreachable, match="No such file"):
        await systemd.list_units("*")
    await systemd.close()


@pytest.mark.parametrize("manner", ["mute", "hangs up"])
async def test_a_bus_that_does_not_speak_is_unreachable(tmp_path: Path, manner: str) -> None:
    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if manner == "mute":
            await silence.wait()
        writer.close()
        await writer.wait_closed()

    silence = asyncio.Event()
    server = await asyncio.start_unix_server(serve, tmp_path / "bus")
    systemd = Systemd(scope_at(f"unix:path={tmp_path}/bus"))
    with pytest.raises(HostUnreachable):
        await systemd._bus.connect(timeout=0.2)
    silence.set()
    await systemd.close()
    server.close()
    await server.wait_closed()


@given(st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1))
def test_unit_paths_can_be_read_back(name: str) -> None:
    assert unit_name(unit_path(name)) == name
    assert set(unit_path(name).removeprefix(f"{PATH}/unit/")) <= set(
        "_abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
    )


def test_a_unit_path_as_systemd_makes_it() -> None:
    assert unit_path(UNIT) == f"{PATH}/unit/hal0_2dslot_40chat_2eservice"
