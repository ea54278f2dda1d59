"""What an edit of a manifest does to its slot, and when: said from the plan that it leads to."""

from __future__ import annotations

from enum import StrEnum

from hal0.core.steps import Action, Change, StepKind


class When(StrEnum):
    """When an edit takes effect."""

    NOW = "now"
    NEXT_START = "next-start"
    WAITS = "waits"


def effect(change: Change | None) -> tuple[When, str]:
    """Return when a change of one slot takes effect, and what that means for whoever uses it."""
    if change is None:
        return When.NOW, "at once: nothing of its engine changes"
    if change.action in {Action.WAIT, Action.REFUSE}:
        return When.WAITS, "not yet: " + "; ".join(map(str, change.reasons))
    if change.action is Action.DELETE:
        return When.NOW, "now: it is stopped and removed" if change.stops else "now: it is removed"
    if not change.steps:
        return When.NOW, "now: another engine loads beside it and takes over, and no request waits"
    starts = change.has(StepKind.START)
    if change.stops and starts:
        return When.NOW, "now: it is restarted, and its requests wait"
    if change.stops:
        return When.NOW, "now: it is stopped"
    if starts:
        return When.NOW, "now: it is started"
    return When.NEXT_START, "when it next starts"
