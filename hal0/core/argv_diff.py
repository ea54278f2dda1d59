"""What differs between two command lines of a slot, in an operator's words: devices, mounts, limits, engine flags."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from posixpath import basename
from typing import NamedTuple

from hal0.core.flags import read
from hal0.core.masked import masked, masked_words
from hal0.core.quantity import show_size
from hal0.core.spec import LABEL_SPEC

_FIELDS = {
    "--device": "devices",
    "--group-add": "groups",
    "--env": "env",
    "--volume": "mounts",
    "--mount": "mounts",
    "--publish": "port",
    "--memory": "memory",
    "--cpus": "cpus",
    "--entrypoint": "entrypoint",
}
_SHORT = {"-e": "--env", "-v": "--volume", "-p": "--publish", "-m": "--memory", "-d": "--detach", "-l": "--label"}
_VALUED = (
    "name label network user pull cgroups sdnotify log-driver security-opt cap-add cap-drop tmpfs shm-size ulimit "
    "pids-limit hostname workdir restart memory-swap gpus userns env-file ipc"
)
_WITH_VALUE = frozenset(_FIELDS) | {f"--{name}" for name in _VALUED.split()}
_BYTES = re.compile(r"\d+b?")
_NONE = "none"


class Difference(NamedTuple):
    """One field that differs, with what was found and what is declared; values that look like secrets are hidden."""

    field: str
    found: str
    declared: str


@dataclass(frozen=True, slots=True)
class _Command:
    """A command line by fields: each has its values in their order."""

    program: str
    fields: Mapping[str, tuple[str, ...]]


def argv_differences(declared: Sequence[str], found: Sequence[str]) -> tuple[Difference, ...]:
    """Return each field in which two command lines differ; none where they only put the same in another order.

    The label with the spec's hash is left out: it differs wherever anything does.
    """
    if not found:
        return ()
    own, other = _read(declared), _read(found)
    if own.program != other.program:
        return (Difference("command", other.program, own.program),)
    return tuple(_fields(own.fields, other.fields))


def _fields(declared: Mapping[str, tuple[str, ...]], found: Mapping[str, tuple[str, ...]]) -> Iterator[Difference]:
    for name in dict.fromkeys([*declared, *found]):
        own, other = declared.get(name, ()), found.get(name, ())
        gone, new = _without(other, own), _without(own, other)
        if gone or new:
            yield Difference(name, _show(name, gone), _show(name, new))


def _without(values: Iterable[str], others: Sequence[str]) -> tuple[str, ...]:
    return tuple(value for value in values if value not in others)


def _show(field: str, values: Iterable[str]) -> str:
    """Return values in a line. A variable's and a flag's value may be a secret."""
    if field == "env":
        pairs = [value.partition("=") for value in values]
        return ", ".join(f"{name}{mark}{masked(name, value)}" for name, mark, value in pairs) or _NONE
    return ", ".join(" ".join(masked_words(value.split(" "))) for value in values) or _NONE


def _read(argv: Sequence[str]) -> _Command:
    program = basename(argv[0])
    if program != "podman" or tuple(argv[1:2]) != ("run",):
        return _Command(argv[0], {"args": tuple(_flags(argv[1:]))})
    fields: dict[str, list[str]] = {}
    words = iter(argv[2:])
    image = ""
    for word in words:
        if not word.startswith("-"):
            image = word
            break
        name, value = _option(word, words)
        if not value.startswith(f"{LABEL_SPEC}="):
            fields.setdefault(_FIELDS.get(name, "options"), []).append(_told(name, value))
    known = {field: tuple(values) for field, values in fields.items()}
    return _Command(program, {**known, "image": (image,), "args": tuple(_flags(tuple(words)))})


def _option(word: str, rest: Iterator[str]) -> tuple[str, str]:
    """Return one of podman's options by its long name, and its value: behind ``=``, or the next word."""
    name, mark, value = word.partition("=")
    name = _SHORT.get(name, name)
    return (name, next(rest, "")) if not mark and name in _WITH_VALUE else (name, value)


def _told(name: str, value: str) -> str:
    if name == "--memory" and _BYTES.fullmatch(value):
        return show_size(int(value.rstrip("b")))
    return value if name in _FIELDS else f"{name}={value}" if value else name


def _flags(words: Sequence[str]) -> Iterator[str]:
    """Yield an engine's flags, each with its values; words that no flag precedes come together."""
    for flag in read(words):
        yield " ".join((flag.name, *flag.values) if flag.key else flag.words)
