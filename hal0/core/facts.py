"""What is known of the outside world, and what is not.

An adapter that could not look answers ``Unknown(reason)``. It never answers "absent": a stop or a removal
is only ever planned from a ``Known`` value.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeAlias, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Known(Generic[T]):
    """A value that was read from its source."""

    value: T


@dataclass(frozen=True, slots=True)
class Unknown:
    """The source could not be read; ``reason`` says why, for a person."""

    reason: str


Fact: TypeAlias = Known[T] | Unknown


def known(fact: Known[T] | Unknown) -> T | None:
    """Return a fact's value, and None where it is unknown: for views, and where unknown and absent mean the same."""
    return fact.value if isinstance(fact, Known) else None
