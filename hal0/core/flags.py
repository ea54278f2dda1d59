"""An engine's flags as values: read from words, and merged so that the last one of each key wins.

What a flag is called in full, and which may be given more than once, is a table of the engine's
(``hal0.core.enginekinds``). A flag that no table names is its own key: its spelling.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

_FLAG = re.compile(r"--?[A-Za-z][\w.+-]*(=.*)?", re.DOTALL)
"""What looks like a flag. Numbers below zero, a lone dash and texts that begin with a dash are values."""


@dataclass(frozen=True, slots=True)
class Syntax:
    """What is known of an engine's flags.

    ``keys`` maps each spelling to its key: the first name of its row. ``repeatable`` are keys that add up.
    """

    keys: Mapping[str, str] = field(default_factory=dict)
    repeatable: frozenset[str] = frozenset()

    def key(self, name: str) -> str:
        """Return the key of a flag as it is spelled."""
        return self.keys.get(_spelled(name), _spelled(name))


@dataclass(frozen=True, slots=True)
class Flag:
    """A flag with its values, as written. Words that no flag precedes are one without a key.

    ``layer`` is the list that it comes from, ``at`` the place of its first word in that list.
    """

    key: str
    words: tuple[str, ...]
    layer: int = 0
    at: int = 0

    @property
    def name(self) -> str:
        """The flag as it is spelled; empty for words that no flag precedes."""
        return self.words[0].partition("=")[0] if self.key else ""

    @property
    def values(self) -> tuple[str, ...]:
        """Its values: behind ``=``, and the words after it."""
        if not self.key:
            return self.words
        _, mark, value = self.words[0].partition("=")
        return (*([value] if mark else []), *self.words[1:])


UNKNOWN = Syntax()
"""The flags of an engine that nothing is known of."""


def syntax(table: str, *, repeatable: Iterable[str] = ()) -> Syntax:
    """Return the syntax of a table: a row for each flag, its key first, then its other spellings."""
    rows = [list(map(_spelled, line.split())) for line in table.splitlines()]
    return Syntax({name: row[0] for row in rows for name in row}, frozenset(repeatable))


def _spelled(name: str) -> str:
    """Return a name with its dashes: engines take ``--ctx_size`` for ``--ctx-size``."""
    return name.replace("_", "-") if name.startswith("--") else name


def read(words: Sequence[str], known: Syntax = UNKNOWN, *, layer: int = 0) -> Iterator[Flag]:
    """Yield the flags of a list of words, each with the words up to the next flag."""
    start = 0
    for end in range(1, len(words) + 1):
        if end == len(words) or _FLAG.fullmatch(words[end]):
            own = tuple(words[start:end])
            key = known.key(own[0].partition("=")[0]) if _FLAG.fullmatch(own[0]) else ""
            yield Flag(key, own, layer, start)
            start = end


def merged(layers: Sequence[Sequence[str]], known: Syntax) -> tuple[Flag, ...]:
    """Return the flags of several lists as one: of each key the last stays, where it stands.

    Repeatable flags all stay. So do repeats within one list of a flag that no table names: it may be one of those.
    """
    flags = [flag for layer, words in enumerate(layers) for flag in read(words, known, layer=layer)]
    last = {flag.key: flag for flag in flags}
    return tuple(flag for flag in flags if _stays(flag, last[flag.key], known))


def _stays(flag: Flag, last: Flag, known: Syntax) -> bool:
    if not flag.key or flag is last or flag.key in known.repeatable:
        return True
    return flag.layer == last.layer and flag.key not in known.keys


def words_of(flags: Iterable[Flag]) -> tuple[str, ...]:
    """Return the words of flags, one after the other."""
    return tuple(word for flag in flags for word in flag.words)


def last_of(words: Sequence[str], key: str, known: Syntax) -> Flag | None:
    """Return the flag of a key that is in force; None where it is not given."""
    return next((flag for flag in reversed(tuple(read(words, known))) if flag.key == key), None)
