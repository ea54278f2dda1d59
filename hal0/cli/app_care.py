"""Commands that look after an installation: names, options and help."""

from __future__ import annotations

import typer

from hal0.cli.options import Options
from hal0.cli.params import AsJson, Root, Runtime, ScopeName

app = typer.Typer()


@app.command()
def doctor(path: Root = None, as_json: AsJson = False, runtime: Runtime = "auto", scope: ScopeName = None) -> None:
    """Look for what keeps hal0 from working here, and say how to mend it. Changes nothing; exits 3 where a check fails.

    Looks at systemd, podman, cgroups, disks, GPUs, hal0's units and daemon, and at what the manifests need: ports,
    model files, devices, secrets, certificates. Needs no daemon and no root; what you may not see is unknown.
    """
    from hal0.cli import doctor as command

    raise typer.Exit(command.doctor(Options(path, None, False, runtime, scope), as_json=as_json))
