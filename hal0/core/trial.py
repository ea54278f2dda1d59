"""Trials: specs that have to prove themselves, and what is remembered of those that did not. Plain values.

Moments are wall time, in seconds since the epoch: both outlive the process. A spec goes by its hash, so a changed
manifest is another one, and a change that is in no hash (an image behind its tag, a model's file) is none.
"""

from __future__ import annotations

from dataclasses import dataclass

from hal0.core.quantity import show_moment

_SHOWN = 8
"""Characters of a hash that people read."""


@dataclass(frozen=True, slots=True)
class Trial:
    """A spec of a slot that ``who`` wants to prove itself by a real completion, asked for at ``began``."""

    slot: str
    spec_hash: str
    who: str
    began: float

    def __str__(self) -> str:
        """Say which spec is on trial, and who wanted it."""
        return f"spec {self.spec_hash[:_SHOWN]} is on trial since {show_moment(self.began)} (by {self.who})"


@dataclass(frozen=True, slots=True)
class Rejection:
    """A spec of a slot that failed its trial, at ``at``."""

    slot: str
    spec_hash: str
    why: str
    at: float

    def __str__(self) -> str:
        """Say what was rejected, when and why, and what to do next."""
        said = f"spec {self.spec_hash[:_SHOWN]} was rejected at {show_moment(self.at)}: {self.why}"
        return f"{said}; hal0 slot retry {self.slot} tries it again, or change the manifest"

    def told(self, spec_hash: str) -> str:
        """Say what it means for the slot, whose spec in force is that of ``spec_hash``."""
        return f"{'kept down' if spec_hash == self.spec_hash else 'rolled back'}: {self}"
