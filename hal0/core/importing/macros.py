"""llama-swap's macros: ``${name}``, ``${env.NAME}``, ``${PORT}`` and ``${MODEL_ID}``."""

from __future__ import annotations

import re
from collections.abc import Mapping

from hal0.core.importing.words import unknown

_MACRO = re.compile(r"\$\{([A-Za-z0-9_.-]+)\}")
_DEEPEST = 10
_LONGEST = 100_000


def filled(text: str, macros: Mapping[str, object], values: Mapping[str, str]) -> str:
    """Return a text with its macros filled in, those within macros as well; what has no value is marked unknown."""
    for _ in range(_DEEPEST):
        after = _MACRO.sub(lambda found: _value(found[1], macros, values), text)
        if after == text or len(after) > _LONGEST:
            break
        text = after
    return _MACRO.sub(lambda found: unknown(found[1]), text)


def _value(name: str, macros: Mapping[str, object], values: Mapping[str, str]) -> str:
    if name in macros:
        own = macros[name]
        return str(own).lower() if isinstance(own, bool) else str(own)
    plain = name.removeprefix("env.")
    return values.get(plain, unknown(plain))
