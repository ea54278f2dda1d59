"""Words of other tools' files: names made from them, variables in them, and what in them is a secret."""

from __future__ import annotations

import posixpath
import re
import shlex
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from hal0.core.documents import parse_file
from hal0.core.masked import is_secret
from hal0.errors import UsageError

_LONGEST = 40
_NOT_IN_NAME = re.compile(r"[^a-z0-9]+")
_NOT_IN_ID = re.compile(r"[^A-Za-z0-9._:/@+-]+")
_MODEL_SUFFIX = re.compile(r"(-\d{5}-of-\d{5})?\.(gguf|bin|safetensors)$", re.IGNORECASE)
_UNKNOWN = re.compile("\0([^\0]*)\0")
_COMPOSE = re.compile(r"\$(?:(\$)|([A-Za-z_]\w*)|\{([A-Za-z_]\w*)(?:(:?[-+?])([^{}]*))?\})")
_SHORT_SECRETS = frozenset({"-hft"})
_SECRET_VALUE = re.compile(r"\b(sk-|hf_|gsk_|ghp_|xai-)[A-Za-z0-9_-]{16,}|://[^/\s@]*:[^/\s@]*@")
_PAIRS = re.compile(r"[?&\s]+")
_DOCKER_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([bkmgt]?)(?:i?b)?", re.IGNORECASE)
_MOST_DIGITS = 9


def yaml_with(key: str, text: str, name: str) -> Mapping[str, Any]:
    """Return a YAML file's only document. Raises ``UsageError`` where it is none, or has no table of that key."""
    documents, errors = parse_file("import.yaml", text)
    if errors:
        raise UsageError(f"{name}:{errors[0].line}: {errors[0].message}")
    if len(documents) != 1 or not isinstance(documents[0].data.get(key), Mapping):
        raise UsageError(f"{name} has no table {key!r}", hint="is it the kind of file that you named?")
    return documents[0].data


def inner(tree: object, *keys: str) -> Mapping[str, Any]:
    """Return a table within tables; an empty one where there is none."""
    for key in keys:
        tree = tree.get(key) if isinstance(tree, Mapping) else None
    return tree if isinstance(tree, Mapping) else {}


def slug(text: str, taken: Iterable[str], otherwise: str) -> str:
    """Return a manifest's name made from a text, and none of those that are taken."""
    plain = _NOT_IN_NAME.sub("-", text.lower())[:_LONGEST].strip("-") or otherwise
    return _free(plain, taken, lambda number: f"{plain[: _LONGEST - 6].rstrip('-')}-{number}")


def model_id(path: str, taken: Iterable[str]) -> str:
    """Return a model's id made from the path of its file, and none of those that are taken."""
    stem = _NOT_IN_ID.sub("-", _MODEL_SUFFIX.sub("", posixpath.basename(path))).lower()
    plain = stem[:100].lstrip("._:/@+-") or "model"
    return _free(plain, taken, lambda number: f"{plain}-{number}")


def _free(plain: str, taken: Iterable[str], numbered: Callable[[int], str]) -> str:
    used = set(taken)
    return next(
        name for number in range(1, len(used) + 3) if (name := numbered(number) if number > 1 else plain) not in used
    )


def unknown(name: str) -> str:
    """Return the mark of a variable without a value. No file can hold it: it has a NUL."""
    return f"\0{name}\0"


def readable(text: str) -> str:
    """Return a text as one line that a terminal and a comment can hold, variables as ``${NAME}``."""
    shown = _UNKNOWN.sub(r"${\1}", text)
    return " ".join("".join(char if char.isprintable() else " " for char in shown).split())


def unknown_in(value: object) -> str:
    """Return the first variable without a value within a value; empty where there is none."""
    if isinstance(value, str):
        found = _UNKNOWN.search(value)
        return found[1] if found else ""
    inner: Iterable[object] = ()
    if isinstance(value, Mapping):
        inner = (*value.keys(), *value.values())
    elif isinstance(value, list | tuple):
        inner = value
    return next((name for item in inner if (name := unknown_in(item))), "")


def expanded(value: Any, expand: Callable[[str], str]) -> Any:
    """Return a tree with every text in it expanded, keys of tables as well."""
    if isinstance(value, str):
        return expand(value)
    if isinstance(value, Mapping):
        return {expand(key): expanded(item, expand) for key, item in value.items()}
    return [expanded(item, expand) for item in value] if isinstance(value, list) else value


def compose_expanded(text: str, values: Mapping[str, str]) -> str:
    """Return a text with ``$NAME``, ``${NAME}``, ``${NAME:-default}`` and ``$$`` filled in as compose does."""

    def fill(found: re.Match[str]) -> str:
        if found[1]:
            return "$"
        name, operator, other = found[2] or found[3], found[4] or "", found[5] or ""
        if "+" in operator:
            return other if name in values else ""
        return values[name] if name in values else other if "-" in operator else unknown(name)

    return _COMPOSE.sub(fill, text)


def holds_secret(name: str, value: str = "") -> bool:
    """Return whether a flag or a variable of this name, or with this value, looks as if it held a secret."""
    pairs = (
        part.partition("=") for part in _PAIRS.split(value)
    )  # a value may be NAME=VALUE, or an address with a query
    inside = any(equals and is_secret(part) for part, equals, _ in pairs)
    return name in _SHORT_SECRETS or is_secret(name) or inside or bool(_SECRET_VALUE.search(value))


def split(command: str) -> list[str] | None:
    """Return a command line's words as a shell reads them; None where quotes are left open."""
    lines = (line for line in command.replace("\\\n", " ").split("\n") if not line.lstrip().startswith("#"))
    try:
        return shlex.split("\n".join(lines))
    except ValueError:
        return None


def docker_size(value: object) -> str | int | None:
    """Return a size of docker's (``4g`` is binary) as hal0 writes it; None for what is none."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    found = _DOCKER_SIZE.fullmatch(str(value).strip())
    if not found:
        return None
    unit = found[2].upper()
    return f"{found[1]}{unit}i" if unit not in {"", "B"} else found[1]


def whole(text: object) -> int | None:
    """Return a number that is written in digits; None for anything else."""
    shown = str(text)
    return int(shown) if shown.isascii() and shown.isdigit() and len(shown) <= _MOST_DIGITS else None
