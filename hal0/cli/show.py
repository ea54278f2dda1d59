"""What people see: plans, progress, tables. All of it is made of the JSON that the API serves."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from hal0.core.engines import is_stand_in
from hal0.core.quantity import show_duration, show_size
from hal0.core.steps import Reason

_COLOURS = {"+": "32", "~": "33", "-": "31", "!": "35", "?": "36", "x": "31"}
_STATES = {"ready": "32", "serving": "32", "idle": "32", "error": "31", "offline": "90"}


def coloured() -> bool:
    """Return whether to use colour: on a terminal only, and never against NO_COLOR."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")


def paint(text: str, colour: str) -> str:
    """Return a text in a colour of the terminal, where there is one."""
    return f"\x1b[{colour}m{text}\x1b[0m" if colour and coloured() else text


def plan_text(plan: dict[str, Any], *, diffs: bool) -> Iterator[str]:
    """Yield a plan's lines: what the manifests change, then what was changed outside hal0, then the sum."""
    declared = [change for change in plan["changes"] if not change["drift"]]
    drifted = [change for change in plan["changes"] if change["drift"]]
    for title, changes in (("", declared), ("changed outside hal0:", drifted)):
        if changes and title:
            yield paint(title, "1")
        for change in changes:
            yield from _change(change, diffs=diffs)
    yield from overrides_text(plan["overrides"])
    yield from rejections_text(plan["rejections"])
    if not plan["changes"]:
        also = " and the overrides" if plan["overrides"] else ""
        but = ", but for what was rejected" if plan["rejections"] else ""
        yield f"Nothing to change: the host is what the manifests{also} say{but}."
    yield plan["summary"]


def overrides_text(overrides: list[dict[str, Any]]) -> Iterator[str]:
    """Yield what people asked of slots: drift that is meant, and no change. Nothing where there is none."""
    if overrides:
        yield paint("overridden by hand (hal0 slot reset NAME takes it back):", "1")
    for own in overrides:
        yield paint(f"  = {own['slot']}", "34") + f"  {own['text']}"


def rejections_text(rejections: list[dict[str, Any]]) -> Iterator[str]:
    """Yield what the manifests want and was rejected on trial. Nothing where there is none."""
    if rejections:
        yield paint("rejected, and not tried again:", "1")
    for rejection in rejections:
        yield paint(f"  x {rejection['slot']}", _COLOURS["x"]) + f"  {rejection['text']}"


def _change(change: dict[str, Any], *, diffs: bool) -> Iterator[str]:
    yield paint(f"  {change['symbol']} {change['slot']}", _COLOURS[change["symbol"]]) + f"  {change['action']}"
    for reason in change["reasons"]:
        yield f"      {Reason(**reason)}"
    if (claim := change["claim"]) and claim["bytes"] is not None:
        of = f" of pool {change['pool']}" if change["pool"] else ""
        yield f"      takes {show_size(claim['bytes'])} ({claim['source']}){of}"
    if diffs and change["diff"] and not is_stand_in(change["slot"]):  # a stand-in's is its slot's, in other names
        yield from (f"      {_diff_line(line)}" for line in change["diff"].splitlines())


def _diff_line(line: str) -> str:
    colour = "32" if line.startswith("+") else "31" if line.startswith("-") else "36" if line.startswith("@@") else ""
    return paint(line, colour)


def event_text(event: dict[str, Any]) -> str | None:
    """Return the progress line of an apply's event, or None where there is nothing to tell."""
    if event["event"] == "state":
        message = f"  {event['message']}" if event["message"] else ""
        return f"  {event['slot']:<12} " + paint(event["state"], _STATES.get(event["state"], "36")) + message
    if event["event"] == "step" and event["outcome"] in {"ok", "failed", "waiting"}:
        ok = event["outcome"] == "ok"
        word = f"{event['step'].replace('_', '-')} {event['outcome']}" + (f" ({event['seconds']:.2f} s)" if ok else "")
        message = f": {event['message']}" if event["message"] else ""
        return f"  {event['slot']:<12} " + paint(word, "" if ok else "31") + message
    return None


def rollback_text(event: dict[str, Any]) -> Iterator[str]:
    """Yield where a rollback goes, and the files that it changes."""
    revision = f" (revision {event['revision']})" if event["revision"] else ""
    yield f"The manifests are those of {event['to']}{revision} again:"
    yield from (f"  ~ {file}" for file in event["written"])
    yield from (f"  - {file}" for file in event["removed"])
    yield ""


def swap_text(event: dict[str, Any]) -> Iterator[str]:
    """Yield what became of a swap: where it is written, or why it is not, or why the old model serves on."""
    if not event["swapped"]:
        yield paint(f"  {event['slot']:<12} not swapped to {event['model']}: the old model serves on", "31")
        return
    yield f"  {event['slot']:<12} serves {event['model']}"
    if event["file"]:
        commit = f", committed as {event['commit']}" if event["commit"] else ""
        yield f"  {event['slot']:<12} written to {event['file']}{commit}"
    if event["warning"]:
        yield paint(f"  {event['slot']:<12} warning: {event['warning']}", "33")


def recap_text(recap: dict[str, Any]) -> Iterator[str]:
    """Yield the closing table of an apply, in Ansible's shape."""
    yield paint("SLOT RECAP", "1")
    width = max((len(name) for name in recap["slots"]), default=0)
    for name, row in recap["slots"].items():
        counts = " ".join(
            f"{key}={row[key]:<4}" for key in ("ok", "changed", "unreachable", "failed", "skipped", "waiting")
        )
        colour = "31" if row["failed"] or row["unreachable"] else "33" if row["changed"] else "32"
        yield paint(f"{name:<{width}} : {counts}".rstrip(), colour)
        if row["message"]:
            yield f"    {row['message']}"


def slots_text(slots: Iterable[dict[str, Any]]) -> Iterator[str]:
    """Yield the table of slots."""
    rows = [
        (
            slot["name"],
            slot["state"],
            slot["model"],
            slot["device"],
            slot["type"],
            str(slot["port"]),
            show_duration(slot["since_seconds"]),
            show_size(slot["memory_bytes"]),
            slot["message"],
        )
        for slot in slots
    ]
    yield from table(("NAME", "STATE", "MODEL", "BACKEND", "KIND", "PORT", "SINCE", "MEMORY", ""), rows)


def table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    """Yield left-aligned columns; the last one is as wide as it likes."""
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head) - 1)]
    for index, row in enumerate([head, *rows]):
        cells = [f"{cell:<{width}}" for cell, width in zip(row, widths, strict=False)]
        if index and "STATE" in head:
            at = head.index("STATE")
            cells[at] = paint(cells[at], _STATES.get(row[at], "36"))
        yield "  ".join([*cells, row[-1]]).rstrip()


def status_text(picture: dict[str, Any]) -> Iterator[str]:
    """Yield the whole picture: manifests, slots, drift, problems."""
    revision = picture["revision"] or "not in git"
    yield f"manifests  {picture['root']}  generation {picture['generation']}  revision {revision}"
    yield f"runtime    {picture['runtime']}"
    for pool in picture["pools"]:
        used = "" if pool["used_bytes"] is None else f", {show_size(pool['used_bytes'])} used"
        claimed = f"{show_size(pool['claimed_bytes'])} of {show_size(pool['total_bytes'])} claimed"
        yield f"pool       {pool['name']}  {claimed}{used}"
    yield ""
    yield from slots_text(picture["slots"])
    yield from lock_text(picture)
    if any(picture["plan"][part] for part in ("changes", "overrides", "rejections")):
        yield ""
        yield from plan_text(picture["plan"], diffs=False)
    if picture["problems"]:
        yield ""
        yield paint("problems in the manifests:", "31")
        yield from (f"  {problem['text']}" for problem in picture["problems"])


def lock_text(picture: dict[str, Any]) -> Iterator[str]:
    """Yield the slots that run something older than the lock, and the pins that are not in force."""
    behind = [slot for slot in picture["slots"] if slot["behind_lock"]]
    if behind or picture["stale_pins"]:
        yield ""
        yield paint("not as hal0.lock has it:", "33")
    for slot in behind:
        yield f"  {slot['name']} runs something older: {'; '.join(slot['behind_lock'])}"
    yield from (f"  void: {pin} (hal0 lock)" for pin in picture["stale_pins"])


def slot_text(slot: dict[str, Any]) -> Iterator[str]:
    """Yield one slot in full."""
    yield f"{slot['name']}  " + paint(slot["state"], _STATES.get(slot["state"], "36"))
    facts = ("type", "model", "aliases", "profile", "device", "run", "port", "context_size", "source", "unit", "image")
    for key in facts:
        value = ", ".join(slot[key]) if isinstance(slot[key], list) else slot[key]
        if value not in (None, ""):
            yield f"  {key.replace('_', ' '):<14} {value}"
    instance = slot["instance"]
    if instance:
        yield f"  {'container':<14} {instance['id'][:12]} {'running' if instance['running'] else 'stopped'}"
    yield f"  {'memory':<14} {show_size(slot['memory_bytes'])}"
    if claim := slot["claim"]:
        pool = f" of pool {slot['pool']}" if slot["pool"] else ""
        yield f"  {'claim':<14} {show_size(claim['bytes'])} ({claim['source']}){pool}"
    yield "conditions"
    for item in slot["conditions"]:
        status = {True: "True", False: "False", None: "Unknown"}[item["status"]]
        yield f"  {item['type']:<12} {status:<8} {item['reason']:<15} {item['message']}".rstrip()
    yield from overrides_text(slot["overrides"])
    if slot["operator_dropins"]:
        yield "operator's drop-ins (left alone)"
        yield from (f"  {path}" for path in slot["operator_dropins"])
    if slot["acts"]:
        yield "what hal0 last did"
        for act in slot["acts"][:5]:
            where = "changed outside hal0: " if act["drift"] else ""
            yield f"  {clock(act['at'])}  {act['action']}: {where}{act['why']}"
    if slot["transitions"]:
        yield "last transitions"
        for move in slot["transitions"][:8]:
            yield f"  {clock(move['at'])}  {move['before']} -> {move['after']}"


def clock(wall: float) -> str:
    """Return an instant, in seconds since the epoch, as this machine's clock shows it."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(wall))


def say(lines: Iterable[str]) -> None:
    """Print lines."""
    for line in lines:
        sys.stdout.write(line + "\n")
    sys.stdout.flush()


def found(what: dict[str, Any], text: Callable[[dict[str, Any]], Iterable[str]], *, as_json: bool) -> None:
    """Print what was found: as JSON, or as the text that is made of it."""
    say([json.dumps(what, indent=2)] if as_json else text(what))


def hint(text: str) -> None:
    """Say something that is not the output itself."""
    sys.stderr.write(f"hint: {text}\n")


def note(text: str) -> None:
    """Say how far something is, beside the output."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def warn(text: str) -> None:
    """Say what went wrong beside an act that was done."""
    sys.stderr.write(f"warning: {text}\n")


def authored_text(found: dict[str, Any]) -> Iterator[str]:
    """Yield what was written to a manifest, and what it does to the slot."""
    said = {"create": "created in", "edit": "changed in", "delete": "taken out of"}[found["act"]]
    if found["act"] == "edit" and not found["changes"]:
        yield f"slot {found['slot']}: {found['file']} says so already"
        return
    if found["file"]:
        yield f"slot {found['slot']}: {said} {found['file']}" + (f", commit {found['commit']}" * bool(found["commit"]))
    if declared := found.get("declared"):
        yield f"  model {declared['model']}: declared in {declared['file']}"
    if default := found.get("default"):
        yield f"  device {default['device']}: {default['why']}"
    yield from (f"  {Reason(row['key'], _value(row['before']), _value(row['after']))}" for row in found["changes"])
    yield f"takes effect {found['effect']['message']}"
    if not found["settled"]:
        yield f"not done yet: hal0 slot show {found['slot']}"


def _value(value: object) -> str:
    return "none" if value is None else str(value)


def route_text(route: dict[str, Any]) -> Iterator[str]:
    """Yield where a request would go, and what is tried after."""
    yield from _decision_text(route, "")
    for step in route["fallback"]:
        yield f"if that can't answer, {step['model']!r}:"
        yield from _decision_text(step, "  ")


def _decision_text(decision: dict[str, Any], indent: str) -> Iterator[str]:
    target = decision["target"]
    if target:
        state = f" ({paint(target['state'], _STATES.get(target['state'], '36'))})" if "state" in target else ""
        yield f"{indent}{target['kind']} {target['name']}{state}: {target['url']}, as {target['model']!r}"
    elif decision["ask_first"]:
        yield f"{indent}not known yet: {', '.join(decision['ask_first'])} would be asked first"
    else:
        yield f"{indent}{paint(decision['code'], '31')}"
    yield f"{indent}rule {decision['rule']}: {decision['reason']}"


def diff_text(diff: str) -> Iterator[str]:
    """Return a diff's lines in their colours."""
    return map(_diff_line, diff.splitlines())
