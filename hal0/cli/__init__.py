"""The command line. Heavy imports are inside the commands, so that `hal0 --help` is quick."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line and exit with its code."""
    from hal0.cli.app import app
    from hal0.errors import Hal0Error

    try:
        app()
    except Hal0Error as error:
        if "--debug" in sys.argv:
            raise
        _complain(error)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)


def _complain(error: Exception) -> None:
    hint = getattr(error, "hint", "")
    sys.stderr.write(f"error: {error}\n" + (f"hint: {hint}\n" if hint else ""))
