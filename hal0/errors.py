"""Errors that say what, where and what to do next.

Few classes: each one means a different decision of whoever catches it.
"""

from __future__ import annotations


class Hal0Error(Exception):
    """Base of every expected failure: shown to a person without a traceback.

    ``hint`` is one sentence that says what to do next, or empty.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class UsageError(Hal0Error):
    """The command or its arguments can't be taken; nothing was changed."""


class NotFound(UsageError):
    """What was named is not there; the hint names what is close."""


class Conflict(UsageError):
    """The request fits, but not what hal0 is doing here."""


class HostUnreachable(Hal0Error):
    """systemd, podman or the daemon did not answer: retry later, decide nothing now."""

    exit_code = 4


class StepFailed(Hal0Error):
    """One step of a plan failed for one slot: the loop retries it with backoff."""

    exit_code = 3


class WrongFile(StepFailed):
    """A file came as a whole and is not the one that is wanted: fetching it again by itself would bring the same."""


class StepWaits(Hal0Error):
    """One step is under way elsewhere (an image pull): the rest of that slot's steps wait for a later pass."""

    exit_code = 3


class DaemonCame(Hal0Error):
    """The daemon came up while a command waited to act in its own process. Nothing was done."""

    exit_code = 4


class LockHeld(Hal0Error):
    """Another hal0 is acting on this host."""

    exit_code = 4
