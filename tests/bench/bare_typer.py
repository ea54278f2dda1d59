"""A typer application with nothing in it but commands: what hal0's own start is held against."""

from __future__ import annotations

import sys

import typer


def make(count: int) -> typer.Typer:
    """Return an application with so many commands."""
    app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False)
    for number in range(count):
        app.command(f"command-{number}")(_command)
    return app


def _command(path: str = "", limit: str = "", check: bool = False) -> None:
    """Do nothing, at some length."""


if __name__ == "__main__":
    make(int(sys.argv.pop(1)))()
