"""Commands about the machine: names, options and help."""

from __future__ import annotations

import typer

from hal0.cli.options import Options
from hal0.cli.params import AsJson, Root, Runtime, ScopeName


def probe(
    path: Root = None,
    as_json: AsJson = False,
    runtime: Runtime = "auto",
    scope: ScopeName = None,
) -> None:
    """Show what this machine has: CPU, memory, GPUs, NPUs, disk, and the device that slots do best on. Changes nothing.

    `hal0 model fit` says whether a model fits.
    """
    from hal0.cli import probe as command

    raise typer.Exit(command.probe(Options(path, runtime=runtime, scope=scope), as_json=as_json))
