"""The acts behind ``hal0 lock`` and /api/lock: what is locked, and locking it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

from hal0.core.lock import LOCK_NAME, lock_text
from hal0.core.locked import Stale, images_of, stale, unpinned
from hal0.core.pins import FilePin
from hal0.core.spec import Desired
from hal0.core.validate import did_you_mean
from hal0.core.wire import VERSION, Json
from hal0.errors import NotFound, UsageError
from hal0.host.ports import MANIFESTS
from hal0.loop.drafts import Draft, Persisted, write
from hal0.loop.operations import InvalidManifests
from hal0.loop.pinning import Choice, Pinner, changes
from hal0.loop.reconcile import Reconciler


@dataclass(frozen=True, slots=True)
class LockRequest:
    """What to lock: what has no pin, and with ``upgrade`` all, or what ``names`` name, anew.

    A name is a Model's, an image's, or a slot's, which is both of its. ``check``: nothing is written.
    """

    upgrade: bool = False
    names: tuple[str, ...] = ()
    check: bool = False
    who: str = ""


async def lock(reconciler: Reconciler, request: LockRequest) -> AsyncIterator[Json]:
    """Write hal0.lock, and yield how far that is: a begin, looks, hashes, pulls and transfers, and an end.

    Raises ``InvalidManifests``, and ``NotFound`` for a name that is nobody's, before anything is done; ``Conflict``
    where the file was changed meanwhile, or can't be written.
    """
    source = reconciler.source
    desired = await source.load()
    if desired.problems:
        raise InvalidManifests(desired.problems)
    before, pinner = source.texts.get(LOCK_NAME), Pinner(reconciler, desired, _choice(desired, request))
    path = str(source.root.base / LOCK_NAME)
    yield {"event": "begin", "path": path}
    async for event in pinner.run():
        yield event
    found, persisted = list(changes(pinner)), Persisted(path)
    if found and not request.check:
        persisted = await _put(reconciler, before, lock_text(pinner.lock), f"lock: {_told(found)} ({request.who})")
        reconciler.queue.add(MANIFESTS)
    yield {
        "event": "end",
        "path": path,
        "changes": found,
        "open": [_stale_json(each) for each in pinner.open],
        "models": len(pinner.models),
        "images": len(pinner.images),
        "written": bool(found) and not request.check,
        "commit": persisted.commit,
        "warning": persisted.warning,
    }


async def locked(reconciler: Reconciler) -> Json:
    """Return what is locked, which pins are not in force, and what has none."""
    desired = await reconciler.source.load()
    has_images = reconciler.source.facts.runtime == "systemd"
    models = [
        {"name": name, "source": pin.source, "commit": pin.commit, "files": [_file_json(file) for file in pin.files]}
        for name, pin in sorted(desired.lock.models.items())
    ]
    images = [
        {"reference": reference, "digest": pin.digest, "id": pin.id}
        for reference, pin in sorted(desired.lock.images.items())
    ]
    return {
        "version": VERSION,
        "path": str(reconciler.source.root.base / LOCK_NAME),
        "exists": LOCK_NAME in reconciler.source.texts,
        "pins": {"models": models, "images": images},
        "stale": [_stale_json(each) for each in stale(desired, images=has_images)],
        "unpinned": [_stale_json(each) for each in unpinned(desired, images=has_images)],
    }


async def _put(reconciler: Reconciler, before: str | None, after: str, message: str) -> Persisted:
    """Put a lock's text in the place of another; None is: there was none. Raises ``Conflict`` where it is not so."""
    file = reconciler.source.root.base / LOCK_NAME
    return await write(reconciler, Draft(file, before, after, reconciler.desired, message))


def _choice(desired: Desired, request: LockRequest) -> Choice:
    """Return what is to be locked anew."""
    if request.names and not request.upgrade:
        raise UsageError("names are for --upgrade", hint="hal0 lock without any locks what is not locked yet")
    if not request.upgrade:
        return Choice(check=request.check)
    images = images_of(desired)
    if not request.names:
        return Choice(frozenset(desired.registry), images, request.check)
    chosen = [pair for name in request.names for pair in _named(desired, images, name)]
    of_kind = {kind: frozenset(name for each, name in chosen if each == kind) for kind in ("model", "image")}
    return Choice(of_kind["model"], of_kind["image"] & images, request.check)


def _named(desired: Desired, images: frozenset[str], name: str) -> Iterator[tuple[str, str]]:
    """Yield what a name means: a model, an image, or those of a slot. Raises ``NotFound``."""
    if name not in {*desired.models, *images, *desired.slots}:
        known = sorted({*desired.models, *images, *desired.slots})
        hint = did_you_mean(name, known) or f"known: {', '.join(known)}"
        raise NotFound(f"no model, image or slot is called {name!r}", hint=hint)
    if name in desired.models:
        yield "model", desired.models[name]
    if name in images:
        yield "image", name
    if slot := desired.slots.get(name):
        yield "model", slot.as_declared.spec.model
        yield "image", slot.as_declared.spec.declared_image


def _told(found: list[Json]) -> str:
    names = [str(change["name"]) for change in found]
    return ", ".join(names) if len(names) <= 3 else f"{len(names)} pins"  # noqa: PLR2004  (a line of git log)


def _file_json(file: FilePin) -> Json:
    return {"name": file.name, "sha256": file.sha256, "size_bytes": file.size}


def _stale_json(found: Stale) -> Json:
    return {"kind": found.kind, "name": found.name, "why": found.why}
