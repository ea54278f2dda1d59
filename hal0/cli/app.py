"""Every command's name, options and help. What a command does is in the module that it imports when it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hal0.cli.options import Options

app = typer.Typer(
    name="hal0",
    help="Inference slots on this machine, declared in files. Start with: hal0 validate, hal0 plan, hal0 apply.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
slot_app = typer.Typer(help="Look at slots, load and unload them, and change their manifests.", no_args_is_help=True)
app.add_typer(slot_app, name="slot")

Root = Annotated[
    Path | None, typer.Argument(metavar="[PATH]", help="Manifests; by default the daemon's, else /etc/hal0/manifests.")
]
ScopeName = Annotated[
    str | None, typer.Option("--scope", envvar="HAL0_SCOPE", help="system or user; by default by who you are.")
]
Runtime = Annotated[str, typer.Option(envvar="HAL0_RUNTIME", help="auto, systemd or process.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Limit = Annotated[list[str] | None, typer.Option("--limit", metavar="NAME", help="Only this slot. May be repeated.")]
PruneAll = Annotated[bool, typer.Option("--prune-all", help="Allow to remove more than half of the slots.")]
Timeout = Annotated[float, typer.Option(help="Seconds to wait until it is done.")]
Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Wait, and show what happens.")]
Lasting = Annotated[str | None, typer.Option("--for", metavar="DURATION", help="Until when, as 90s, 15m or 2h.")]
Atomic = Annotated[
    bool, typer.Option("--atomic", help="Take a slot back to its last good spec unless it gives a real answer in time.")
]
Detailed = Annotated[bool, typer.Option("--detailed-exitcode", help="Exit 2 when there are changes.")]

Hardware = Annotated[
    str | None, typer.Option(help="Manifest key `device`: cpu, gpu-vulkan, gpu-rocm, gpu-cuda or npu.")
]
SlotPort = Annotated[int | None, typer.Option("--port", min=0, help="Loopback port; 0 is the next free one.")]
ContextSize = Annotated[int | None, typer.Option("--ctx-size", min=0, help="Tokens; 0 is what the model states.")]
Provider = Annotated[
    str | None, typer.Option("--provider", "--profile", help="Profile that runs the engine; '' is the hardware's own.")
]


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


@app.command()
def validate(path: Root = None, runtime: Runtime = "auto", as_json: AsJson = False, scope: ScopeName = None) -> None:
    """Check manifests: every error of every file, with its line. Needs no host."""
    from hal0.cli import manifests

    raise typer.Exit(manifests.validate(path, runtime=runtime, scope=scope, as_json=as_json))


@app.command()
def schema() -> None:
    """Print the manifests' JSON Schema, for editors."""
    from hal0.cli import manifests

    manifests.schema()


@app.command()
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


@app.command()
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


@app.command()
def apply(
    path: Root = None,
    check: Annotated[bool, typer.Option("--check", help="Only show the plan.")] = False,
    diff: Annotated[bool, typer.Option("--diff", help="Show the definitions' diffs.")] = False,
    limit: Limit = None,
    atomic: Atomic = False,
    timeout: Annotated[float, typer.Option(help="Seconds to wait until every slot is ready.")] = 600.0,
    detailed: Detailed = False,
    prune_all: PruneAll = False,
    as_json: AsJson = False,
    runtime: Runtime = "auto",
    scope: ScopeName = None,
) -> None:
    """Make this host what the manifests say."""
    options = Options(path, limit, prune_all, runtime, scope)
    if check:
        from hal0.cli import plan as command

        raise typer.Exit(command.plan(options, show_diff=diff, detailed=detailed, as_json=as_json))
    from hal0.cli import apply as applying

    how = applying.How(timeout, atomic)
    raise typer.Exit(applying.apply(options, how, show_diff=diff, detailed=detailed, as_json=as_json))


@app.command()
def serve(
    path: Root = None,
    listen: Annotated[str | None, typer.Option(help="Address and port; by default the Host manifest's.")] = None,
    runtime: Runtime = "auto",
    scope: ScopeName = None,
) -> None:
    """Run the daemon: keep the host as declared, and serve /v1, /api and /metrics."""
    from hal0.cli import serve as command

    raise typer.Exit(command.serve(path, listen=listen, runtime=runtime, scope=scope))


@app.command()
def install(
    manifests: Annotated[Path | None, typer.Option(help="Manifest root that the daemon serves.")] = None,
    start: Annotated[bool, typer.Option("--start/--no-start", help="Enable and start the daemon.")] = True,
    scope: ScopeName = None,
) -> None:
    """Put hal0's units in place, and start the daemon."""
    from hal0.cli import install as command

    raise typer.Exit(command.install(manifests, start=start, scope=scope))


@app.command()
def status(as_json: AsJson = False, path: Root = None, runtime: Runtime = "auto", scope: ScopeName = None) -> None:
    """Show the state of everything: manifests, slots, drift."""
    from hal0.cli import look

    raise typer.Exit(look.status(Options(path, None, False, runtime, scope), as_json=as_json))


@app.command()
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


@app.command()
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


@app.command()
def why(name: str, as_json: AsJson = False, runtime: Runtime = "auto", scope: ScopeName = None) -> None:
    """Tell what happened to a slot last and why: rules, revisions, requests and people behind it."""
    from hal0.cli import why as command

    raise typer.Exit(command.why(Options(runtime=runtime, scope=scope), name, as_json=as_json))


@app.command()
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


@slot_app.command("create")
def slot_create(
    name: str,
    model: Annotated[str, typer.Option(help="Name or alias of a Model manifest.")],
    kind: Annotated[str | None, typer.Option("--type", help="llm, embedding, reranking, ...; by default llm.")] = None,
    hardware: Hardware = None,
    port: SlotPort = None,
    context_size: ContextSize = None,
    provider: Provider = None,
    run: Annotated[str, typer.Option("--run", help="on-demand, always or never.")] = "on-demand",
    as_json: AsJson = False,
    runtime: Runtime = "auto",
    scope: ScopeName = None,
) -> None:
    """Write a new slot's manifest, and its unit. It is not started, unless with --run always."""
    from hal0.cli import authoring

    keys = authoring.SlotOptions(model, hardware, port, context_size, provider, kind, run)
    raise typer.Exit(authoring.create(Options(runtime=runtime, scope=scope), name, keys, as_json=as_json))


@slot_app.command("edit")
def slot_edit(
    name: str,
    model: Annotated[str | None, typer.Option(help="Name or alias of a Model manifest.")] = None,
    port: SlotPort = None,
    context_size: ContextSize = None,
    provider: Provider = None,
    hardware: Hardware = None,
    as_json: AsJson = False,
    runtime: Runtime = "auto",
    scope: ScopeName = None,
) -> None:
    """Change a slot's manifest, and say what takes effect when. At least one option; 0 or '' is the default again."""
    from hal0.cli import authoring

    keys = authoring.SlotOptions(model, hardware, port, context_size, provider)
    raise typer.Exit(authoring.edit(Options(runtime=runtime, scope=scope), name, keys, as_json=as_json))


@slot_app.command("delete")
def slot_delete(
    name: str,
    force: Annotated[bool, typer.Option("--force", "-f", help="Don't ask.")] = False,
    as_json: AsJson = False,
    runtime: Runtime = "auto",
    scope: ScopeName = None,
) -> None:
    """Stop and remove a slot, and take it out of its manifest. Asks first."""
    from hal0.cli import authoring

    options = Options(runtime=runtime, scope=scope)
    raise typer.Exit(authoring.delete(options, name, force=force, as_json=as_json))


@slot_app.command("list")
def slot_list(as_json: AsJson = False, runtime: Runtime = "auto", scope: ScopeName = None) -> None:
    """List slots with state, model, device and port."""
    from hal0.cli import look

    raise typer.Exit(look.slots(Options(runtime=runtime, scope=scope), as_json=as_json))


@slot_app.command("show")
def slot_show(name: str, as_json: AsJson = False, runtime: Runtime = "auto", scope: ScopeName = None) -> None:
    """Show one slot: conditions, container, what was changed outside hal0, its last transitions."""
    from hal0.cli import look

    raise typer.Exit(look.slot(Options(runtime=runtime, scope=scope), name, as_json=as_json))


@slot_app.command("logs")
def slot_logs(
    name: str,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="How many of the last lines.")] = 200,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as lines are written.")] = False,
    as_json: AsJson = False,
    runtime: Runtime = "auto",
    scope: ScopeName = None,
) -> None:
    """Print what a slot's engine wrote."""
    from hal0.cli import look

    options = Options(runtime=runtime, scope=scope)
    raise typer.Exit(look.logs(options, name, lines=lines, follow=follow, as_json=as_json))


@slot_app.command("load")
def slot_load(
    name: str,
    model: Annotated[str | None, typer.Option(help="Serve this Model in the place of the manifest's.")] = None,
    lasting: Lasting = None,
    timeout: Timeout = 600.0,
    wait: Wait = True,
    as_json: AsJson = False,
    runtime: Runtime = "auto",
    scope: ScopeName = None,
) -> None:
    """Load a slot and wait until it is healthy. It stays up, whatever its run policy, until --for is over or reset."""
    from hal0.cli import acts

    options = Options(runtime=runtime, scope=scope)
    asked = acts.Asked("load", name, model or "", lasting, timeout, wait)
    raise typer.Exit(acts.act(options, asked, as_json=as_json))


@slot_app.command("unload")
def slot_unload(
    name: str,
    lasting: Lasting = None,
    timeout: Timeout = 600.0,
    wait: Wait = True,
    as_json: AsJson = False,
    runtime: Runtime = "auto",
    scope: ScopeName = None,
) -> None:
    """Drain and stop a slot. It stays down, whatever its run policy and its requests, until --for is over or reset."""
    from hal0.cli import acts

    options = Options(runtime=runtime, scope=scope)
    asked = acts.Asked("unload", name, "", lasting, timeout, wait)
    raise typer.Exit(acts.act(options, asked, as_json=as_json))


@slot_app.command("swap")
def slot_swap(
    name: str,
    model: Annotated[str, typer.Option(help="The Model to serve: its name or alias.")],
    persist: Annotated[bool, typer.Option(help="Write it to the manifest once it works.")] = True,
    lasting: Lasting = None,
    timeout: Timeout = 600.0,
    as_json: AsJson = False,
    runtime: Runtime = "auto",
    scope: ScopeName = None,
) -> None:
    """Serve another model without a gap where memory allows. One that does not work is given up, and changes nothing.

    The new model is loaded beside the old one, answers a real request, and takes over; where memory is short the old
    one is stopped first, and requests wait. --for takes --no-persist.
    """
    from hal0.cli import acts

    options = Options(runtime=runtime, scope=scope)
    asked = acts.Asked("swap", name, model, lasting, timeout, wait=True, persist=persist)
    raise typer.Exit(acts.act(options, asked, as_json=as_json))


def _verb(verb: str, text: str) -> None:
    """Add a command that asks a slot for something, and takes no more than how long to wait for it."""

    @slot_app.command(verb, help=text)
    def command(
        name: str,
        timeout: Timeout = 600.0,
        wait: Wait = True,
        as_json: AsJson = False,
        runtime: Runtime = "auto",
        scope: ScopeName = None,
    ) -> None:
        from hal0.cli import acts

        asked = acts.Asked(verb, name, "", None, timeout, wait)
        raise typer.Exit(acts.act(Options(runtime=runtime, scope=scope), asked, as_json=as_json))


_verb("restart", "Drain, stop and start a slot that runs, once.")
_verb("reset", "Take back what was asked of a slot by hand: its manifest holds again.")
_verb("retry", "Try a slot that failed at once, and begin its waits between tries anew.")
