from __future__ import annotations

import pytest

from hal0.core.override import Aspect
from hal0.core.reasons import RESTART
from hal0.core.schedule import ALWAYS, Standing, Verdict
from hal0.core.steps import Action, Change, Reason
from hal0.core.why import Rule, rule_of

START = Reason("service", "stopped", "running (run: always)")


def change(*reasons: Reason, before: str | None = "x", after: str | None = "x") -> Change:
    return Change("chat", Action.UPDATE, reasons, before=before, after=after)


@pytest.mark.parametrize(
    ("found", "rule"),
    [
        (change(START), Rule.RUN),
        (change(Reason("service", "failed (start-limit-hit)", "running (run: always)")), Rule.FAILURE),
        (change(Reason("service", "stopped", "running (on demand: 2 requests in flight)")), Rule.DEMAND),
        (change(Reason("run", "active", "stopped (on demand: no request wants it)")), Rule.DEMAND),
        (change(Reason("run", "active", "stopped (run: never)")), Rule.RUN),
        (change(Reason("service", "stopped", "running (run: always)", drift=True)), Rule.DRIFT),
        (change(Reason("definition", "edited outside hal0", "as declared", drift=True), before="y"), Rule.DRIFT),
        (change(Reason("context_size", "1", "2"), START, before="y"), Rule.MANIFESTS),
        (change(Reason("manifest", "present", "removed"), after=None), Rule.MANIFESTS),
        (change(Reason("definition", "absent", "present"), START, before=None), Rule.MANIFESTS),
    ],
)
def test_the_rule_behind_a_change(found: Change, rule: Rule) -> None:
    assert rule_of(found, ALWAYS) is rule


@pytest.mark.parametrize(
    ("found", "aspect", "rule"),
    [
        (change(Reason("service", "stopped", "running (loaded by eve)")), Aspect.RUN, Rule.HAND),
        (change(Reason("run", "active", "stopped (unloaded by eve)")), Aspect.RUN, Rule.HAND),
        (change(Reason("service", "failed (exit-code)", "running (loaded by eve)")), Aspect.RUN, Rule.FAILURE),
        (change(Reason("service", "stopped", "running (loaded by eve)", drift=True)), Aspect.RUN, Rule.DRIFT),
        (change(Reason("run", "active", "stopped (on demand: no request wants it)")), Aspect.RUN, Rule.DEMAND),
        (change(Reason("model", "m", "big"), before="y"), Aspect.MODEL, Rule.HAND),
        (change(Reason("context_size", "1", "2"), before="y"), Aspect.MODEL, Rule.MANIFESTS),
        (change(Reason("model", "m", "big"), before="y"), Aspect.RUN, Rule.MANIFESTS),
        (change(Reason(RESTART, "", "asked for by eve")), Aspect.RESTART, Rule.HAND),
    ],
)
def test_what_was_asked_for_by_hand_is_told_from_what_else_happens_to_the_slot(
    found: Change, aspect: Aspect, rule: Rule
) -> None:
    assert rule_of(found, ALWAYS, {aspect}) is rule


def test_who_made_room_for_another_did_it_for_the_other() -> None:
    found = change(Reason("run", "active", "stopped (makes room for big: memory)"))
    evicted = Verdict(up=False, why="makes room for big: memory", standing=Standing.EVICTED, beneficiary="big")
    assert rule_of(found, evicted, {Aspect.RUN}) is Rule.ROOM
