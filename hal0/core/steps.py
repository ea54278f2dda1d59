"""A plan as a value: what changes and why, and the ordered steps that carry it out."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from enum import IntEnum, StrEnum
from typing import TypeAlias

from hal0.core.engines import is_stand_in, slot_of
from hal0.core.override import Deviation
from hal0.core.pools import Claim
from hal0.core.registry import Download
from hal0.core.schedule import Placement
from hal0.core.trial import Rejection


class Action(StrEnum):
    """What a plan does to a slot."""

    CREATE = "create"
    UPDATE = "update"
    DELETE = "delete"
    RESTART = "restart"
    WAIT = "wait"
    REFUSE = "refuse"

    @property
    def symbol(self) -> str:
        """The sign in a printed plan."""
        return {"create": "+", "update": "~", "delete": "-", "restart": "!", "wait": "?", "refuse": "x"}[self.value]


class StepKind(IntEnum):
    """The kinds of steps, in the order in which a plan runs them."""

    FETCH = 1
    PULL = 2
    DRAIN = 3
    STOP = 4
    WRITE = 5
    REMOVE = 6
    RELOAD = 7
    RESET_FAILED = 8
    START = 9
    FORGET = 10


Wanted: TypeAlias = str | Download
"""What a transfer brings: an image, by its reference, or a model."""


@dataclass(frozen=True, slots=True)
class Step:
    """One act on the host. ``payload`` is a pull's image or a write's text; ``slot`` is empty for a reload.

    ``download`` is what a fetch brings.
    """

    kind: StepKind
    slot: str = ""
    payload: str = field(default="", repr=False)
    download: Download | None = field(default=None, repr=False)

    @property
    def wanted(self) -> Wanted:
        """What a fetch or a pull brings."""
        return self.download or self.payload


@dataclass(frozen=True, slots=True)
class Reason:
    """Why something changes. ``drift``: it was changed outside hal0, not by a manifest. ``fault``: the engine's own."""

    field: str
    before: str
    after: str
    drift: bool = False
    fault: bool = False

    def __str__(self) -> str:
        """``field: before -> after``."""
        if not (self.before or self.after):
            return self.field
        return f"{self.field}: {self.before} -> {self.after}" if self.before else f"{self.field}: {self.after}"


@dataclass(frozen=True, slots=True)
class Change:
    """What a plan does to one engine: a slot's own, or its stand-in (``hal0.core.engines``), which ``slot`` names.

    ``path``, ``before`` and ``after`` are its definition file's. Of an engine that it creates or starts, ``claim`` is
    what that takes of ``pool``, which is empty where that is not known.
    """

    slot: str
    action: Action
    reasons: tuple[Reason, ...]
    steps: tuple[Step, ...] = ()
    path: str = ""
    before: str | None = None
    after: str | None = None
    claim: Claim | None = None
    pool: str = ""

    @property
    def is_drift(self) -> bool:
        """Whether all of it was caused outside hal0."""
        return bool(self.reasons) and all(reason.drift for reason in self.reasons)

    @property
    def is_fault(self) -> bool:
        """Whether the engine failed by itself: starting it again may lead nowhere."""
        return any(reason.fault for reason in self.reasons)

    @property
    def stops(self) -> bool:
        """Whether the slot's engine goes down on the way."""
        return self.has(StepKind.STOP)

    @property
    def awaits(self) -> Wanted | None:
        """What it begins with bringing here; None where that is all there."""
        return next((step.wanted for step in self.steps if step.kind in {StepKind.FETCH, StepKind.PULL}), None)

    def has(self, kind: StepKind) -> bool:
        """Return whether one of its steps is of a kind."""
        return any(step.kind is kind for step in self.steps)

    def diff(self) -> str:
        """Return the unified diff of the definition file; empty where it stays."""
        if self.before == self.after:
            return ""
        lines = difflib.unified_diff(
            (self.before or "").splitlines(keepends=True),
            (self.after or "").splitlines(keepends=True),
            self.path if self.before is not None else "/dev/null",
            self.path if self.after is not None else "/dev/null",
        )
        return "".join(lines)


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything to do now. An empty plan means that the host is what the manifests and ``overrides`` say.

    ``placement`` is what the arbiter made of the slots; the changes follow it. What is wanted and was rejected is in
    ``rejections``, and not in the changes: it is not tried again.
    """

    changes: tuple[Change, ...] = ()
    generation: int = 0
    revision: str = ""
    overrides: tuple[Deviation, ...] = ()
    placement: Placement = field(default_factory=Placement)
    rejections: tuple[Rejection, ...] = ()

    @property
    def steps(self) -> tuple[Step, ...]:
        """All steps in their order, with one reload for all."""
        own = sorted((step for change in self.changes for step in change.steps), key=lambda step: step.kind)
        reloads = [step for step in own if step.kind is StepKind.RELOAD][:1]
        before = [step for step in own if step.kind < StepKind.RELOAD]
        after = [step for step in own if step.kind > StepKind.RELOAD]
        return (*before, *(Step(StepKind.RELOAD) for _ in reloads), *after)

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to change and nothing refused or waited for."""
        return not self.changes

    def limited(self, slots: frozenset[str] | None) -> Plan:
        """Return the part of a plan that touches some slots and their stand-ins; None is all of them."""
        if slots is None:
            return self
        overrides = tuple(deviation for deviation in self.overrides if deviation.override.slot in slots)
        rejections = tuple(rejection for rejection in self.rejections if rejection.slot in slots)
        changes = tuple(c for c in self.changes if slot_of(c.slot) in slots)
        return replace(self, changes=changes, overrides=overrides, rejections=rejections)

    def part(self, engines: frozenset[str]) -> Plan:
        """Return the part of a plan that touches these engines and no others."""
        return replace(self, changes=tuple(change for change in self.changes if change.slot in engines))

    def without(self, slots: frozenset[str]) -> Plan:
        """Return the part of a plan that leaves some slots alone."""
        return replace(self, changes=tuple(c for c in self.changes if slot_of(c.slot) not in slots)) if slots else self

    def change(self, slot: str) -> Change | None:
        """Return what happens to one slot."""
        return next((change for change in self.changes if change.slot == slot), None)

    def counts(self) -> Counter[Action]:
        """Return how many slots each action touches. A stand-in is no slot: its slot's own change tells of it."""
        return Counter(change.action for change in self.changes if not is_stand_in(change.slot))

    def summary(self) -> str:
        """Return the closing line of a printed plan."""
        counts = self.counts()
        changed = counts[Action.UPDATE] + counts[Action.RESTART]
        text = f"Plan: {counts[Action.CREATE]} to create, {changed} to change, {counts[Action.DELETE]} to delete"
        extra = [f"{counts[action]} {word}" for action, word in _EXTRAS if counts[action]]
        return ", ".join([text, *extra]) + "."


_EXTRAS = ((Action.WAIT, "waiting"), (Action.REFUSE, "refused"))


def faults(plan: Plan) -> Iterator[str]:
    """Yield what would be a mistake of the planner: a file changed without a reload, a start before its write."""
    for change in plan.changes:
        kinds = [step.kind for step in change.steps]
        if kinds != sorted(kinds):
            yield f"{change.slot}: steps out of order: {kinds}"
        if {StepKind.WRITE, StepKind.REMOVE} & set(kinds) and StepKind.RELOAD not in kinds:
            yield f"{change.slot}: a definition changes without a reload"
        if change.action in {Action.WAIT, Action.REFUSE} and kinds:
            yield f"{change.slot}: {change.action} with steps"
