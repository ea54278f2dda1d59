"""Manifests that hal0 writes for an operator: a slot created, edited, deleted; a swap made lasting; models declared.

An act drafts the text, resolves what the manifests would then ask for, and refuses what would be wrong: only then a
file is written. The host follows as after any other edit.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from hal0.core.documents import ManifestError
from hal0.core.edit import Data, Scalar, appended, edited, new_slot, without
from hal0.core.effect import When, effect
from hal0.core.fields import NAME_PATTERN
from hal0.core.hardware_json import choice_json
from hal0.core.plan import plan
from hal0.core.schema import Device, RunPolicy, SlotManifest
from hal0.core.spec import Desired
from hal0.core.validate import Located
from hal0.core.wire import VERSION, Json
from hal0.errors import Conflict, UsageError
from hal0.host import edits
from hal0.host.git import NotCommitted, Repository
from hal0.host.ports import MANIFESTS
from hal0.loop.hardware import chosen_device
from hal0.loop.models import undeclared
from hal0.loop.observe import Observer
from hal0.loop.operations import InvalidManifests, no_slot
from hal0.loop.reconcile import Reconciler

_PATIENCE = 60.0
_MODELS = "models.yaml"


@dataclass(frozen=True, slots=True)
class Persisted:
    """What became of a draft. ``commit`` is the commit's short name; ``warning`` is why there is none, but should be.

    Both are empty where the Host manifest asks for no commits, or where the file said it all already.
    """

    file: str
    commit: str = ""
    warning: str = ""


@dataclass(frozen=True, slots=True)
class _Draft:
    """A text to be put in the place of another, and what the manifests would then ask for. None is: no file."""

    file: Path
    before: str | None
    after: str | None
    desired: Desired
    message: str
    changes: tuple[Json, ...] = ()


async def create(reconciler: Reconciler, name: str, keys: Mapping[str, Scalar], *, who: str) -> Json:
    """Write ROOT/NAME.toml and have the slot's definition written. ``run`` is on-demand where ``keys`` say nothing.

    ``keys`` are the slot's. Where they name neither device nor profile, the device is the one that is best here. A
    model that was found, and that no manifest declares, gets its manifest in ROOT/models.yaml.
    Raises ``UsageError`` for what is no name, ``Conflict`` for one that is taken and ``InvalidManifests`` for keys that
    don't fit: nothing was written then.
    """
    models = await _found_model(reconciler, keys, who)
    choice = None if keys.keys() & {"device", "profile"} else await chosen_device(reconciler)
    device = {"device": choice.device.value} if choice and choice.device is not Device.CPU else {}
    draft = await _new(reconciler, name, {"run": RunPolicy.ON_DEMAND.value, **keys, **device}, who, models)
    said = await _said(reconciler, name, draft) | {"default": choice and choice_json(choice)}
    said |= {"declared": {"model": keys["model"], "file": str(models.file)} if models else None}
    if models:
        await _write(reconciler, models)
    persisted = await _write(reconciler, draft)
    settled = await _carried_out(reconciler, lambda: name in reconciler.store.specs)
    return _result("create", name, draft, persisted) | said | {"settled": settled}


async def edit(reconciler: Reconciler, name: str, changes: Mapping[str, Scalar | None], *, who: str) -> Json:
    """Change keys of a slot's manifest, None takes one out, and say what takes effect when.

    Does not wait for the slot. Raises ``NotFound``, ``EditRefused``, ``Conflict`` and ``InvalidManifests``.
    """
    if not changes:
        raise UsageError("nothing is to be changed", hint="name a key and its new value")
    draft = await _changed(reconciler, name, changes, who)
    said = await _said(reconciler, name, draft)
    persisted = await _write(reconciler, draft)
    await reconciler.run(frozenset({MANIFESTS}))
    return _result("edit", name, draft, persisted) | said | {"settled": True}


async def delete(reconciler: Reconciler, name: str, *, who: str) -> Json:
    """Take a slot out of its manifest file, which goes with its last manifest, and have the slot removed.

    However many slots there are: for one that is asked for by name, pruning has no limit. Where no manifest declares
    the slot any more, only the removal is asked for. Raises as ``edit`` does.
    """
    located = await _found(reconciler, name)
    draft = await _removed(reconciler, located, who) if located else None
    said = await _said(reconciler, name, draft)
    persisted = await _write(reconciler, draft) if draft else Persisted("")
    if name in reconciler.store.specs:
        reconciler.store.note_deletion(name)
    settled = await _carried_out(reconciler, lambda: not reconciler.knows(name))
    return _result("delete", name, draft, persisted) | said | {"settled": settled}


async def persist(reconciler: Reconciler, slot: str, changes: Mapping[str, Scalar | None], *, who: str) -> Persisted:
    """Write changes to a slot's manifest, for an act that has brought them about on the host already.

    Raises as ``edit`` does. Where only the commit fails, the file is written, and ``warning`` says why.
    """
    return await _write(reconciler, await _changed(reconciler, slot, changes, who))


async def declare(reconciler: Reconciler, manifests: Sequence[Data], *, who: str) -> Persisted:
    """Add Model manifests to ROOT/models.yaml, as YAML has them, and have them seen. What is written there stays.

    Raises ``EditRefused`` and ``InvalidManifests``: nothing was written then.
    """
    persisted = await _write(reconciler, await _more_models(reconciler, manifests, who))
    await reconciler.survey()
    reconciler.queue.add(MANIFESTS)
    return persisted


async def _found_model(reconciler: Reconciler, keys: Mapping[str, Scalar], who: str) -> _Draft | None:
    """Return a draft that declares the model of a new slot; None where that is declared, or not to be found."""
    manifest = await undeclared(reconciler, str(keys.get("model", "")))
    return await _more_models(reconciler, [manifest], who) if manifest else None


async def _more_models(reconciler: Reconciler, manifests: Sequence[Data], who: str) -> _Draft:
    root = reconciler.source.root.path
    file = root if root.is_file() else root / _MODELS
    before = await asyncio.to_thread(edits.read, edits.place(root, file))
    after = appended(str(file), before or "", manifests)
    names = ", ".join(str(manifest["name"]) for manifest in manifests)
    return await _draft(reconciler, file, before, after, f"declared: {names} ({who})")


async def _new(
    reconciler: Reconciler, name: str, keys: Mapping[str, Scalar], who: str, beside: _Draft | None = None
) -> _Draft:
    root = reconciler.source.root.path
    if not re.fullmatch(NAME_PATTERN, name):
        raise UsageError(f"{name!r} is no name for a slot", hint="lower-case letters, digits and hyphens, up to 40")
    if located := await reconciler.source.declared(name):
        raise Conflict(f"slot {name!r} is declared in {located.source}", hint=f"hal0 slot edit {name}")
    file = root / f"{name}.toml"
    if root.is_file() or await asyncio.to_thread(file.exists):
        raise Conflict(f"{root if root.is_file() else file} is there already", hint="add the slot by hand")
    text, message = new_slot({"name": name, **keys}), f"slot {name}: created ({who})"
    return await _draft(reconciler, file, None, text, message, beside=beside)


async def _changed(reconciler: Reconciler, name: str, changes: Mapping[str, Scalar | None], who: str) -> _Draft:
    located = await _declared(reconciler, name)
    file, before = await _text(reconciler, located)
    after = edited(str(file), before, "Slot", name, changes)
    was = located.document.data
    rows = tuple(
        {"key": key, "before": was.get(key), "after": value} for key, value in changes.items() if was.get(key) != value
    )
    what = ", ".join(f"{row['key']} {_shown(row['before'])} -> {_shown(row['after'])}" for row in rows)
    return replace(await _draft(reconciler, file, before, after, f"slot {name}: {what} ({who})"), changes=rows)


async def _removed(reconciler: Reconciler, located: Located[SlotManifest], who: str) -> _Draft:
    name = located.manifest.name
    file, before = await _text(reconciler, located)
    after = without(str(file), before, "Slot", name)
    return await _draft(reconciler, file, before, after, f"slot {name}: deleted ({who})")


async def _declared(reconciler: Reconciler, name: str) -> Located[SlotManifest]:
    if located := await _found(reconciler, name):
        return located
    raise Conflict(f"no manifest declares slot {name!r} any more", hint=f"hal0 slot delete {name}, or declare it again")


async def _found(reconciler: Reconciler, name: str) -> Located[SlotManifest] | None:
    """Return a slot's manifest; None where hal0 has the slot and no manifest declares it."""
    if located := await reconciler.source.declared(name):
        return located
    desired = await reconciler.source.load()
    for problem in desired.problems:
        if (problem.kind, problem.name) == ("Slot", name):
            raise Conflict(str(problem), hint="mend the manifest by hand")
    if name not in reconciler.store.specs:
        raise no_slot(name, desired.slots)
    return None


async def _text(reconciler: Reconciler, located: Located[SlotManifest]) -> tuple[Path, str]:
    """Return where a manifest is written, and all that is written there."""
    file = edits.place(reconciler.source.root.path, Path(located.document.file))
    text = await asyncio.to_thread(edits.read, file)
    if text is None:
        raise Conflict(f"{file} went away meanwhile", hint="try again")
    return Path(located.document.file), text


async def _draft(
    reconciler: Reconciler,
    file: Path,
    before: str | None,
    after: str | None,
    message: str,
    *,
    beside: _Draft | None = None,
) -> _Draft:
    """Return a draft, unless the manifests would have a problem that they don't have now: with it, and one ``beside``.

    That one is to be written first.
    """
    known = {_blame(problem) for problem in (await reconciler.source.load()).problems}
    others = {str(beside.file): beside.after} if beside else {}
    desired = await reconciler.source.having({**others, str(file): after})
    if wrong := [problem for problem in desired.problems if _blame(problem) not in known]:
        raise InvalidManifests(wrong)
    return _Draft(file, before, after, desired, message)


def _blame(problem: ManifestError) -> ManifestError:
    """Return a problem wherever it has moved to within its file."""
    return replace(problem, line=0)


async def _said(reconciler: Reconciler, name: str, draft: _Draft | None) -> Json:
    """Return what a draft will do to its slot, by a look and a plan of our own: nothing is carried out."""
    desired, now = draft.desired if draft else await reconciler.source.load(), reconciler.clock.now()
    if (slot := desired.slots.get(name)) and slot.problems:
        return _effect(When.WAITS, f"not yet, the manifests have errors: {slot.problems[0]}")
    ours = reconciler.observer
    observer = Observer(ours.runtime, ours.prober, ours.hardware)
    store = reconciler.store
    observed = await observer.look(desired, store.specs, store.stand_ins, only=frozenset({name}), now=now)
    world = replace(reconciler.world(observed, desired), deletions=frozenset({name}))
    return _effect(*effect(plan(world).change(name)))


def _effect(when: When, message: str) -> Json:
    return {"effect": {"when": when.value, "message": message}}


async def _write(reconciler: Reconciler, draft: _Draft) -> Persisted:
    if draft.before == draft.after:
        return Persisted(str(draft.file))
    return await asyncio.to_thread(_put, reconciler.source.root.path, draft)


def _put(root: Path, draft: _Draft) -> Persisted:
    file, commits = edits.place(root, draft.file), draft.desired.host.commit
    repository = Repository.of(file) if commits else None
    was_clean = repository is not None and repository.is_clean(file)
    edits.replace(file, draft.before, draft.after)
    if repository and was_clean:
        return _committed(repository, file, draft)
    where = "the file had changes that git does not have" if repository else f"{file.parent} is in no git repository"
    return Persisted(str(draft.file), warning=f"not committed: {where}" if commits else "")


def _committed(repository: Repository, file: Path, draft: _Draft) -> Persisted:
    try:
        return Persisted(str(draft.file), repository.commit(file, draft.message))
    except NotCommitted as error:
        return Persisted(str(draft.file), warning=f"not committed: {error}")


async def _carried_out(reconciler: Reconciler, done: Callable[[], bool]) -> bool:
    """Have a pass made, and wait until something is so, for a minute at the most. Return whether it is."""
    with reconciler.feed.subscribe() as news:
        await reconciler.run(frozenset({MANIFESTS}))
        deadline = reconciler.clock.now() + _PATIENCE
        while not done() and (left := deadline - reconciler.clock.now()) > 0:
            with suppress(TimeoutError):
                await asyncio.wait_for(news.get(), left)
    return done()


def _result(act: str, name: str, draft: _Draft | None, persisted: Persisted) -> Json:
    return {
        "version": VERSION,
        "act": act,
        "slot": name,
        "file": persisted.file,
        "changes": list(draft.changes) if draft else [],
        "commit": persisted.commit,
        "warning": persisted.warning,
    }


def _shown(value: object) -> str:
    return "none" if value is None else str(value)
