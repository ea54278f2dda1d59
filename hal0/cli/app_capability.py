"""The commands of ``hal0 capability``: names, options and help."""

from __future__ import annotations

from typing import Annotated

import typer

from hal0.cli.options import Options
from hal0.cli.params import AsJson, Root, Runtime, ScopeName

app = typer.Typer(
    help="Turn on what a machine can do besides talk: embed, voice, img, vision. Each is made of ordinary slots.",
    no_args_is_help=True,
)

Name = Annotated[str, typer.Argument(help="embed, voice, img or vision.")]
Children = Annotated[
    list[str] | None,
    typer.Argument(metavar="[CHILD]...", help="embed, rerank, stt, tts, img, vision; by default all of NAME."),
]


@app.command("list")
def capability_list(
    path: Root = None, as_json: AsJson = False, runtime: Runtime = "auto", scope: ScopeName = None
) -> None:
    """List capabilities: what is on, its model and whether that is here, and what serves it."""
    from hal0.cli import capabilities

    raise typer.Exit(capabilities.listed(Options(path, runtime=runtime, scope=scope), as_json=as_json))


@app.command("enable")
def capability_enable(
    name: Name,
    children: Children = None,
    model: Annotated[str | None, typer.Option(help="Name or alias of a Model; by default one that ships.")] = None,
    device: Annotated[
        str | None, typer.Option(help="cpu, gpu-vulkan, gpu-rocm, gpu-cuda or npu; by default the best one here.")
    ] = None,
    as_json: AsJson = False,
    runtime: Runtime = "auto",
    scope: ScopeName = None,
) -> None:
    """Turn on a capability, or a part of it, in its manifest. Its slots start when they are first asked for."""
    from hal0.cli import capabilities

    keys = capabilities.Keys(tuple(children or ()), model, device)
    raise typer.Exit(capabilities.enabled(Options(runtime=runtime, scope=scope), name, keys, as_json=as_json))


@app.command("disable")
def capability_disable(
    name: Name,
    children: Children = None,
    as_json: AsJson = False,
    runtime: Runtime = "auto",
    scope: ScopeName = None,
) -> None:
    """Turn off a capability, or a part of it: its slots are stopped and removed. Their models stay."""
    from hal0.cli import capabilities

    keys = capabilities.Keys(tuple(children or ()))
    raise typer.Exit(capabilities.disabled(Options(runtime=runtime, scope=scope), name, keys, as_json=as_json))
