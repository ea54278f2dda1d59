"""The commands of ``hal0 import``: names, options and help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hal0.cli.params import AsJson

app = typer.Typer(
    help="Print manifests for what another tool was told to run. Nothing is written, and nothing is changed.",
    no_args_is_help=True,
)
Source = Annotated[Path, typer.Argument(help="The file; - reads standard input.")]
Values = Annotated[
    list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Value of a variable in it. May be repeated.")
]
Gpu = Annotated[
    str, typer.Option("--hardware", help="Manifest key `device` of models on a GPU of which it does not say the kind.")
]


def _reader(kind: str, text: str) -> None:
    """Add the command that reads one kind of file."""

    @app.command(kind, help=text)
    def command(file: Source, values: Values = None, gpu: Gpu = "gpu-vulkan", as_json: AsJson = False) -> None:
        from hal0.cli import importing

        raise typer.Exit(importing.show(kind, file, values or [], gpu, as_json=as_json))


_reader("llama-swap", "Read llama-swap's configuration: its models become slots, its peers upstreams.")
_reader("compose", "Read a compose file: its services that run an engine become slots.")
_reader("quadlet", "Read a .container unit of podman: it becomes a slot.")
