"""``python tests/bench/run.py``: see --help. The file is a script, so that nothing has to be installed for it."""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    # The tests' own folder in place of this one: `bench`, `realhost` and `worlds` are imported from there.
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from bench.sections import main

    sys.exit(main())
