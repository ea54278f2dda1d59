"""``hal0 slot load``, ``unload``, ``restart`` and their like: by the daemon, else in this process."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from hal0.cli import client
from hal0.cli.apply import View, by_daemon, by_self
from hal0.cli.ask import of
from hal0.cli.options import Options, who
from hal0.core.quantity import parse_duration
from hal0.errors import UsageError


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked of a slot; ``lasting`` is a duration as it was typed.

    ``persist`` is a swap's alone, ``seen`` an adoption's.
    """

    verb: str
    slot: str
    model: str
    lasting: str | None
    timeout: float
    wait: bool
    persist: bool | None = None
    seen: str = ""


def act(options: Options, asked: Asked, *, as_json: bool) -> int:
    """Have it done, show what happens, and return the exit code."""
    view, seconds = View(show_diff=False, as_json=as_json), _seconds(asked.lasting)
    if client.is_running(options.scope):
        by_daemon(options, of("slots", asked.slot, asked.verb), _body(asked, seconds), view)
    else:
        from hal0.loop import acts

        request = acts.ActRequest(
            *(asked.slot, acts.Verb(asked.verb), who(), asked.model, seconds, asked.timeout, asked.wait),
            persist=asked.persist is not False,
            seen=asked.seen,
        )
        only = replace(options, limit=[asked.slot])
        by_self(only, lambda reconciler: acts.act(reconciler, request), view)
    return view.exit_code(detailed=False) if asked.wait else 0


def _seconds(lasting: str | None) -> float | None:
    try:
        return None if lasting is None else parse_duration(lasting)
    except ValueError as error:
        raise UsageError(f"--for: {lasting!r} {error}") from error


def _body(asked: Asked, seconds: float | None) -> dict[str, Any]:
    body = {"who": who(), "timeout": asked.timeout, "wait": asked.wait}
    body |= {"model": asked.model} if asked.model else {}
    body |= {"seen": asked.seen} if asked.seen else {}
    body |= {} if asked.persist is None else {"persist": asked.persist}
    return body | ({} if seconds is None else {"for": seconds})
