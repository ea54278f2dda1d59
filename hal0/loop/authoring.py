"""Manifests that hal0 writes for an operator: a slot created, edited, deleted; a swap made lasting; models declared.

An act drafts the text, resolves what the manifests would then ask for, and refuses what would be wrong: only then a
file is written. The host follows as after any other edit.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from hal0.core.capability import CHILDREN
from hal0.core.edit import Data, Scalar, Value, appended, edited, new_manifest, without
from hal0.core.fields import NAME_PATTERN
from hal0.core.hardware_json import choice_json
from hal0.core.schema import Device, RunPolicy, SlotManifest
from hal0.core.validate import Located
from hal0.core.wire import VERSION, Json
from hal0.errors import Conflict, UsageError
from hal0.host import edits
from hal0.host.ports import MANIFESTS
from hal0.loop.drafts import Draft, Persisted, carried_out, drafted, effect_of, new_file, text_of, write
from hal0.loop.hardware import chosen_device
from hal0.loop.models import undeclared
from hal0.loop.operations import no_slot
from hal0.loop.reconcile import Reconciler

_MODELS = "models.yaml"


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
    said = await effect_of(reconciler, name, draft) | {"default": choice and choice_json(choice)}
    said |= {"declared": {"model": keys["model"], "file": str(models.file)} if models else None}
    if models:
        await write(reconciler, models)
    persisted = await write(reconciler, draft)
    settled = await carried_out(reconciler, lambda: name in reconciler.store.specs)
    return _result("create", name, draft, persisted) | said | {"settled": settled}


async def edit(reconciler: Reconciler, name: str, changes: Mapping[str, Scalar | None], *, who: str) -> Json:
    """Change keys of a slot's manifest, None takes one out, and say what takes effect when.

    Does not wait for the slot. Raises ``NotFound``, ``EditRefused``, ``Conflict`` and ``InvalidManifests``.
    """
    if not changes:
        raise UsageError("nothing is to be changed", hint="name a key and its new value")
    draft = await _changed(reconciler, _of_its_own(await _declared(reconciler, name)), changes, who)
    said = await effect_of(reconciler, name, draft)
    persisted = await write(reconciler, draft)
    await reconciler.run(frozenset({MANIFESTS}))
    return _result("edit", name, draft, persisted) | said | {"settled": True}


async def delete(reconciler: Reconciler, name: str, *, who: str) -> Json:
    """Take a slot out of its manifest file, which goes with its last manifest, and have the slot removed.

    However many slots there are: for one that is asked for by name, pruning has no limit. Where no manifest declares
    the slot any more, only the removal is asked for. Raises as ``edit`` does.
    """
    located = await _found(reconciler, name)
    draft = await _removed(reconciler, _of_its_own(located), who) if located else None
    said = await effect_of(reconciler, name, draft)
    persisted = await write(reconciler, draft) if draft else Persisted("")
    if name in reconciler.store.specs:
        reconciler.store.note_deletion(name)
    settled = await carried_out(reconciler, lambda: not reconciler.knows(name))
    return _result("delete", name, draft, persisted) | said | {"settled": settled}


async def persist(reconciler: Reconciler, slot: str, changes: Mapping[str, Scalar | None], *, who: str) -> Persisted:
    """Write changes to a slot's manifest, for an act that has brought them about on the host already.

    Of a slot that a capability turns on, that is the child's value. Raises as ``edit`` does. Where only the commit
    fails, the file is written, and ``warning`` says why.
    """
    return await write(reconciler, await _changed(reconciler, await _declared(reconciler, slot), changes, who))


async def declare(reconciler: Reconciler, manifests: Sequence[Data], *, who: str) -> Persisted:
    """Add Model manifests to ROOT/models.yaml, as YAML has them, and have them seen. What is written there stays.

    Raises ``EditRefused`` and ``InvalidManifests``: nothing was written then.
    """
    persisted = await write(reconciler, await _more_models(reconciler, manifests, who))
    await reconciler.survey()
    reconciler.queue.add(MANIFESTS)
    return persisted


async def _found_model(reconciler: Reconciler, keys: Mapping[str, Scalar], who: str) -> Draft | None:
    """Return a draft that declares the model of a new slot; None where that is declared, or not to be found."""
    manifest = await undeclared(reconciler, str(keys.get("model", "")))
    return await _more_models(reconciler, [manifest], who) if manifest else None


async def _more_models(reconciler: Reconciler, manifests: Sequence[Data], who: str) -> Draft:
    root = reconciler.source.root.path
    file = root if root.is_file() else root / _MODELS
    before = await asyncio.to_thread(edits.read, edits.place(root, file))
    after = appended(str(file), before or "", manifests)
    names = ", ".join(str(manifest["name"]) for manifest in manifests)
    return await drafted(reconciler, file, before, after, f"declared: {names} ({who})")


async def _new(
    reconciler: Reconciler, name: str, keys: Mapping[str, Scalar], who: str, beside: Draft | None = None
) -> Draft:
    if not re.fullmatch(NAME_PATTERN, name):
        raise UsageError(f"{name!r} is no name for a slot", hint="lower-case letters, digits and hyphens, up to 40")
    if located := await reconciler.source.declared(name):
        _of_its_own(located)
        raise Conflict(f"slot {name!r} is declared in {located.source}", hint=f"hal0 slot edit {name}")
    file, text = await new_file(reconciler, name), new_manifest("Slot", {"name": name, **keys})
    return await drafted(reconciler, file, None, text, f"slot {name}: created ({who})", beside=beside)


async def _changed(
    reconciler: Reconciler, located: Located[SlotManifest], changes: Mapping[str, Scalar | None], who: str
) -> Draft:
    file, before = await text_of(reconciler, located)
    name, was = located.manifest.name, located.data
    if located.at:
        child: dict[str, Value] = {name: {key: value for key, value in {**was, **changes}.items() if value is not None}}
        after = edited(str(file), before, "Capability", CHILDREN[name].capability.value, child)
    else:
        after = edited(str(file), before, "Slot", name, changes)
    rows = tuple(
        {"key": key, "before": was.get(key), "after": value} for key, value in changes.items() if was.get(key) != value
    )
    what = ", ".join(f"{row['key']} {_shown(row['before'])} -> {_shown(row['after'])}" for row in rows)
    return replace(await drafted(reconciler, file, before, after, f"slot {name}: {what} ({who})"), changes=rows)


async def _removed(reconciler: Reconciler, located: Located[SlotManifest], who: str) -> Draft:
    name = located.manifest.name
    file, before = await text_of(reconciler, located)
    after = without(str(file), before, "Slot", name)
    return await drafted(reconciler, file, before, after, f"slot {name}: deleted ({who})")


async def _declared(reconciler: Reconciler, name: str) -> Located[SlotManifest]:
    if located := await _found(reconciler, name):
        return located
    raise Conflict(f"no manifest declares slot {name!r} any more", hint=f"hal0 slot delete {name}, or declare it again")


def _of_its_own(located: Located[SlotManifest]) -> Located[SlotManifest]:
    """Return a slot's manifest. Raises ``Conflict`` for that of a slot that a capability turns on."""
    if not located.at:
        return located
    name, capability = located.manifest.name, CHILDREN[located.manifest.name].capability.value
    acts = f"hal0 capability enable {capability} {name} --model M, hal0 capability disable {capability} {name}"
    raise Conflict(f"slot {name!r} is declared by capability {capability} at {located.source}", hint=f"use {acts}")


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


def _result(act: str, name: str, draft: Draft | None, persisted: Persisted) -> Json:
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
