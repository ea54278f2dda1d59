"""The commands of ``hal0 slot``: names, options and help."""

from __future__ import annotations

from typing import Annotated

import typer

from hal0.cli.options import Options
from hal0.cli.params import (
    AsJson,
    ContextSize,
    Hardware,
    Lasting,
    Provider,
    Runtime,
    ScopeName,
    SlotName,
    SlotPort,
    Timeout,
    Wait,
)

app = typer.Typer(help="Look at slots, load and unload them, and change their manifests.", no_args_is_help=True)


@app.command("create")
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


@app.command("edit")
def slot_edit(
    name: SlotName,
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


@app.command("delete")
def slot_delete(
    name: SlotName,
    force: Annotated[bool, typer.Option("--force", "-f", help="Don't ask.")] = False,
    as_json: AsJson = False,
    runtime: Runtime = "auto",
    scope: ScopeName = None,
) -> None:
    """Stop and remove a slot, and take it out of its manifest. Asks first."""
    from hal0.cli import authoring

    options = Options(runtime=runtime, scope=scope)
    raise typer.Exit(authoring.delete(options, name, force=force, as_json=as_json))


@app.command("list")
def slot_list(as_json: AsJson = False, runtime: Runtime = "auto", scope: ScopeName = None) -> None:
    """List slots with state, model, device and port."""
    from hal0.cli import look

    raise typer.Exit(look.slots(Options(runtime=runtime, scope=scope), as_json=as_json))


@app.command("show")
def slot_show(
    name: SlotName,
    command: Annotated[
        bool, typer.Option("--command", help="Show its command line instead, and where each part comes from.")
    ] = False,
    as_json: AsJson = False,
    runtime: Runtime = "auto",
    scope: ScopeName = None,
) -> None:
    """Show one slot: conditions, container, what was changed outside hal0, its last transitions."""
    from hal0.cli import look, profiles

    options = Options(runtime=runtime, scope=scope)
    raise typer.Exit((profiles.command if command else look.slot)(options, name, as_json=as_json))


@app.command("logs")
def slot_logs(
    name: SlotName,
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


@app.command("load")
def slot_load(
    name: SlotName,
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


@app.command("unload")
def slot_unload(
    name: SlotName,
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


@app.command("swap")
def slot_swap(
    name: SlotName,
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

    @app.command(verb, help=text)
    def command(
        name: SlotName,
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


@app.command("adopt")
def slot_adopt(
    name: SlotName,
    force: Annotated[bool, typer.Option("--force", "-f", help="Don't ask.")] = False,
    timeout: Timeout = 600.0,
    as_json: AsJson = False,
    runtime: Runtime = "auto",
    scope: ScopeName = None,
) -> None:
    """Take over the drop-in or the container that somebody else put in a slot's place. Shows the change, and asks.

    What runs there is stopped, its container removed, its drop-in kept as 50-hal0.conf.bak. Then the slot is made what
    its manifest says.
    """
    from hal0.cli import adopt

    raise typer.Exit(adopt.adopt(Options(runtime=runtime, scope=scope), name, timeout, force=force, as_json=as_json))
