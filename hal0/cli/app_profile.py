"""The commands of ``hal0 profile``: names, options and help."""

from __future__ import annotations

import typer

from hal0.cli.options import Options
from hal0.cli.params import AsJson, Root, Runtime, ScopeName

app = typer.Typer(help="Look at profiles: how engines are run.", no_args_is_help=True)


@app.command("list")
def profile_list(
    path: Root = None, as_json: AsJson = False, runtime: Runtime = "auto", scope: ScopeName = None
) -> None:
    """List profiles, those that ship with hal0 too: engine, image, what they extend, and the slots that have them."""
    from hal0.cli import profiles

    raise typer.Exit(profiles.listing(Options(path, runtime=runtime, scope=scope), as_json=as_json))


@app.command("show")
def profile_show(
    name: str, path: Root = None, as_json: AsJson = False, runtime: Runtime = "auto", scope: ScopeName = None
) -> None:
    """Show what a profile comes to with all that it extends, and where each key and flag is written."""
    from hal0.cli import profiles

    raise typer.Exit(profiles.show_one(Options(path, runtime=runtime, scope=scope), name, as_json=as_json))
