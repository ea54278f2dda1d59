"""Making pins: what the hub says of models, what their files here are, and what images are."""

from __future__ import annotations

import asyncio
import posixpath
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from hal0.core.locked import Stale, images_of
from hal0.core.model import SourceKind, Version
from hal0.core.pins import FilePin, ImagePin, Lock, ModelPin, names_commit, source_name
from hal0.core.registry import ModelSpec
from hal0.core.spec import Desired
from hal0.core.wire import Json
from hal0.errors import Hal0Error, StepFailed, UsageError
from hal0.loop.models import hashed
from hal0.loop.reconcile import Reconciler

_BUILT_HERE = "localhost/"


@dataclass(frozen=True, slots=True)
class Choice:
    """What is to be locked anew although it is locked: models and images, by name. ``check``: nothing is to change.

    Then only what is chosen is asked for, and no image is pulled that slots run by its tag.
    """

    models: frozenset[str] = frozenset()
    images: frozenset[str] = frozenset()
    check: bool = False


@dataclass
class Pinner:
    """Makes a lock of what is declared: keeps the pins that hold, and finds out the others.

    ``models`` and ``images`` are the pins so far, ``open`` what could not be locked, ``other`` the models whose files
    here are not what they were locked to, and ``due`` what was not found out, as nothing is to change.
    """

    reconciler: Reconciler
    desired: Desired
    choice: Choice
    models: dict[str, ModelPin] = field(default_factory=dict)
    images: dict[str, ImagePin] = field(default_factory=dict)
    open: list[Stale] = field(default_factory=list)
    other: set[str] = field(default_factory=set)
    due: set[tuple[str, str]] = field(default_factory=set)

    @property
    def lock(self) -> Lock:
        """The lock that was made."""
        return Lock(self.models, self.images)

    async def run(self) -> AsyncIterator[Json]:
        """Make all pins, and yield how far that is."""
        for name, spec in sorted(self.desired.registry.items()):
            if not self._keeps_model(spec):
                async for event in self._tried("model", name, self._model(spec)):
                    yield event
        if self.reconciler.source.facts.runtime != "systemd":
            self.images = dict(self.desired.lock.images)  # of no use here, and not ours to judge
            return
        for reference in sorted(images_of(self.desired)):
            if not self._keeps_image(reference):
                async for event in self._tried("image", reference, self._image(reference)):
                    yield event

    def _keeps_model(self, spec: ModelSpec) -> bool:
        """Keep a pin that holds, unless it is chosen; return whether it is not to be found out now."""
        if names_commit(spec.source):
            return True  # there is nothing to find out
        if spec.name in self.choice.models:
            return False
        if spec.pin:
            self.models[spec.name] = spec.pin
        elif self.choice.check:
            self.due.add(("model", spec.name))
        return spec.pin is not None or self.choice.check

    def _keeps_image(self, reference: str) -> bool:
        pin = self.desired.lock.images.get(reference)
        if pin and reference in self.choice.images:
            return False
        if pin:
            self.images[reference] = pin
        elif self.choice.check:
            self.due.add(("image", reference))
        return pin is not None or self.choice.check

    async def _tried(self, kind: str, name: str, events: AsyncIterator[Json]) -> AsyncIterator[Json]:
        """Pass events on; what can't be locked is noted, and its pin stays what it was."""
        try:
            async for event in events:
                yield event
        except Hal0Error as error:
            self.open.append(Stale(kind, name, f"{error} ({error.hint})" if error.hint else str(error)))
            before = self.desired.lock
            if kind == "model" and name in before.models:
                self.models[name] = before.models[name]
            if kind == "image" and name in before.images:
                self.images[name] = before.images[name]

    async def _model(self, spec: ModelSpec) -> AsyncIterator[Json]:
        yield {"event": "look", "kind": "model", "name": spec.name, "source": source_name(spec.source)}
        await asyncio.to_thread(_check_files, spec)
        versions = await self._versions(spec)
        pins: list[FilePin] = []
        for path, version in zip(spec.files, versions, strict=True):
            found: dict[str, str] = {}
            async for event in self._hashed(spec.name, path, found):
                yield event
            pins.append(_file_pin(spec, path, version, found.get(path, "")))
            if found.get(path, pins[-1].sha256) != pins[-1].sha256:
                self.other.add(spec.name)
        _check_stated(spec, pins[0])
        self.models[spec.name] = ModelPin(source_name(spec.source), tuple(pins), versions[0].commit)

    async def _versions(self, spec: ModelSpec) -> list[Version]:
        """Return what the hub has of each file, all at one commit; of another source nothing is known."""
        download = replace(spec, pin=None).download
        if download is None or spec.source.kind is not SourceKind.HUB:
            return [Version()] * len(spec.files)
        versions: list[Version] = []
        for file in download.files:
            commit = versions[0].commit if versions else ""
            source = replace(file.source, revision=commit) if commit else file.source
            versions.append(await self.reconciler.actor.transfers.fetcher.look(source))
        return versions

    async def _hashed(self, name: str, path: str, found: dict[str, str]) -> AsyncIterator[Json]:
        """Put the sha256 of a file that is here into ``found``, and yield how far that is where it has to be read."""
        seen = _stat(path)
        if seen is None:
            return
        if known := self.reconciler.store.digests.of(path, *seen):
            found[path] = known
            return
        async for done, total in hashed(self.reconciler, path, found):
            yield {"event": "verify", "model": name, "file": path, "done_bytes": done, "total_bytes": total}

    async def _image(self, reference: str) -> AsyncIterator[Json]:
        runtime, is_built_here = self.reconciler.actor.runtime, reference.startswith(_BUILT_HERE)
        pin = await runtime.pin_of(reference)
        if (pin is None or reference in self.choice.images) and not is_built_here:
            yield {"event": "pull", "kind": "image", "name": reference}
            await _ended(self.reconciler.actor.transfers.join(reference))
            pin = await runtime.pin_of(reference)
        if pin is None:
            raise UsageError(f"there is no image {reference}", hint="build it")
        self.images[reference] = pin


async def _ended(transfer: asyncio.Task[None]) -> None:
    """Wait for a transfer, which goes on for others when whoever waits here goes away. Raises what it failed with."""
    await asyncio.wait({transfer})
    if transfer.cancelled():
        raise StepFailed("the transfer was given up", hint="try again")
    transfer.result()


def _check_files(spec: ModelSpec) -> None:
    """Raise ``UsageError`` for a model that is a folder: its files are not locked one by one."""
    if spec.source.is_folder:
        raise UsageError("a whole repository is locked by its commit", hint="give it to `revision` of the Model")
    if any(Path(path).is_dir() for path in spec.files):
        raise UsageError(f"{spec.path} is a folder, and only files are locked", hint="give the Model a `source`")


def _stat(path: str) -> tuple[int, int] | None:
    try:
        seen = Path(path).stat()
    except OSError:
        return None
    return seen.st_size, seen.st_mtime_ns


def _file_pin(spec: ModelSpec, path: str, version: Version, here: str) -> FilePin:
    """Return the pin of one file: by the hub, by what is here, or by what its manifest states."""
    name, seen = posixpath.basename(path), _stat(path)
    if version.sha256:
        return FilePin(name, version.sha256, version.size)
    if here and seen:
        return FilePin(name, here, seen[0])
    if spec.sha256:
        return FilePin(name, spec.sha256)
    hint = f"hal0 model pull {spec.name}, then lock it" if spec.download else "put it there, then lock it"
    raise UsageError(f"there is no {path}, and nobody says its sha256", hint=hint)


def _check_stated(spec: ModelSpec, pin: FilePin) -> None:
    if spec.sha256 and spec.sha256 != pin.sha256:
        hint = f"mend the Model ({spec.place}), or have it name the revision that it means"
        raise UsageError(f"its manifest says the sha256 {spec.sha256[:12]}, and it has {pin.sha256[:12]}", hint=hint)


def changes(pinner: Pinner) -> Iterator[Json]:
    """Yield what is different in a lock: ``before`` and ``after`` are pins as a person reads them, null is none.

    ``is_due``: what it is to be was not found out. ``is_other``: the file here is another one than the lock's.
    """
    before, after = pinner.desired.lock, pinner.lock
    for kind, olds, news in (("model", before.models, after.models), ("image", before.images, after.images)):
        due = {name for each, name in pinner.due if each == kind}
        for name in sorted({*olds, *news, *due}):
            old, new = olds.get(name), news.get(name)
            if old != new or name in due:
                yield {
                    "kind": kind,
                    "name": name,
                    "before": old and str(old),
                    "after": new and str(new),
                    "is_due": name in due,
                    "is_other": kind == "model" and name in pinner.other,
                }
