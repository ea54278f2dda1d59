"""``--locked``: nothing is run but what the lock has."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from hal0.core.locked import Stale, not_as_locked
from hal0.core.spec import Desired
from hal0.errors import UsageError
from hal0.loop.reconcile import Reconciler


class NotLocked(UsageError):
    """Something that would be run is not locked, or is not what was locked: nothing was changed."""

    def __init__(self, faults: Iterable[Stale]) -> None:
        self.faults = tuple(faults)
        lines = "\n".join(map(str, self.faults))
        super().__init__(f"{lines}\nnot everything is as hal0.lock has it: nothing was changed", hint="hal0 lock")


def check_locked(reconciler: Reconciler, desired: Desired, limit: frozenset[str] | None) -> None:
    """Raise ``NotLocked`` unless all that some slots would run is locked, and what is here of it is what was locked.

    ``desired`` was looked at just before: files and images are judged by that look. A file that nobody has hashed is
    not known to be the locked one.
    """
    slots = {name: slot for name, slot in desired.slots.items() if limit is None or name in limit}
    paths = {path for slot in slots.values() for path in slot.spec.model_files}
    unhashed = frozenset(path for path in paths if _is_unhashed(reconciler, path))
    if faults := not_as_locked(desired, slots, reconciler.observer.seen, unhashed):
        raise NotLocked(faults)


def _is_unhashed(reconciler: Reconciler, path: str) -> bool:
    """Return whether a file is there, and nobody knows its sum as it is now."""
    try:
        seen = Path(path).stat()
    except OSError:
        return False  # that it is not there is seen by the look
    return reconciler.store.digests.of(path, seen.st_size, seen.st_mtime_ns) is None
