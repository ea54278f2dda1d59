"""Values that must not be shown: those of variables and flags that look like secrets. Their names are enough."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

_HIDDEN = "…"
_SECRET = re.compile(
    r"secret|passw(?:or)?d|passphrase|credential|api[-_]?key|(?:^|[-_])(?:key|token|pass|auth)(?:$|[-_])", re.IGNORECASE
)


def is_secret(name: str) -> bool:
    """Return whether a variable or a flag of this name looks as if it held a secret."""
    return bool(_SECRET.search(name.lstrip("-")))


def masked(name: str, value: str) -> str:
    """Return a value as it may be printed and logged; ``name`` is its variable's or its flag's."""
    return _HIDDEN if value and is_secret(name) else value


def masked_words(words: Iterable[str]) -> Iterator[str]:
    """Yield the words of a command line as they may be printed: what belongs to a secret's flag is hidden."""
    flag = ""
    for word in words:
        name, mark, value = word.partition("=")
        if not word.startswith("-"):
            yield masked(flag, word)
        else:
            yield f"{name}{mark}{masked(name, value)}"
        flag = name if word.startswith("-") and not mark else ""
