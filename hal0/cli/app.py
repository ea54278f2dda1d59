"""Every command's name, options and help. What a command does is in the module that it imports when it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hal0.cli import app_capability, app_care, app_host, app_import, app_lock, app_model, app_profile, app_slot
from hal0.cli.complete import slots
from hal0.cli.options import Options
from hal0.cli.params import (
    AsJson,
    Atomic,
    Detailed,
    Limit,
    Panel,
    PruneAll,
    Root,
    Runtime,
    ScopeName,
    SlotName,
)

app = typer.Typer(
    name="hal0",
    help="Inference slots on this machine, declared in files. Start with: hal0 validate, hal0 plan, hal0 apply.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        from hal0 import __version__

        typer.echo(f"hal0 {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Inference slots on this machine, declared in files."""


@app.command(rich_help_panel=Panel.MANIFESTS)
def validate(path: Root = None, runtime: Runtime = "auto", as_json: AsJson = False, scope: ScopeName = None) -> None:
    """Check manifests: every error of every file, with its line. Needs no host."""
    from hal0.cli import manifests

    raise typer.Exit(manifests.validate(path, runtime=runtime, scope=scope, as_json=as_json))


@app.command(rich_help_panel=Panel.MANIFESTS)
def schema() -> None:
    """Print the manifests' JSON Schema, for editors."""
    from hal0.cli import manifests

    manifests.schema()


@app.command(rich_help_panel=Panel.MANIFESTS)
def plan(
    path: Root = None,
    limit: Limit = None,
    diff: Annotated[bool, typer.Option("--diff/--no-diff", help="Show the definitions' diffs.")] = True,
    detailed: Detailed = False,
    prune_all: PruneAll = False,
    as_json: AsJson = False,
    runtime: Runtime = "auto",
    scope: ScopeName = None,
) -> None:
    """Show what apply would change, and why. Changes nothing."""
    from hal0.cli import plan as command

    options = Options(path, limit, prune_all, runtime, scope)
    raise typer.Exit(command.plan(options, show_diff=diff, detailed=detailed, as_json=as_json))


@app.command(rich_help_panel=Panel.MANIFESTS)
def diff(
    path: Root = None,
    limit: Limit = None,
    detailed: Detailed = False,
    runtime: Runtime = "auto",
    scope: ScopeName = None,
) -> None:
    """Show only the diffs of the definitions that apply would write."""
    from hal0.cli import plan as command

    raise typer.Exit(command.diff(Options(path, limit, False, runtime, scope), detailed=detailed))


@app.command(rich_help_panel=Panel.MANIFESTS)
def apply(
    path: Root = None,
    check: Annotated[bool, typer.Option("--check", help="Only show the plan.")] = False,
    diff: Annotated[bool, typer.Option("--diff", help="Show the definitions' diffs.")] = False,
    limit: Limit = None,
    atomic: Atomic = False,
    locked: Annotated[
        bool, typer.Option("--locked", help="Refuse to run anything that is not as hal0.lock has it.")
    ] = False,
    timeout: Annotated[float, typer.Option(help="Seconds to wait until every slot is ready.")] = 600.0,
    detailed: Detailed = False,
    prune_all: PruneAll = False,
    as_json: AsJson = False,
    runtime: Runtime = "auto",
    scope: ScopeName = None,
) -> None:
    """Make this host what the manifests say."""
    options = Options(path, limit, prune_all, runtime, scope, locked=locked)
    if check:
        from hal0.cli import plan as command

        raise typer.Exit(command.plan(options, show_diff=diff, detailed=detailed, as_json=as_json))
    from hal0.cli import apply as applying

    how = applying.How(timeout, atomic)
    raise typer.Exit(applying.apply(options, how, show_diff=diff, detailed=detailed, as_json=as_json))


@app.command(rich_help_panel=Panel.HOST)
def serve(
    path: Root = None,
    listen: Annotated[str | None, typer.Option(help="Address and port; by default the Host manifest's.")] = None,
    runtime: Runtime = "auto",
    scope: ScopeName = None,
) -> None:
    """Run the daemon: keep the host as declared, and serve /v1, /api and /metrics."""
    from hal0.cli import serve as command

    raise typer.Exit(command.serve(path, listen=listen, runtime=runtime, scope=scope))


@app.command(rich_help_panel=Panel.HOST)
def install(
    manifests: Annotated[Path | None, typer.Option(help="Manifest root that the daemon serves.")] = None,
    start: Annotated[bool, typer.Option("--start/--no-start", help="Enable and start the daemon.")] = True,
    scope: ScopeName = None,
) -> None:
    """Put hal0's units in place, and start the daemon."""
    from hal0.cli import install as command

    raise typer.Exit(command.install(manifests, start=start, scope=scope))


@app.command(rich_help_panel=Panel.LOOK)
def status(as_json: AsJson = False, path: Root = None, runtime: Runtime = "auto", scope: ScopeName = None) -> None:
    """Show the state of everything: manifests, slots, drift."""
    from hal0.cli import look

    raise typer.Exit(look.status(Options(path, None, False, runtime, scope), as_json=as_json))


@app.command(rich_help_panel=Panel.MANIFESTS)
def history(
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, max=1000, help="How many of the last applies.")] = 20,
    as_json: AsJson = False,
    runtime: Runtime = "auto",
    scope: ScopeName = None,
) -> None:
    """List applies: who had which manifests taken up, what came of it, and how long it took."""
    from hal0.cli import history as command

    options = Options(runtime=runtime, scope=scope)
    raise typer.Exit(command.history(options, lines=lines, as_json=as_json))


@app.command(rich_help_panel=Panel.MANIFESTS)
def rollback(
    rev: Annotated[
        str,
        typer.Argument(metavar="[REV]", help="gN of hal0 history, or a git revision. Default: the last good one."),
    ] = "",
    force: Annotated[bool, typer.Option("--force", help="Overwrite edits that were never applied.")] = False,
    atomic: Atomic = False,
    timeout: Annotated[float, typer.Option(help="Seconds to wait until every slot is ready.")] = 600.0,
    prune_all: PruneAll = False,
    as_json: AsJson = False,
    runtime: Runtime = "auto",
    scope: ScopeName = None,
) -> None:
    """Bring earlier manifests back, and apply them. Writes their files; git's HEAD and index stay as they are."""
    from hal0.cli import apply as applying

    options = Options(None, None, prune_all, runtime, scope)
    raise typer.Exit(applying.rollback(options, rev, applying.How(timeout, atomic), force=force, as_json=as_json))


@app.command(rich_help_panel=Panel.LOOK)
def why(name: SlotName, as_json: AsJson = False, runtime: Runtime = "auto", scope: ScopeName = None) -> None:
    """Tell what happened to a slot last and why: rules, revisions, requests and people behind it."""
    from hal0.cli import why as command

    raise typer.Exit(command.why(Options(runtime=runtime, scope=scope), name, as_json=as_json))


@app.command(rich_help_panel=Panel.LOOK)
def route(
    model: Annotated[
        str | None, typer.Argument(help="Model as a client names it; none is a request without one.")
    ] = None,
    at: Annotated[str, typer.Option("--path", help="Path of /v1 that is asked.")] = "/v1/chat/completions",
    as_json: AsJson = False,
    runtime: Runtime = "auto",
    scope: ScopeName = None,
) -> None:
    """Explain where a request would go, and why. Sends nothing."""
    from hal0.cli import look

    raise typer.Exit(look.route(Options(runtime=runtime, scope=scope), model, at, as_json=as_json))


@app.command(rich_help_panel=Panel.LOOK)
def chat(
    slot: Annotated[
        str | None,
        typer.Argument(help="Slot, alias or model; by default a slot of type llm that is up.", autocompletion=slots),
    ] = None,
    system: Annotated[str, typer.Option(help="What the model is told before all else.")] = "",
    scope: ScopeName = None,
) -> None:
    """Talk with a model, on the terminal. A pipe on stdin is one turn: echo 'Say hello.' | hal0 chat."""
    from hal0.cli import chat as command

    raise typer.Exit(command.chat(Options(scope=scope), slot, system=system))


app.add_typer(app_slot.app, name="slot", rich_help_panel=Panel.PARTS)
app.add_typer(app_care.app)
app.add_typer(app_care.upstream, name="upstream", rich_help_panel=Panel.PARTS)
app.add_typer(app_import.app, name="import", rich_help_panel=Panel.MANIFESTS)
app.command("probe", rich_help_panel=Panel.HOST)(app_host.probe)
app.add_typer(app_model.app, name="model", rich_help_panel=Panel.PARTS)
app.command("lock", rich_help_panel=Panel.MANIFESTS)(app_lock.lock)
app.add_typer(app_profile.app, name="profile", rich_help_panel=Panel.PARTS)
app.add_typer(app_capability.app, name="capability", rich_help_panel=Panel.PARTS)
