"""The command ``hal0 lock``: its name, options and help."""

from __future__ import annotations

from typing import Annotated

import typer

from hal0.cli.options import Options
from hal0.cli.params import AsJson, ManifestPath, Runtime, ScopeName


def lock(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME]...", help="With --upgrade: only these models, images, or those of these slots."),
    ] = None,
    upgrade: Annotated[
        bool, typer.Option("--upgrade", help="Ask anew for what is locked already: the hub, and images' registries.")
    ] = False,
    check: Annotated[bool, typer.Option("--check", help="Write nothing; exit 2 if it would change.")] = False,
    path: ManifestPath = None,
    as_json: AsJson = False,
    runtime: Runtime = "auto",
    scope: ScopeName = None,
) -> None:
    """Write hal0.lock beside the manifests: the sha256 and commit of each model, the digest of each image.

    What is locked already stays, unless it is to be upgraded. A lock that is there is in force: keep it in git.
    """
    from hal0.cli import lock as command

    what = command.What(upgrade, names or [], check)
    raise typer.Exit(command.lock(Options(path, runtime=runtime, scope=scope), what, as_json=as_json))
