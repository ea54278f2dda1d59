"""hal0's unit files as they lie on the disk: as shipped, older, masked, not hal0's, or not there."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from hal0.core.definition import split
from hal0.core.facts import known
from hal0.core.findings import UnitState
from hal0.core.spec import UNIT_PREFIX
from hal0.host.dropins import Dropins
from hal0.host.scope import Scope

API_UNIT = "hal0-api.service"
_TARGET = "hal0.target"
_OWN_LINE = re.compile(r"^ExecStart=.*$", re.MULTILINE)
"""What of the daemon's unit depends on the interpreter and the root that it was installed with."""


def unit_states(scope: Scope, shipped: Mapping[str, str]) -> Mapping[str, UnitState]:
    """Return how each of hal0's files is, by its path: the shipped units, and those of slots that are not right.

    ``shipped`` maps a unit's name to its text. Raises ``OSError`` where a folder can't be read.
    """
    own = {str(scope.unit_dir / name): _state(scope.unit_dir / name, text) for name, text in shipped.items()}
    return {**own, **dict(_slots(scope, frozenset(shipped)))}


def is_enabled(scope: Scope) -> bool:
    """Return whether the daemon starts with the machine, or with its user's manager."""
    boot = "default.target" if scope.is_user else "multi-user.target"
    wanted = (scope.unit_dir / f"{boot}.wants" / _TARGET, scope.unit_dir / f"{_TARGET}.wants" / API_UNIT)
    return all(link.is_symlink() for link in wanted)


def loads_credential(scope: Scope, name: str) -> bool:
    """Return whether the daemon's unit, or a drop-in of it, gives the daemon a credential."""
    files = [scope.unit_dir / API_UNIT, *(scope.unit_dir / f"{API_UNIT}.d").glob("*.conf")]
    line = re.compile(rf"^\s*(Load|Set)Credential(Encrypted)?=\s*{re.escape(name)}(:|\s*$)", re.MULTILINE)
    return any(line.search(file.read_text()) for file in files if file.is_file())


def _state(path: Path, text: str) -> UnitState:
    if _is_mask(path):
        return UnitState.MASKED
    if not path.exists():
        return UnitState.ABSENT
    return UnitState.CURRENT if _shape(path.read_text()) == _shape(text) else UnitState.OLDER


def _shape(text: str) -> str:
    return _OWN_LINE.sub("ExecStart=", text)


def _slots(scope: Scope, shipped: frozenset[str]) -> Iterator[tuple[str, UnitState]]:
    for path in sorted(scope.unit_dir.glob(f"{UNIT_PREFIX}*.service")):
        if path.name not in shipped:
            yield str(path), UnitState.MASKED if _is_mask(path) else UnitState.FOREIGN
    dropins = Dropins(scope.unit_dir)
    for slot in sorted(known(dropins.names()) or ()):
        definition = known(dropins.read(slot))
        mark = split(definition.text)[1] if definition else None
        if definition and (mark is None or mark.slot != slot):
            yield definition.path, UnitState.FOREIGN


def _is_mask(path: Path) -> bool:
    return path.is_symlink() and path.readlink() == Path("/dev/null")
