"""How long the command line takes to say something, beside a bare typer application in the same rounds."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import typer
from bench.local import HAL0, daemon, environment
from bench.measure import Row, Rows, Spent, interleaved, ratios

from hal0.cli.app import app

_ROUNDS = 20
_SLOTS = 20
_HELP_AIM = 1.3
_LIST_AIM = 2.0
_BARE = Path(__file__).with_name("bare_typer.py")
_MODEL = "kind: Model\nname: m\npath: m.gguf\n"


def rows() -> Rows:
    """Measure the help texts and a listing that asks a daemon."""
    count = commands(app)
    bare, python = "bare typer --help", "python -c pass"
    manifests = {"slots.yaml": _MODEL + "".join(_slot(number) for number in range(_SLOTS))}
    with daemon(manifests) as running:
        spent = interleaved(
            {
                python: ([sys.executable, "-c", "pass"], environment()),
                bare: ([sys.executable, str(_BARE), str(count), "--help"], environment()),
                "hal0 --help": ([str(HAL0), "--help"], environment()),
                "hal0 --version": ([str(HAL0), "--version"], environment()),
                "hal0 slot list": ([str(HAL0), "slot", "list"], running.env),
            },
            rounds=_ROUNDS,
        )
    for name, taken in spent.items():
        yield from _absolute(name, taken)
    yield from _relative("hal0 --help", spent, bare, _HELP_AIM)
    yield from _relative("hal0 slot list", spent, bare, _LIST_AIM)


def commands(group: typer.Typer) -> int:
    """Return how many commands an application has, those of its groups included."""
    inner = [found.typer_instance for found in group.registered_groups if found.typer_instance]
    return len(group.registered_commands) + sum(commands(found) for found in inner)


def _slot(number: int) -> str:
    return f"---\nkind: Slot\nname: slot-{number}\nmodel: m\nrun: never\nport: {30000 + number}\n"


def _absolute(name: str, taken: Sequence[Spent]) -> Iterator[Row]:
    yield Row(f"{name}, wall", "ms", tuple(one.wall * 1e3 for one in taken))
    yield Row(f"{name}, CPU", "ms", tuple(one.cpu * 1e3 for one in taken))


def _relative(name: str, spent: Mapping[str, Sequence[Spent]], base: str, aim: float) -> Iterator[Row]:
    wall = ratios([one.wall for one in spent[name]], [one.wall for one in spent[base]])
    cpu = ratios([one.cpu for one in spent[name]], [one.cpu for one in spent[base]])
    yield Row(f"{name} / {base}, wall", "x", wall, aim)
    yield Row(f"{name} / {base}, CPU", "x", cpu, aim)
