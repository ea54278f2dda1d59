"""What a unit wrote, from the journal through journalctl."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from typing import TYPE_CHECKING

from hal0.errors import HostUnreachable, StepFailed

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from hal0.host.scope import Scope

READ_S = 10.0
_ALLOW = "Add the user to the group `systemd-journal`, and log in again."
_LONGEST_LINE = 1 << 20  # bytes; a longer line is left out of a followed stream


async def logs(unit: str, lines: int, scope: Scope, *said_by: str) -> list[str]:
    """Return the last lines of a unit, oldest first; a machine without journalctl has none.

    ``said_by`` are the syslog identifiers to keep: podman writes its own events into the unit's journal, too.
    Raises ``HostUnreachable`` when journalctl is not done in ten seconds and ``StepFailed`` when it failed.
    """
    if shutil.which("journalctl") is None:
        return []
    async with _journalctl(unit, scope, "-n", str(lines), *_only(said_by)) as process:
        try:
            async with asyncio.timeout(READ_S):
                out, err = await process.communicate()
        except TimeoutError:
            raise HostUnreachable(f"journalctl: no answer in {READ_S:g} s") from None
    if process.returncode:
        said = _text(err).strip()
        hint = _ALLOW if "permission" in said else ""
        raise StepFailed(f"journalctl: {said or f'exit status {process.returncode}'}", hint=hint)
    return _text(out).splitlines()


async def follow(unit: str, scope: Scope, *said_by: str) -> AsyncGenerator[str]:
    """Yield lines as a unit writes them, from now on, until closed; nothing without journalctl."""
    if shutil.which("journalctl") is None:
        return
    async with _journalctl(unit, scope, "-n", "0", "-f", *_only(said_by)) as process:
        stream = process.stdout
        while stream is not None and not stream.at_eof():
            with contextlib.suppress(ValueError):  # readline's way to say: dropped, too long
                if line := await stream.readline():
                    yield _text(line).rstrip("\n")


@contextlib.asynccontextmanager
async def _journalctl(unit: str, scope: Scope, *options: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run journalctl and see to it that it is gone afterwards. ``-q`` keeps its own remarks out."""
    whose = "--user-unit" if scope.is_user else "--unit"
    process = await asyncio.create_subprocess_exec(
        *("journalctl", "-q", "-o", "cat", "--no-pager", whose, unit, *options),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        limit=_LONGEST_LINE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
        await process.communicate()


def _only(said_by: tuple[str, ...]) -> list[str]:
    return [f"--identifier={name}" for name in said_by]


def _text(raw: bytes) -> str:
    return raw.decode(errors="replace")
