"""Commands about the machine: names, options and help."""

from __future__ import annotations

from typing import Annotated

import typer

from hal0.cli.options import Options
from hal0.cli.params import AsJson, Root, Runtime, ScopeName


def probe(
    path: Root = None,
    model: Annotated[
        str | None, typer.Option("--fit", metavar="MODEL", help="Say instead whether a slot of this Model would fit.")
    ] = None,
    context_size: Annotated[
        int | None, typer.Option("--ctx-size", min=0, help="With --fit: tokens; 0 is what the model states.")
    ] = None,
    hardware: Annotated[
        str | None, typer.Option(help="With --fit: the device; by default the one that `slot create` would take.")
    ] = None,
    as_json: AsJson = False,
    runtime: Runtime = "auto",
    scope: ScopeName = None,
) -> None:
    """Show what this machine has: CPU, memory, GPUs, NPUs, disk, and the device that slots do best on. Changes nothing.

    With --fit MODEL it says whether a slot of that model would fit, what it would take, and the largest context that
    would: exit code 0 where it fits, now or once others make room, 3 where it does not or that is not known.
    """
    from hal0.cli import probe as command

    options = Options(path, runtime=runtime, scope=scope)
    if model is None:
        raise typer.Exit(command.probe(options, as_json=as_json))
    raise typer.Exit(command.fit(options, model, context_size, hardware, as_json=as_json))
