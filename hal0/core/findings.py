"""What `hal0 doctor` found of a machine, each part by itself: what could not be looked at is ``Unknown``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from hal0.core.facts import Fact, Unknown
from hal0.core.secretref import SecretRef
from hal0.core.spec import RuntimeName

_NOT_LOOKED_AT = Unknown("not looked at")


class UnitState(StrEnum):
    """How a unit file lies on the disk."""

    CURRENT = "current"
    OLDER = "older"  # not as this hal0 ships it
    ABSENT = "absent"
    MASKED = "masked"
    FOREIGN = "foreign"  # of hal0's names, and without hal0's mark


@dataclass(frozen=True, slots=True)
class Installed:
    """Whose hal0 is asked about. ``booted``: systemd runs this machine."""

    is_user: bool
    runtime: RuntimeName
    booted: bool
    who: str = ""

    @property
    def needs_podman(self) -> bool:
        """Whether slots are containers of systemd's units here."""
        return self.runtime == "systemd"

    def systemctl(self, words: str) -> str:
        """Return a command of the manager that hal0's units belong to."""
        return f"systemctl --user {words}" if self.is_user else f"systemctl {words}"


@dataclass(frozen=True, slots=True)
class Cgroups:
    """The version of control groups, and the controllers that slots' units are given."""

    version: int
    controllers: frozenset[str]


@dataclass(frozen=True, slots=True)
class Volume:
    """A file system, and what hal0 keeps there. Sizes are bytes."""

    uses: tuple[str, ...]
    path: str
    free: int
    total: int


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU's device. ``group`` owns it (empty: it is not there), ``usable``: whoever runs this may open it."""

    node: str
    driver: str
    group: str
    usable: bool


@dataclass(frozen=True, slots=True)
class Secret:
    """A secret's place. ``trouble`` says why there is none, ``hint`` how to put it there; ``mode`` is a file's.

    What it is, is not here.
    """

    ref: SecretRef
    use: str
    trouble: Fact[str]
    hint: str = ""
    mode: int | None = None


@dataclass(frozen=True, slots=True)
class Certificate:
    """What an https upstream showed. ``expires`` is in seconds since the epoch, ``trouble`` why it is not trusted."""

    upstream: str
    address: str
    expires: Fact[float]
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class Trust:
    """Certificates of authorities that are trusted. ``chosen_by`` is a variable of the environment, or empty."""

    path: str
    chosen_by: str
    certificates: int


@dataclass(frozen=True, slots=True)
class SlotNeeds:
    """What one slot asks of the machine, and whether its engine runs (None: not known).

    ``model`` is whether all files of its model are there, ``model_path`` the first that is not. ``is_fetched``: hal0
    brings them when the slot needs them; ``mend`` is what a person can do else.
    """

    name: str
    port: int
    model_path: str
    model: Fact[bool]
    missing_devices: tuple[str, ...]
    runs: bool | None
    is_fetched: bool = False
    mend: str = ""


@dataclass(frozen=True, slots=True)
class Declared:
    """What the manifests say, as far as it concerns the machine. ``listen`` is host and port."""

    root: str
    listen: tuple[str, int]
    slots: tuple[SlotNeeds, ...] = ()
    problems: int = 0


@dataclass(frozen=True, slots=True)
class Findings:
    """Everything that was looked at. ``now`` is in seconds since the epoch.

    ``systemd`` and ``podman`` are versions, None where there is none. ``podman_socket`` and ``daemon`` say whether
    somebody answers. ``linger`` is a user's own. ``taken`` maps ports that are listened on to who does (empty: it can't
    be seen). ``units`` are hal0's files by path, ``enabled`` is whether the daemon starts after a boot. ``revision`` is
    git's, empty where the root is in no repository. ``driverless`` are display devices without a driver.
    """

    installed: Installed
    now: float
    systemd: Fact[str | None] = _NOT_LOOKED_AT
    podman: Fact[str | None] = _NOT_LOOKED_AT
    podman_socket: Fact[bool] = _NOT_LOOKED_AT
    daemon: Fact[bool] = _NOT_LOOKED_AT
    linger: Fact[bool] = _NOT_LOOKED_AT
    cgroups: Fact[Cgroups] = _NOT_LOOKED_AT
    taken: Fact[Mapping[int, str]] = _NOT_LOOKED_AT
    volumes: Fact[tuple[Volume, ...]] = _NOT_LOOKED_AT
    gpus: Fact[tuple[Gpu, ...]] = _NOT_LOOKED_AT
    driverless: Fact[tuple[str, ...]] = _NOT_LOOKED_AT
    units: Fact[Mapping[str, UnitState]] = _NOT_LOOKED_AT
    enabled: Fact[bool] = _NOT_LOOKED_AT
    declared: Fact[Declared] = _NOT_LOOKED_AT
    revision: Fact[str] = _NOT_LOOKED_AT
    secrets: Fact[tuple[Secret, ...]] = _NOT_LOOKED_AT
    trust: Fact[tuple[Trust, ...]] = _NOT_LOOKED_AT
    certificates: Fact[tuple[Certificate, ...]] = _NOT_LOOKED_AT
