"""Commands that look after an installation: names, options and help."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from hal0.cli.complete import upstreams
from hal0.cli.options import Options
from hal0.cli.params import AsJson, Panel, Root, Runtime, ScopeName

app = typer.Typer()
upstream = typer.Typer(help="Look at upstreams, and try them.", no_args_is_help=True)


class Shell(StrEnum):
    """The shells that can complete."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


@app.command(rich_help_panel=Panel.HOST)
def doctor(path: Root = None, as_json: AsJson = False, runtime: Runtime = "auto", scope: ScopeName = None) -> None:
    """Look for what keeps hal0 from working here, and say how to mend it. Changes nothing; exits 3 where a check fails.

    Looks at systemd, podman, cgroups, disks, GPUs, hal0's units and daemon, and at what the manifests need: ports,
    model files, devices, secrets, certificates. Needs no daemon and no root; what you may not see is unknown.
    """
    from hal0.cli import doctor as command

    raise typer.Exit(command.doctor(Options(path, None, False, runtime, scope), as_json=as_json))


@app.command(rich_help_panel=Panel.HOST)
def version(as_json: AsJson = False) -> None:
    """Print which hal0 this is, and what it runs on."""
    from hal0.cli import version as command

    raise typer.Exit(command.version(as_json=as_json))


@app.command(rich_help_panel=Panel.HOST)
def completion(shell: Annotated[Shell, typer.Argument(help="Whose script to print.")]) -> None:
    """Print the script that has a shell complete commands, options and the names of slots.

    bash: hal0 completion bash > /etc/bash_completion.d/hal0

    zsh: hal0 completion zsh > /usr/local/share/zsh/site-functions/_hal0

    fish: hal0 completion fish > ~/.config/fish/completions/hal0.fish
    """
    from hal0.cli import complete

    typer.echo(complete.script(shell.value))


@upstream.command("list")
def upstream_list(as_json: AsJson = False, runtime: Runtime = "auto", scope: ScopeName = None) -> None:
    """List upstreams: whether they answer, and how many models they have."""
    from hal0.cli import upstreams as command

    raise typer.Exit(command.listed(Options(runtime=runtime, scope=scope), as_json=as_json))


@upstream.command("test")
def upstream_test(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The upstream.", autocompletion=upstreams)],
    as_json: AsJson = False,
    runtime: Runtime = "auto",
    scope: ScopeName = None,
) -> None:
    """Ask an upstream for its list: does it answer, how fast, and does it take the key? Exits 3 where it can't be used.

    It is asked with the key and without it. No model is asked, so nothing is billed. The key is shown nowhere.
    """
    from hal0.cli import upstreams as command

    raise typer.Exit(command.test(Options(runtime=runtime, scope=scope), name, as_json=as_json))


@app.command(rich_help_panel=Panel.HOST)
def uninstall(
    purge: Annotated[
        bool, typer.Option("--purge", help="Remove what hal0 remembers, too: its own files in the state directory.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", "-f", help="Don't ask.")] = False,
    scope: ScopeName = None,
) -> None:
    """Stop the daemon and every slot of hal0's, and remove its units. Manifests and models stay.

    Only what bears hal0's mark is touched. What others put under its names is left alone, and named.
    """
    from hal0.cli import uninstall as command

    raise typer.Exit(command.uninstall(purge=purge, force=force, scope=scope))
