from __future__ import annotations

import pytest

from hal0.core.effect import When, effect
from hal0.core.steps import Action, Change, Reason, Step, StepKind


@pytest.mark.parametrize(
    ("action", "kinds", "when", "words"),
    [
        (Action.UPDATE, (StepKind.STOP, StepKind.WRITE, StepKind.START), When.NOW, "restarted"),
        (Action.UPDATE, (StepKind.STOP, StepKind.WRITE), When.NOW, "stopped"),
        (Action.UPDATE, (), When.NOW, "no request waits"),
        (Action.CREATE, (StepKind.WRITE, StepKind.START), When.NOW, "started"),
        (Action.CREATE, (StepKind.WRITE, StepKind.RELOAD), When.NEXT_START, "next starts"),
        (Action.DELETE, (StepKind.STOP, StepKind.REMOVE), When.NOW, "stopped and removed"),
        (Action.DELETE, (StepKind.REMOVE,), When.NOW, "it is removed"),
        (Action.WAIT, (), When.WAITS, "not yet: retry 2: in 10s; run: never"),
        (Action.REFUSE, (), When.WAITS, "not yet: retry 2: in 10s; run: never"),
    ],
)
def test_a_change_says_when_and_what(action: Action, kinds: tuple[StepKind, ...], when: When, words: str) -> None:
    reasons = (Reason("retry 2", "", "in 10s"), Reason("run", "", "never"))
    found = effect(Change("chat", action, reasons, tuple(Step(kind, "chat") for kind in kinds)))
    assert found[0] is when
    assert words in found[1]


def test_no_change_of_the_host_is_in_force_at_once() -> None:
    assert effect(None) == (When.NOW, "at once: nothing of its engine changes")
