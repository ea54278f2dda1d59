"""The acts on models that API and command line have in common: list, show, pull, verify, remove."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Event

from hal0.core.catalog import PART, Entry, catalog, manifest_of
from hal0.core.facts import Fact, Known, Unknown, known
from hal0.core.modelfile import ModelCard
from hal0.core.modelpath import mount_root, parts
from hal0.core.registry import Download, ModelSpec
from hal0.core.spec import SlotSpec
from hal0.core.validate import did_you_mean
from hal0.core.wire import VERSION, Json, source_json, transfer_json
from hal0.errors import Conflict, NotFound, UsageError
from hal0.host import folder
from hal0.host.digests import hash_file
from hal0.host.models import are_right
from hal0.host.part import discard
from hal0.host.threads import in_thread
from hal0.loop.news import TransferNews
from hal0.loop.operations import transfer_event
from hal0.loop.reconcile import Reconciler

_HASH_S = 86_400.0
_LET_GO_S = 5.0
_LOOK_S = 0.05
_NEWS_S = 0.5
_NAME_IT = "say where it comes from: OWNER/REPO/FILE, or an https address"


async def models(reconciler: Reconciler) -> Json:
    """Return every model that is declared or found in the model directory."""
    entries = await _entries(reconciler)
    cards = await reconciler.library.cards(entry.path for entry in entries if entry.files)
    found = [_json(reconciler, entry, cards.get(entry.path)) for entry in entries]
    for each in found:
        each.pop("chat_template")  # long, and of one model at a time
    host = reconciler.desired.host
    return {
        "version": VERSION,
        "model_dir": host.model_dir,
        "model_dirs": list(host.model_dirs),
        "models": found,
    }


async def model(reconciler: Reconciler, name: str) -> Json:
    """Return one model, with its chat template. Raises ``NotFound``, which names the closest one there is."""
    entry = await _entry(reconciler, name)
    cards = await reconciler.library.cards([entry.path] if entry.files else [])
    return {"version": VERSION} | _json(reconciler, entry, cards.get(entry.path))


async def pull(reconciler: Reconciler, name: str) -> AsyncIterator[Json]:
    """Fetch a declared model, or join whoever does, and yield how far it is: a begin, transfers, and an end.

    It goes on when nobody listens any more. Raises before that: ``NotFound``, ``UsageError`` for a model without a
    source, ``Conflict`` where another file is known to be in its place. Raises what the download failed with.
    """
    spec, download = _fetched(reconciler, name)
    yield {"event": "begin", "model": spec.name, "path": spec.path, "source": source_json(spec.source)}
    was_here = are_right(spec.files, spec.pins, reconciler.store.digests) == Known(value=True)
    if was_here and _digest(reconciler, await _entry(reconciler, name)).is_right is False:
        hint = f"hal0 model rm {spec.name}, then pull it; or mend its `sha256` ({spec.place})"
        raise Conflict(f"{spec.path} is there, and is not what its manifest says", hint=hint)
    if not was_here:
        async for event in _transferred(reconciler, download):
            yield event
        for slot in _users(reconciler, spec.files):
            reconciler.queue.add(slot)  # one that was refused for want of it
    yield {"event": "end", "model": spec.name, "path": spec.path, "was_here": was_here}


async def undeclared(reconciler: Reconciler, name: str) -> Json | None:
    """Return the manifest that would declare a model that was found whole; None where it is declared, or not there."""
    if not name or name in reconciler.desired.models:
        return None
    found = {entry.name: entry for entry in await _entries(reconciler)}.get(name)
    return _manifest(reconciler, found) if found else None


async def verify(reconciler: Reconciler, name: str) -> AsyncIterator[Json]:
    """Hash a model's files, remember what they are, and yield how far that is, and at last what was found."""
    entry = await _entry(reconciler, name)
    if not entry.files:
        raise UsageError(f"there is no {entry.path}", hint=f"hal0 model show {name} says where it comes from")
    yield {"event": "begin", "model": entry.name, "path": entry.path}
    found: dict[str, str] = {}
    for path in await asyncio.to_thread(_single_files, [file.path for file in entry.files]):
        async for done, total in hashed(reconciler, path, found):
            yield {"event": "verify", "model": entry.name, "file": path, "done_bytes": done, "total_bytes": total}
    wanted = entry.spec.wanted_sha256 if entry.spec else ""
    right = found[entry.path] == wanted if wanted and entry.path in found else None
    files = [{"path": path, "sha256": digest} for path, digest in found.items()]
    by = "lock" if entry.spec and entry.spec.pin else "manifest"
    yield {"event": "end", "model": entry.name, "files": files, "sha256": wanted or None, "verified": right, "by": by}


async def remove(reconciler: Reconciler, name: str) -> Json:
    """Remove a model's files, and what is half there of them. A vision part stays: others may be meant to have it.

    Raises ``Conflict`` while a slot declares the model or runs it, or another process fetches it.
    """
    entry = await _entry(reconciler, name)
    paths = parts(entry.path)
    if users := _users(reconciler, paths):
        hint = "give them another model, or delete them, first"
        raise Conflict(f"{entry.name} is the model of {', '.join(users)}: it stays", hint=hint)
    host = reconciler.desired.host
    if (root := mount_root(entry.path, host.model_roots)) in host.model_dirs:
        raise Conflict(f"{entry.path} is in {root}, where hal0 writes nothing", hint="remove it by hand")
    if entry.spec and entry.spec.download:
        await reconciler.actor.transfers.give_up(entry.spec.download)
    half = (*paths, *_own_mmproj(reconciler, entry))
    freed = await in_thread(lambda: sum(map(_discard, half)) + sum(map(_unlink, paths)), None)
    for path in paths:
        reconciler.store.digests.forget(path)
    return {"version": VERSION, "model": entry.name, "path": entry.path, "freed_bytes": freed}


def _own_mmproj(reconciler: Reconciler, entry: Entry) -> list[str]:
    """Return a model's vision part, unless another Model has it, too."""
    models = reconciler.desired.registry.values()
    is_shared = any(model.mmproj == entry.mmproj and model.name != entry.name for model in models)
    return [entry.mmproj] if entry.mmproj and not is_shared else []


@dataclass(frozen=True, slots=True)
class _Hash:
    """What is known of a model's checksum: the one that is stated, and the one that the file had."""

    stated: str
    found: str | None

    @property
    def is_right(self) -> bool | None:
        return None if not (self.stated and self.found) else self.stated == self.found


async def _entries(reconciler: Reconciler) -> tuple[Entry, ...]:
    desired = reconciler.desired
    declared = [path for spec in desired.registry.values() for path in spec.files]
    found = await reconciler.library.files(desired.host.model_roots, declared)
    return catalog(desired.registry, found, desired.host.model_roots)


async def _entry(reconciler: Reconciler, name: str) -> Entry:
    entries = {entry.name: entry for entry in await _entries(reconciler)}
    found = entries.get(name) or entries.get(reconciler.desired.models.get(name, ""))
    if found is None:
        raise _no_model(name, entries)
    return found


def _no_model(name: str, known_names: Collection[str]) -> NotFound:
    hint = did_you_mean(name, known_names) or f"models: {', '.join(known_names) or 'none'}"
    return NotFound(f"there is no model {name!r}", hint=hint)


def _fetched(reconciler: Reconciler, name: str) -> tuple[ModelSpec, Download]:
    """Return a declared model and what fetches it."""
    registry = reconciler.desired.registry
    spec = registry.get(reconciler.desired.models.get(name, ""))
    if spec is None:
        raise NotFound(f"there is no model {name!r}", hint=did_you_mean(name, registry) or _NAME_IT)
    if spec.download is None:
        hint = f"put the file at {spec.path}, or give the Model a `source` ({spec.place})"
        raise UsageError(f"nobody says where {spec.name} comes from", hint=hint)
    return spec, spec.download


def _json(reconciler: Reconciler, entry: Entry, card: Fact[ModelCard] | None) -> Json:
    spec, said = entry.spec, known(card) if card else None
    said = said or ModelCard()
    digest = _digest(reconciler, entry)
    transfer = reconciler.actor.transfers.models.get(entry.name)
    return {
        "name": entry.name,
        "declared": spec is not None,
        "state": _state(entry, digest, is_moving=transfer is not None),
        "path": entry.path,
        "files": [file.path for file in entry.files],
        "size_bytes": entry.size,
        "partial_bytes": entry.kept,
        "source": source_json(spec.source) if spec else None,
        "fetch": spec.fetch.value if spec else None,
        "place": spec.place if spec else "",
        "transfer": transfer and transfer_json(transfer),
        "aliases": list(spec.aliases) if spec else [],
        "slots": _users(reconciler, parts(entry.path)),
        "mmproj": entry.mmproj or None,
        "architecture": said.architecture,
        "title": said.title,
        "parameters": said.parameters,
        "quantization": said.quantization,
        "context_length": said.context_length,
        "chat_template": said.chat_template,
        "unread": card.reason if isinstance(card, Unknown) else "",
        "sha256": digest.stated or None,
        "found_sha256": digest.found,
        "verified": digest.is_right,
        "manifest": _manifest(reconciler, entry),
    }


def _manifest(reconciler: Reconciler, entry: Entry) -> Json | None:
    """Return what would declare an entry; None where it is declared, or not whole."""
    if entry.spec or not entry.is_here:
        return None
    return dict(manifest_of(entry, reconciler.desired.host.model_dir))


def _state(entry: Entry, digest: _Hash, *, is_moving: bool) -> str:
    """Return a model's state in a word: ``differs`` is a file with another sha256 than it should have."""
    if is_moving:
        return "fetching"
    if entry.is_here:
        return "differs" if digest.is_right is False else "present"
    return "partial" if entry.kept or entry.files else "missing"


def _digest(reconciler: Reconciler, entry: Entry) -> _Hash:
    first = next((file for file in entry.files if file.path == entry.path), None)
    found = reconciler.store.digests.of(first.path, first.size, first.modified) if first else None
    return _Hash(entry.spec.wanted_sha256 if entry.spec else "", found)


def _users(reconciler: Reconciler, paths: Collection[str]) -> list[str]:
    """Return the slots that declare a model of these files, or were last started with one."""
    store, wanted = reconciler.store, set(paths)
    specs: Mapping[str, SlotSpec] = {name: slot.spec for name, slot in reconciler.desired.slots.items()}
    every = [*specs.values(), *store.specs.values(), *store.stand_ins.values()]
    return sorted({spec.name for spec in every if wanted.intersection(spec.model_files)})


async def _transferred(reconciler: Reconciler, download: Download) -> AsyncIterator[Json]:
    """Yield how far a download is until it has ended."""
    with reconciler.feed.subscribe() as news:
        task = reconciler.actor.transfers.join(download)
        while not task.done():
            getting = asyncio.ensure_future(news.get())
            try:
                await asyncio.wait({task, getting}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                getting.cancel()
            item = getting.result() if getting.done() and not getting.cancelled() else None
            if isinstance(item, TransferNews) and item.transfer.model == download.model:
                yield transfer_event(item)
    if task.cancelled():
        raise Conflict(f"the download of {download.model} was given up", hint="its Model was changed, or removed")
    task.result()


def _single_files(paths: Iterable[str]) -> list[str]:
    """Return the files of a model, those in its folder where it is one."""
    return [str(file) for path in paths for file in (folder.files_in(Path(path)) if Path(path).is_dir() else [path])]


async def hashed(reconciler: Reconciler, path: str, found: dict[str, str]) -> AsyncIterator[tuple[int, int]]:
    """Hash a file in a thread, put its sha256 into ``found``, remember it, and yield how far that is, in bytes."""
    stop, far = Event(), [(0, 0)]
    work = asyncio.ensure_future(in_thread(lambda: hash_file(path, lambda *at: far.append(at), stop), _HASH_S))
    try:
        while not work.done():
            await asyncio.wait({work}, timeout=_NEWS_S)
            yield far[-1]
            del far[:-1]
        size, modified, found[path] = work.result()
    finally:
        stop.set()
        work.cancel()
    reconciler.store.digests.note(path, size, modified, found[path])


def _discard(path: str) -> int:
    """Remove what is half there of a file, once nobody fills it: a download that was given up ends in a moment."""
    end = time.monotonic() + _LET_GO_S

    def wait(*_: int | None) -> None:
        if time.monotonic() >= end:
            raise Conflict(f"{path} is being fetched", hint="end that, then try again")
        time.sleep(_LOOK_S)

    half = Path(path + PART)
    return folder.discard(half, wait) if half.is_dir() else discard(Path(path), wait)


def _unlink(path: str) -> int:
    """Remove a file, or a model's folder, and return how large it was; what is not there was of no size."""
    with contextlib.suppress(FileNotFoundError):
        try:
            if folder.as_one(Path(path)) and Path(path).is_dir():
                return folder.remove(Path(path))
            size = Path(path).stat().st_size
            Path(path).unlink()
        except FileNotFoundError:
            raise
        except OSError as error:
            raise UsageError(f"can't remove {path}: {error.strerror}") from error
        return size
    return 0
