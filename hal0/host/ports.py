"""What the loop needs from the host. Adapters implement these Protocols; tests put in-memory fakes in their place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

    from hal0.core.facts import Fact
    from hal0.core.hardware import Disk, Machine, Sample
    from hal0.core.model import ListedFile, Progress, Source, Version
    from hal0.core.observed import ProbeResult, SlotObservation
    from hal0.core.pins import ImagePin
    from hal0.core.pools import Pool
    from hal0.core.proof import Ask, Reply

EVERYTHING = "*"
"""The event that says: look at every slot."""
USE = "@use"
"""The event that says: only demand has changed; derive the status again, without looking at the host."""
MANIFESTS = "@manifests"
"""The event that says: read the manifest root again, and look at every slot."""


class Runtime(Protocol):
    """Runs slots: systemd with podman, or supervised child processes.

    Every method has its own deadline and raises ``HostUnreachable`` when the service manager does not answer and
    ``StepFailed`` when it answered no. ``observe`` never raises for a source that is down: the facts that came
    from it are ``Unknown``.
    """

    name: str

    async def observe(
        self, images: Mapping[str, str], *, only: frozenset[str] | None = None
    ) -> dict[str, SlotObservation]:
        """Look at the slots of ``images`` (slot name to image reference) and at any other that the host has.

        With ``only``, look at those names alone. A named slot that the host does not have is observed as absent.
        ``probe`` is left unknown: it is another port's fact.
        """

    async def write(self, slot: str, text: str) -> None:
        """Put a slot's definition in place, atomically."""

    async def remove(self, slot: str) -> None:
        """Remove a slot's definition; nothing to remove is not an error."""

    async def put_aside(self, slot: str) -> None:
        """Stop what stands in a slot's place, whoever's it is, and rename its definition, so that it is none.

        A container of the slot's name is removed. Nothing to put aside is not an error.
        """

    async def reload(self) -> None:
        """Make the service manager read the definitions again."""

    async def reset_failed(self, slot: str) -> None:
        """Clear a failed state and the start limit, so that a start is not refused."""

    async def start(self, slot: str) -> None:
        """Start the service and wait until the manager says it started (not until the model is loaded)."""

    async def stop(self, slot: str) -> None:
        """Stop the service and wait until it is gone; a stopped one is left as it is."""

    async def pull(self, image: str) -> None:
        """Fetch an image. May take minutes: the caller runs it beside the loop."""

    async def pin_of(self, image: str) -> ImagePin | None:
        """Return what an image that is here can be locked to; None where it is not here.

        That is its digest in its repository; the id of one that was built here.
        """

    async def logs(self, slot: str, *, lines: int, engine_only: bool = False) -> list[str]:
        """Return the last lines that the slot's service wrote; ``engine_only`` leaves out the manager's remarks."""

    def follow(self, slot: str) -> AsyncIterator[str]:
        """Yield lines as the slot's service writes them."""

    def events(self) -> AsyncIterator[str]:
        """Yield the name of a slot to look at, or ``EVERYTHING``, for as long as the loop runs."""

    async def stop_all(self) -> None:
        """Stop what lives only as long as hal0 does: supervised children. Units of systemd run on."""

    async def close(self) -> None:
        """Let go of connections, and of children, which run on and are adopted by the next hal0."""


class Prober(Protocol):
    """Asks engines whether they are up."""

    async def probe(self, targets: Sequence[tuple[str, int, str]]) -> dict[str, ProbeResult]:
        """Probe (slot, loopback port, path) targets at once and return each slot's answer."""

    async def close(self) -> None:
        """Let go of connections."""


class Hardware(Protocol):
    """Says what the machine has. Every method has its own deadline, and none raises for what can't be read.

    ``last`` is what was sampled last: by whichever of the methods, and without a look.
    """

    last: Sample

    async def pools(self, *, fresh: bool = False) -> Mapping[str, Fact[Pool]]:
        """Return the memory pools by name. An answer may be some seconds old, unless it is asked to be ``fresh``."""

    async def machine(self, models: str) -> Machine:
        """Return everything that is known of the machine; ``models`` is the folder whose disk is told of."""

    async def disk(self, folder: str) -> Fact[Disk]:
        """Return the disk that a folder is on."""


class Completer(Protocol):
    """Asks engines for real answers, past the dispatcher: nothing counts these as use."""

    async def complete(self, port: int, ask: Ask) -> Reply:
        """Ask the engine on a loopback port and say what came of it, within the ask's deadline. Never raises."""


class Fetcher(Protocol):
    """Fetches models' files from where they come from."""

    async def fetch(self, source: Source, path: str, sha256: str, told: Callable[[Progress], None]) -> None:
        """Put a source's file at ``path``, going on with what an earlier try left; ``sha256`` is empty where not known.

        Returns when it is there and right. Raises ``StepFailed``, which says what is wrong and what to do; what was
        fetched is kept beside ``path`` for the next try, and nothing is at ``path``. Raises ``WrongFile`` where what
        has come has another sha256: that is removed. Cancelling it stops the transfer.
        ``told`` is called on the loop, a few times a second at the most.
        """

    async def size_of(self, source: Source) -> int | None:
        """Ask how large a source's file is, in bytes; None where its server does not say.

        Raises ``StepFailed`` where there is no such file, or it may not be had.
        """

    async def listing(self, source: Source) -> tuple[ListedFile, ...]:
        """Ask the hub which files the repository of a source has. Raises ``StepFailed``."""

    async def look(self, source: Source) -> Version:
        """Return what the hub has of a source now; nothing is known of any other. Raises ``StepFailed``."""


class Clock(Protocol):
    """Time, so that tests can own it."""

    def now(self) -> float:
        """Return monotonic seconds."""

    def wall(self) -> float:
        """Return seconds since the epoch."""
