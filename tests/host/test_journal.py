from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
from typing import TYPE_CHECKING

import pytest

from hal0.errors import HostUnreachable, StepFailed
from hal0.host import journal
from hal0.host.scope import Scope

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

UNIT = "hal0-slot@chat.service"
SYSTEM = Scope.of("system")
USER = dataclasses.replace(SYSTEM, name="user")


@pytest.fixture
def journalctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Put a script in journalctl's place; it may write its process id to the returned file."""

    def install(script: str) -> Path:
        program = tmp_path / "journalctl"
        program.write_text(f'#!/bin/sh\necho $$ >{tmp_path}/pid\necho "$@" >{tmp_path}/args\n{script}\n')
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        return tmp_path

    return install


async def test_lines_come_oldest_first(journalctl: Callable[[str], Path]) -> None:
    folder = journalctl(r"printf 'one\ntw\377o\n'")
    assert await journal.logs(UNIT, 7, SYSTEM) == ["one", "tw\N{REPLACEMENT CHARACTER}o"]
    assert (folder / "args").read_text() == f"-q -o cat --no-pager --unit {UNIT} -n 7\n"


async def test_a_users_unit_is_asked_for_as_such(journalctl: Callable[[str], Path]) -> None:
    folder = journalctl("")
    assert await journal.logs(UNIT, 1, USER) == []
    assert "--user-unit" in (folder / "args").read_text()


async def test_no_journalctl_no_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert await journal.logs(UNIT, 7, SYSTEM) == []
    assert [line async for line in journal.follow(UNIT, SYSTEM)] == []


async def test_a_failure_is_told(journalctl: Callable[[str], Path]) -> None:
    journalctl("echo no journal here >&2; exit 1")
    with pytest.raises(StepFailed, match="no journal here"):
        await journal.logs(UNIT, 7, SYSTEM)


async def test_who_may_not_read_is_told_the_group(journalctl: Callable[[str], Path]) -> None:
    journalctl("echo No journal files were opened due to insufficient permissions. >&2; exit 1")
    with pytest.raises(StepFailed) as caught:
        await journal.logs(UNIT, 7, USER)
    assert "systemd-journal" in caught.value.hint


async def test_a_hanging_journalctl_is_ended(
    journalctl: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = journalctl("exec sleep 1000")
    monkeypatch.setattr(journal, "READ_S", 0.3)
    with pytest.raises(HostUnreachable):
        await journal.logs(UNIT, 7, SYSTEM)
    assert not (folder / "pid").exists() or is_gone((folder / "pid").read_text())


async def test_following_yields_lines_and_ends_its_process(journalctl: Callable[[str], Path]) -> None:
    folder = journalctl("echo one; echo two; exec sleep 1000")
    async with asyncio.timeout(20), contextlib.aclosing(journal.follow(UNIT, SYSTEM)) as lines:
        assert [await anext(lines), await anext(lines)] == ["one", "two"]
        pid = (folder / "pid").read_text()
        assert "-n 0 -f" in (folder / "args").read_text()
    assert is_gone(pid)


async def test_an_overlong_line_is_left_out(journalctl: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "_LONGEST_LINE", 100)
    journalctl("echo one; head -c 5000 /dev/zero | tr '\\0' x; echo; echo two")
    lines = [line async for line in journal.follow(UNIT, SYSTEM)]
    assert (lines[0], lines[-1]) == ("one", "two")
    assert max(map(len, lines)) <= 200


def is_gone(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    return False
