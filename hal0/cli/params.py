"""Arguments and options that several commands have."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from hal0.cli.complete import slots

SlotName = Annotated[str, typer.Argument(metavar="NAME", help="The slot.", autocompletion=slots)]
Root = Annotated[
    Path | None, typer.Argument(metavar="[PATH]", help="Manifests; by default the daemon's, else /etc/hal0/manifests.")
]
ManifestPath = Annotated[
    Path | None,
    typer.Option("--path", metavar="PATH", help="Manifests; by default the daemon's, else /etc/hal0/manifests."),
]
ScopeName = Annotated[
    str | None, typer.Option("--scope", envvar="HAL0_SCOPE", help="system or user; by default by who you are.")
]
Runtime = Annotated[str, typer.Option(envvar="HAL0_RUNTIME", help="auto, systemd or process.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Limit = Annotated[
    list[str] | None,
    typer.Option("--limit", metavar="NAME", help="Only this slot. May be repeated.", autocompletion=slots),
]
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


class Panel(StrEnum):
    """The parts of ``hal0 --help``."""

    MANIFESTS = "Manifests"
    LOOK = "What is, and why"
    PARTS = "Slots, models and what they stand on"
    HOST = "This machine"
