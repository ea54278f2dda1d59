"""podman's API: containers, images, pulls and events. The only module that knows podman-py.

podman-py is synchronous and takes a third of a second to import, so that every call runs in a daemon thread of
its own, with a socket timeout there and a deadline here.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
import threading
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar
from urllib.parse import quote

from hal0.core.facts import Fact, Known, Unknown
from hal0.core.observed import Instance
from hal0.core.pins import ImagePin, repository
from hal0.core.spec import CONTAINER_PREFIX, LABEL_SLOT, LABEL_SPEC
from hal0.errors import HostUnreachable, StepFailed
from hal0.host.cgroups import NOT_KNOWN, limits_of
from hal0.host.pending import Pending
from hal0.host.ports import EVERYTHING
from hal0.host.threads import Wire, in_thread

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping

    from podman.api.client import APIClient

    from hal0.host.scope import Scope

T = TypeVar("T")

READ_S = 5.0
PULL_S = 3600.0
_REMOVE_S = 60.0
_VERSION = "4.0.0"  # podman 4.3 and 5.x answer in one JSON shape when asked for this one
_BACKOFF_S = (1.0, 30.0)
_QUIET = ("exec", "health_status", "attach", "mount", "unmount", "commit", "export")
_QUALIFY = "Qualify the image's name by its registry, as in `registry.example/name:tag`."
_LOGIN = "Log in with `podman login`, as the user that runs hal0."
_SECRET = re.compile(r"(?<=://)[^/@\s]+@|(?<=\?)[^\s\"]+|(?i:(?<=bearer )|(?<=basic ))\S+")


class Podman:
    """podman's service behind one socket. A service that is away makes facts ``Unknown``."""

    def __init__(self, scope: Scope) -> None:
        self._address = scope.podman_socket
        self._made: dict[str, _Made] = {}
        self._streams: set[_Events] = set()

    async def containers(self) -> Fact[dict[str, Fact[Instance]]]:
        """Return the container of each slot that has one, by slot name, running or not.

        A container counts by its ``hal0.slot`` label, or by its name ``hal0-slot-<slot>``. One that can't be
        inspected is ``Unknown`` by itself.
        """
        known = self._made
        answer = await self._read(lambda client: _containers(client, known))
        if isinstance(answer, Unknown):
            return answer
        facts, self._made = answer.value
        return Known(facts)

    async def images(self, refs: Iterable[str]) -> Fact[dict[str, str | None]]:
        """Return the id of the local image that each reference names, None where there is none.

        Ids are bare, as ``Instance.image`` is: no ``sha256:`` before them.
        """
        wanted = frozenset(refs)
        if not wanted:
            return Known({})
        return await self._read(lambda client: _images(client, wanted))

    async def pin_of(self, ref: str) -> ImagePin | None:
        """Return the digest that a local image has in its repository, or the id of one that has none there.

        None where it is not here. Raises ``HostUnreachable`` when podman is away.
        """
        found = await self._read(lambda client: _get(client, f"/images/{quote(ref, safe='')}/json"))
        if isinstance(found, Unknown):
            raise HostUnreachable(found.reason)
        return _pin(ref, found.value) if found.value else None

    async def remove(self, container: str) -> None:
        """Stop and remove a container, whoever's it is; one that is not there is no error.

        Raises ``StepFailed`` with podman's words, and ``HostUnreachable`` when podman is away.
        """
        try:
            await in_thread(lambda: _remove(self._address, container), _REMOVE_S)
        except TimeoutError:
            raise StepFailed(f"podman: {container} is not removed after {_REMOVE_S:g} s") from None

    async def pull(self, ref: str) -> None:
        """Fetch an image, for up to an hour; being cancelled ends the transfer.

        Raises ``StepFailed`` with podman's words, and ``HostUnreachable`` when podman is away.
        """
        wire = Wire()
        try:
            await in_thread(lambda: _pull(self._address, ref, wire), PULL_S)
        except TimeoutError:
            raise StepFailed(f"pull of {ref}: not finished after {PULL_S:.0f} s") from None
        finally:
            wire.cut()

    async def events(self) -> AsyncGenerator[str]:
        """Yield slots whose container changed, and ``*`` for image events and after each (re)connect.

        Ends only by being closed; a service that goes away is connected again with backoff.
        """
        pending = Pending()
        loop = asyncio.get_running_loop()
        stream = _Events(self._address, lambda name: loop.call_soon_threadsafe(pending.add, name))
        self._streams.add(stream)
        stream.start()
        try:
            while True:
                yield await pending.take()
        finally:
            self._streams.discard(stream)
            stream.stop()

    async def close(self) -> None:
        """End the event streams."""
        for stream in self._streams:
            stream.stop()

    async def _read(self, look: Callable[[APIClient], T]) -> Fact[T]:
        def work() -> T:
            with _client(self._address) as client:
                return look(client)

        try:
            return Known(await in_thread(work, READ_S))
        except TimeoutError:
            return Unknown(f"podman: no answer in {READ_S:g} s")
        except HostUnreachable as error:
            return Unknown(str(error))
        except Exception as error:  # noqa: BLE001 - the adapter's edge: what could not be read is unknown
            return Unknown(f"podman: {_reason(error)}")


class _Made(NamedTuple):
    """What of a container never changes while it runs: the argv that created it, and its cgroup."""

    command: tuple[str, ...]
    cgroup: str


class _Events(threading.Thread):
    """Reads podman's event stream and announces names until it is stopped."""

    def __init__(self, address: str, announce: Callable[[str], object]) -> None:
        super().__init__(name="podman-events", daemon=True)
        self._address = address
        self._announce = announce
        self._wire = Wire()
        self._stopped = threading.Event()
        self._delay = _BACKOFF_S[0]

    def run(self) -> None:
        while not self._stopped.is_set():
            # Whatever ended the stream, the answer is the same: connect again and have everything looked at.
            with contextlib.suppress(Exception):
                self._listen()
            self._stopped.wait(self._delay)
            self._delay = min(self._delay * 2, _BACKOFF_S[1])

    def stop(self) -> None:
        self._stopped.set()
        self._wire.cut()

    def _listen(self) -> None:
        query = {"stream": "true", "filters": json.dumps({"type": ["container", "image"]})}
        with _client(self._address) as client:
            # Events may be hours apart, so that only the connect has a timeout; stop() ends a blocked read.
            answer = client.get("/events", params=query, stream=True, timeout=(READ_S, None))
            answer.raise_for_status()
            self._wire.attach(answer.raw)
            self._delay = _BACKOFF_S[0]
            self._announce(EVERYTHING)
            for line in filter(None, answer.iter_lines()):
                if name := _event_name(json.loads(line)):
                    self._announce(name)


@contextlib.contextmanager
def _client(address: str) -> Iterator[APIClient]:
    """Open a session for one call, so that an idle podman service may end. Raises ``HostUnreachable``."""
    _knock(address.removeprefix("unix://"))
    from podman.api.client import APIClient

    with APIClient(base_url=address, version=_VERSION, timeout=READ_S) as client:
        yield client


def _knock(path: str) -> None:
    """Connect once: podman-py would hide why it could not, and leak the descriptor that it tried with."""
    try:
        with socket.socket(socket.AF_UNIX) as knock:
            knock.settimeout(READ_S)
            knock.connect(path)
    except FileNotFoundError:
        hint = "Enable it with `systemctl enable --now podman.socket`."
        raise HostUnreachable(f"podman: no socket at {path}", hint=hint) from None
    except OSError as error:
        raise HostUnreachable(f"podman: {path}: {error.strerror or error}") from error


def _get(client: APIClient, path: str, **params: str) -> Any:
    """Return the JSON at a path, or None where podman says 404."""
    answer = client.get(path, params=params, timeout=READ_S)
    if answer.status_code == 404:  # noqa: PLR2004 - Not Found
        return None
    answer.raise_for_status()
    return answer.json()


def _containers(client: APIClient, known: Mapping[str, _Made]) -> tuple[dict[str, Fact[Instance]], dict[str, _Made]]:
    """Return the slots' containers, and how all that were seen running before were made."""
    facts: dict[str, Fact[Instance]] = {}
    made: dict[str, _Made] = {}
    rows = [(slot, row) for row in _get(client, "/containers/json", all="true") if (slot := _slot_of(row))]
    for slot, row in sorted(rows, key=_precedence):
        try:
            found = known.get(row["Id"]) or _inspected(client, row["Id"])
        except Exception as error:  # noqa: BLE001 - one container's trouble is that container's only
            facts[slot] = Unknown(f"podman: container of {slot}: {_reason(error)}")
            continue
        if found is not None:
            if row["State"] == "running":  # its cgroup is there
                made[row["Id"]] = found
            facts[slot] = Known(_instance(row, found))
    return facts, made


def _precedence(found: tuple[str, Mapping[str, Any]]) -> tuple[bool, bool]:
    """Sort so that of two containers of one slot the running one wins, then the labelled one."""
    row = found[1]
    return row["State"] == "running", LABEL_SLOT in (row.get("Labels") or {})


def _slot_of(row: Mapping[str, Any]) -> str:
    labels: Mapping[str, str] = row.get("Labels") or {}
    return labels.get(LABEL_SLOT) or next((_named(name) for name in row.get("Names") or () if _named(name)), "")


def _named(container: str) -> str:
    return container.removeprefix(CONTAINER_PREFIX) if container.startswith(CONTAINER_PREFIX) else ""


def _inspected(client: APIClient, container: str) -> _Made | None:
    """Return how a container was made, or None where it is gone meanwhile."""
    found = _get(client, f"/containers/{container}/json")
    if found is None:
        return None
    return _Made(tuple(found["Config"].get("CreateCommand") or ()), found["State"].get("CgroupPath") or "")


def _instance(row: Mapping[str, Any], made: _Made) -> Instance:
    labels: Mapping[str, str] = row.get("Labels") or {}
    limits = limits_of(made.cgroup) if row["State"] == "running" else NOT_KNOWN
    return Instance(
        id=row["Id"],
        running=row["State"] == "running",
        slot=labels.get(LABEL_SLOT, ""),
        spec_hash=labels.get(LABEL_SPEC, ""),
        image=row["ImageID"].removeprefix("sha256:"),
        command=made.command,
        memory=limits.memory,
        cpus=limits.cpus,
    )


def _images(client: APIClient, refs: frozenset[str]) -> dict[str, str | None]:
    """Look references up in one list; podman itself resolves those that are not there word for word."""
    listed = {
        name: image["Id"].removeprefix("sha256:")
        for image in _get(client, "/images/json") or ()
        for name in (*(image.get("RepoTags") or ()), *(image.get("RepoDigests") or ()))
    }
    return {ref: listed.get(_full(ref)) or _resolve(client, ref) for ref in refs}


def _resolve(client: APIClient, ref: str) -> str | None:
    found = _get(client, f"/images/{quote(ref, safe='')}/json")
    return None if found is None else str(found["Id"]).removeprefix("sha256:")


def _pin(ref: str, image: Mapping[str, Any]) -> ImagePin:
    """Return what to lock a reference to. podman gives what it built itself a digest too, which nobody can fetch."""
    names = [name.rpartition("@") for name in image.get("RepoDigests") or ()]
    digests = sorted(digest for repo, _, digest in names if f"/{repo}".endswith(f"/{repository(ref)}"))
    if ref.startswith("localhost/") or not digests:
        return ImagePin(id=str(image["Id"]).removeprefix("sha256:"))
    return ImagePin(digest=image["Digest"] if image.get("Digest") in digests else digests[0])


def _full(ref: str) -> str:
    """Return a reference that names its registry with its tag made explicit; any other is empty."""
    if not _is_qualified(ref):
        return ""
    return ref if "@" in ref or ":" in ref.rpartition("/")[2] else f"{ref}:latest"


def _is_qualified(ref: str) -> bool:
    registry, slash, _ = ref.partition("/")
    return bool(slash) and ("." in registry or ":" in registry or registry == "localhost")


def _remove(address: str, container: str) -> None:
    with _client(address) as client:
        try:
            answer = client.delete(f"/containers/{quote(container, safe='')}?force=true", timeout=_REMOVE_S)
        except OSError as error:
            raise HostUnreachable(f"podman: {_reason(error)}") from error
        if answer.status_code >= 400 and answer.status_code != 404:  # noqa: PLR2004 - Not Found
            raise StepFailed(f"podman: {container} is not removed: {_scrub(str(answer.json().get('cause', '')))}")


def _pull(address: str, ref: str, wire: Wire) -> None:
    with _client(address) as client:
        try:
            said = list(_pull_lines(client, ref, wire))
        except OSError as error:
            raise HostUnreachable(f"pull of {ref}: podman: {_reason(error)}") from error
    if failure := next((line["error"] for line in said if line.get("error")), ""):
        raise StepFailed(f"pull of {ref}: {_scrub(failure)}", hint=_pull_hint(ref, failure))
    if not any(line.get("id") or line.get("images") for line in said):
        raise StepFailed(f"pull of {ref}: podman ended it without an image")


def _pull_lines(client: APIClient, ref: str, wire: Wire) -> Iterator[dict[str, Any]]:
    """Yield what podman says of a pull: ``stream``, ``id``, ``images`` and ``error`` lines."""
    query = {"reference": ref, "policy": "always"}
    answer = client.post("/images/pull", params=query, stream=True, timeout=(READ_S, PULL_S))
    wire.attach(answer.raw)
    for line in filter(None, answer.iter_lines()):
        said = json.loads(line)
        yield {"error": said.get("cause") or said.get("message")} if answer.status_code >= 400 else said  # noqa: PLR2004


def _pull_hint(ref: str, error: str) -> str:
    if not _is_qualified(ref):
        return _QUALIFY
    return _LOGIN if re.search(r"unauthori[sz]ed|denied|authentication required", error) else ""


def _event_name(event: Mapping[str, Any]) -> str:
    """Return what an event asks to look at: a slot, everything, or nothing (an empty name)."""
    if str(event.get("Action", "")).startswith(_QUIET):
        return ""
    if event.get("Type") == "image":
        return EVERYTHING
    attributes: Mapping[str, str] = (event.get("Actor") or {}).get("Attributes") or {}
    return attributes.get(LABEL_SLOT) or _named(attributes.get("name", ""))


def _reason(error: BaseException) -> str:
    """Return one line for a person: podman-py's own text names only the address, the cause says more."""
    explanation = getattr(error, "explanation", None)
    status = getattr(error, "status_code", None)
    cause = error.__cause__ or error.__context__
    text = explanation if explanation and status else str(cause or error)
    return _scrub(text).splitlines()[0] if text else type(error).__name__


def _scrub(text: str) -> str:
    """Take credentials, query strings and tokens out of a text."""
    return _SECRET.sub("…", text)
