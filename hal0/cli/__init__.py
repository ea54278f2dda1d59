"""The command line. Heavy imports are inside the commands, so that `hal0 --help` is quick."""

from __future__ import annotations

import gc
import sys


def main() -> None:
    """Run the command line and exit with its code."""
    gc.disable()  # modules make no garbage: looking for it is a tenth of a start; `running` enables it
    from typer import BadParameter

    from hal0.cli.app import app
    from hal0.errors import DaemonCame, Hal0Error

    # 2 is what `--detailed-exitcode` tells of changes: a command that can't be taken is 1.
    for kind in BadParameter.__mro__:
        if kind.__name__ == "UsageError":
            kind.exit_code = 1  # type: ignore[attr-defined]
    try:
        try:
            app()
        except DaemonCame:
            app()  # it is the daemon's to do: nothing was done yet
    except Hal0Error as error:
        if "--debug" in sys.argv:
            raise
        _complain(error)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
    except OSError as error:  # such as a full disk behind stdout
        if "--debug" in sys.argv:
            raise
        _complain(error)
        sys.exit(1)


def _complain(error: Exception) -> None:
    hint = getattr(error, "hint", "")
    sys.stderr.write(f"error: {error}\n" + (f"hint: {hint}\n" if hint else ""))
