"""``hal0 why``: what happened to a slot last and why, in sentences."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from hal0.cli import show
from hal0.cli.ask import asked, of
from hal0.cli.options import Options
from hal0.core.quantity import show_duration
from hal0.core.steps import Reason

_ACTS = 5
_CAUSES = {
    "manifests": "because the manifests changed",
    "drift": "because it was changed outside hal0",
    "failure": "because its service failed",
    "room": "to make room for another slot",
    "demand": "by demand",
    "run": "by its run policy",
    "hand": "by hand",
    "trial": "because a spec failed its trial",
}


def why(options: Options, name: str, *, as_json: bool) -> int:
    """Print why a slot is as it is."""

    def own() -> dict[str, Any]:
        from hal0.cli import local

        return local.why(options, name)

    show.found(asked(options, of("slots", name, "why"), own), why_text, as_json=as_json)
    return 0


def why_text(found: dict[str, Any]) -> Iterator[str]:
    """Yield what is told of a slot: what is, what is wanted, what was done, who was refused."""
    verdict, change = found["verdict"], found["change"]
    message = "" if verdict["why"] in found["message"] else found["message"]  # a long sum is told once
    state = f"{found['name']} is {found['state']} for {show_duration(found['since_seconds'])}"
    yield ": ".join(filter(None, [state, message]))
    yield f"It {'should be up' if verdict['up'] else 'should be down'} ({verdict['why']})."
    if change:
        reasons = "; ".join(str(Reason(**reason)) for reason in change["reasons"] if reason["field"] != "placement")
        yield ": ".join(filter(None, ["The plan has for it", change["action"], reasons]))
    if found["backoff"]:
        yield _backoff(found["backoff"])
    if found["acts"]:
        yield "What hal0 last did:"
        for act in found["acts"][:_ACTS]:
            yield from _act(act)
    if found["refusals"]:
        yield "Requests that it could not answer:"
        yield from (f"  {_refusal(refusal)}" for refusal in found["refusals"])


def _backoff(backoff: dict[str, Any]) -> str:
    starts = f"{backoff['starts']} {'start' if backoff['starts'] == 1 else 'starts'} since it was last ready"
    error = f" ({backoff['error']})" if backoff["error"] else ""
    return f"{starts}{error}; the next is due in {show_duration(backoff['next_in_seconds'])} at the earliest."


def _act(act: dict[str, Any]) -> Iterator[str]:
    yield f"  {show.clock(act['at'])}  {act['action']}: {act['why']}"
    links = [_CAUSES.get(act["rule"], act["rule"])]
    links += [f"{'asked for' if act['rule'] == 'hand' else 'applied'} by {act['by']}"] if act["by"] else []
    links += [f"for request {act['request']}"] if act["request"] else []
    links += [f"revision {act['revision']}"] if act["revision"] else []
    if any(links):
        yield f"    {', '.join(filter(None, links))}"


def _refusal(refusal: dict[str, Any]) -> str:
    model = f" for {refusal['model']!r}" if refusal["model"] else ""
    return f"{show.clock(refusal['at'])}  {refusal['status']} {refusal['code']}: request {refusal['request']}{model}"
