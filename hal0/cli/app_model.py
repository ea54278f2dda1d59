"""The commands of ``hal0 model``: names, options and help."""

from __future__ import annotations

from typing import Annotated

import typer

from hal0.cli.options import Options
from hal0.cli.params import AsJson, Runtime, ScopeName

app = typer.Typer(help="List models, fetch and declare them, check and remove their files.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="Name or alias of a Model, or the id of a file that was found.")]


@app.command("list")
def model_list(as_json: AsJson = False, runtime: Runtime = "auto", scope: ScopeName = None) -> None:
    """List the models that are declared, and those that lie in the model directory."""
    from hal0.cli import models

    raise typer.Exit(models.listed(Options(runtime=runtime, scope=scope), as_json=as_json))


@app.command("show")
def model_show(name: Name, as_json: AsJson = False, runtime: Runtime = "auto", scope: ScopeName = None) -> None:
    """Show one model: its files, where it comes from, what its header says, and the slots that have it."""
    from hal0.cli import models

    raise typer.Exit(models.shown(Options(runtime=runtime, scope=scope), name, as_json=as_json))


@app.command("fit")
def model_fit(
    name: Name,
    context_size: Annotated[int | None, typer.Option("--ctx-size", min=0, help="Tokens; 0 is the model's own.")] = None,
    device: Annotated[
        str | None, typer.Option("--device", "--hardware", help="By default the one that `slot create` would take.")
    ] = None,
    profile: Annotated[str | None, typer.Option("--profile", help="By default the device's own.")] = None,
    as_json: AsJson = False,
    runtime: Runtime = "auto",
    scope: ScopeName = None,
) -> None:
    """Say whether a slot of a model would fit, what it would take, and the largest context that would. Changes nothing.

    Exit code 0 where it fits, now or once others make room, 3 where it does not or that is not known. Of a model that
    was not fetched yet its source is asked for the size.
    """
    from hal0.cli import fit

    wanted = fit.FitOptions(context_size, device, profile)
    raise typer.Exit(fit.fit(Options(runtime=runtime, scope=scope), name, wanted, as_json=as_json))


@app.command("pull")
def model_pull(
    model: Annotated[
        str, typer.Argument(help="A Model, or OWNER/REPO/FILE[@REVISION], OWNER/REPO:QUANT, OWNER/REPO, https://...")
    ],
    name: Annotated[
        str | None, typer.Option("--name", help="What a new Model is called; by default as its file.")
    ] = None,
    as_json: AsJson = False,
    runtime: Runtime = "auto",
    scope: ScopeName = None,
) -> None:
    """Fetch a model, or what is missing of it. Once interrupted, the next pull goes on where it was.

    What no manifest declares yet is named by where it comes from, a file of the Hugging Face hub or an address: it is
    declared in models.yaml first. Of a repository alone, what it offers is listed.
    """
    from hal0.cli import models

    raise typer.Exit(models.pulled(Options(runtime=runtime, scope=scope), model, name or "", as_json=as_json))


@app.command("verify")
def model_verify(name: Name, as_json: AsJson = False, runtime: Runtime = "auto", scope: ScopeName = None) -> None:
    """Hash a model's files, and say whether they have the sha256 of its manifest; exit 3 where they don't."""
    from hal0.cli import models

    raise typer.Exit(models.verified(Options(runtime=runtime, scope=scope), name, as_json=as_json))


@app.command("rm")
def model_rm(
    name: Name,
    force: Annotated[bool, typer.Option("--force", "-f", help="Don't ask.")] = False,
    as_json: AsJson = False,
    runtime: Runtime = "auto",
    scope: ScopeName = None,
) -> None:
    """Remove a model's files. Asks first, and refuses while a slot declares or runs it. Its manifest stays."""
    from hal0.cli import models

    raise typer.Exit(models.removed(Options(runtime=runtime, scope=scope), name, force=force, as_json=as_json))


@app.command("scan")
def model_scan(
    write: Annotated[bool, typer.Option("--write", help="Add them to models.yaml, below the manifests' root.")] = False,
    as_json: AsJson = False,
    runtime: Runtime = "auto",
    scope: ScopeName = None,
) -> None:
    """Print manifests for the models that lie in the model directories and that none declares yet."""
    from hal0.cli import models

    options = Options(runtime=runtime, scope=scope)
    raise typer.Exit((models.declared if write else models.scanned)(options, as_json=as_json))
