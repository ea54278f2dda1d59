"""The process runtime's files: definitions (``slots/NAME.toml``) and records of children (``run/NAME.json``)."""

from __future__ import annotations

import contextlib
import json
import tomllib
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hal0.core.facts import Fact, Known, Unknown
from hal0.core.launch import hash_of
from hal0.core.observed import Definition
from hal0.errors import StepFailed
from hal0.host.whole import put_aside, replace

if TYPE_CHECKING:
    from collections.abc import Iterator

STOP_TIMEOUT = 20.0  # seconds


@dataclass(frozen=True, slots=True)
class Command:
    """What a definition says to run. ``stop_timeout`` is in seconds; ``env`` may hold secrets and is never shown."""

    argv: tuple[str, ...]
    env: dict[str, str] = field(default_factory=dict, repr=False)
    stop_timeout: float = STOP_TIMEOUT

    @property
    def spec_hash(self) -> str:
        """Hash of what is executed. Of an edited definition it is another one than the mark's."""
        return hash_of(self.argv, self.env)


@dataclass(frozen=True, slots=True)
class Record:
    """Which process runs for a slot: pid, start time (ticks) and boot id together name it for all time.

    ``argv`` and ``spec_hash`` are what it was started with; its environment itself is not recorded.
    """

    pid: int
    start_time: int
    boot_id: str
    slot: str
    spec_hash: str
    argv: tuple[str, ...]
    invocation: str


def parse(text: str) -> Command:
    """Read a definition's ``[process]`` table; raises ``ValueError`` saying what is wrong."""
    table = tomllib.loads(text).get("process")
    if not isinstance(table, dict):
        raise ValueError("there is no [process] table")  # noqa: TRY004  (one kind of error for every bad file)
    argv, env, timeout = table.get("argv"), table.get("env", {}), table.get("stop_timeout", STOP_TIMEOUT)
    if not argv or not _are_strings(argv):
        raise ValueError("process.argv must be a list of strings that is not empty")
    if not isinstance(env, dict) or not _are_strings(list(env.values())):
        raise ValueError("process.env must be a table of strings")
    if not isinstance(timeout, int | float) or isinstance(timeout, bool) or timeout < 0:
        raise ValueError("process.stop_timeout must be a number of seconds")
    return Command(tuple(argv), dict(env), float(timeout))


class Definitions:
    """The definitions of all slots in one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path(self, slot: str) -> Path:
        """Return where a slot's definition lies; raises ``StepFailed`` for a name that is no file name."""
        if not slot or slot.startswith(".") or "/" in slot or "\0" in slot:
            raise StepFailed(f"{slot!r} can't name a slot", hint="Use a-z, 0-9 and `-`.")
        return self._folder / f"{slot}.toml"

    def names(self) -> frozenset[str]:
        """Return the slots that have a definition; none when the folder can't be read."""
        return _stems(self._folder, ".toml")

    def read(self, slot: str) -> Fact[Definition | None]:
        """Return a slot's definition as it lies on disk. Bytes that are not UTF-8 are replaced: it was edited."""
        path = self.path(slot)
        try:
            return Known(Definition(str(path), path.read_text(errors="replace")))
        except FileNotFoundError:
            return Known(None)
        except OSError as error:
            return Unknown(f"{path}: {error.strerror}")

    def write(self, slot: str, text: str) -> None:
        """Put a definition in place: after a crash there is the old one or the new one. Raises ``StepFailed``."""
        path = self.path(slot)
        with _explained(f"can't write {path}"):
            _put(path, text)

    def remove(self, slot: str) -> None:
        """Remove a definition; nothing to remove is not an error. Raises ``StepFailed``."""
        path = self.path(slot)
        with _explained(f"can't remove {path}"):
            path.unlink(missing_ok=True)

    def put_aside(self, slot: str) -> None:
        """Rename a definition, so that it is none any more. Raises ``StepFailed``."""
        path = self.path(slot)
        with _explained(f"can't rename {path}"):
            put_aside(path)


class Records:
    """The records of the children that run, one file for each slot."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def all(self) -> dict[str, Record | None]:
        """Return the record of each slot that has one, None for one that can't be read."""
        return {slot: self._read(slot) for slot in sorted(_stems(self._folder, ".json"))}

    def write(self, record: Record) -> None:
        """Put a record in place. Raises ``OSError``."""
        _put(self._folder / f"{record.slot}.json", json.dumps(asdict(record)) + "\n")

    def remove(self, slot: str) -> None:
        """Remove a record; nothing to remove is not an error, and a stale one is dropped when it is next read."""
        with contextlib.suppress(OSError):
            (self._folder / f"{slot}.json").unlink(missing_ok=True)

    def _read(self, slot: str) -> Record | None:
        try:
            values: dict[str, Any] = json.loads((self._folder / f"{slot}.json").read_text())
            return Record(**{**values, "argv": tuple(values["argv"])})
        except (OSError, ValueError, TypeError, KeyError):
            return None


def _put(path: Path, text: str) -> None:
    """Write a file for its owner alone. The folder is made again if someone removed it. Raises ``OSError``."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    replace(path, text)


def _stems(folder: Path, suffix: str) -> frozenset[str]:
    try:
        return frozenset(path.stem for path in folder.iterdir() if _names_a_slot(path, suffix))
    except OSError:
        return frozenset()


def _names_a_slot(path: Path, suffix: str) -> bool:
    return path.suffix == suffix and not path.name.startswith(".")


def _are_strings(values: object) -> bool:
    return isinstance(values, list) and all(isinstance(value, str) for value in values)


@contextlib.contextmanager
def _explained(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StepFailed(f"{what}: {error.strerror}") from error
