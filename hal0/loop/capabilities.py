"""The acts on capabilities that API and command line have in common: list, enable, disable."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from hal0.core.backend import Choice
from hal0.core.capability import CHILDREN, CapabilityManifest, CapabilityName, children_of
from hal0.core.documents import ManifestError
from hal0.core.edit import Value, edited, new_manifest
from hal0.core.endpoints import ENDPOINTS, Endpoint
from hal0.core.facts import known
from hal0.core.hardware_json import choice_json
from hal0.core.routes import Routes, Target, routes
from hal0.core.schema import Device
from hal0.core.seeds import seed_profile
from hal0.core.spec import Desired, RuntimeName, SlotSpec
from hal0.core.validate import Located, did_you_mean
from hal0.core.wire import VERSION, Json
from hal0.errors import Conflict, NotFound, UsageError
from hal0.host.models import are_files
from hal0.loop.drafts import Draft, Persisted, carried_out, drafted, effect_of, new_file, text_of, write
from hal0.loop.hardware import chosen_device
from hal0.loop.operations import InvalidManifests
from hal0.loop.reconcile import Reconciler


@dataclass(frozen=True, slots=True)
class Switch:
    """What ``who`` asks of a capability. No ``children`` are all of them; ``model`` and ``device`` None: not said."""

    capability: str
    children: tuple[str, ...] = ()
    model: str | None = None
    device: str | None = None
    who: str = "unknown"

    @property
    def names(self) -> tuple[str, ...]:
        """The children that are meant. Raises ``NotFound``, and ``UsageError`` for no child of it."""
        if self.capability not in set(CapabilityName):
            known_names = [name.value for name in CapabilityName]
            hint = did_you_mean(self.capability, known_names) or f"one of {', '.join(known_names)}"
            raise NotFound(f"{self.capability!r} is no capability", hint=hint)
        own = children_of(self.capability)
        for child in self.children:
            if child not in own:
                hint = did_you_mean(child, own) or f"it has {', '.join(own)}"
                raise UsageError(f"{child!r} is no part of capability {self.capability}", hint=hint)
        return tuple(name for name in own if name in (self.children or own))

    @property
    def keys(self) -> dict[str, str]:
        """The keys of a slot that were said. Raises ``UsageError`` for a model that two children would have."""
        if self.model is not None and len(self.names) > 1:
            raise UsageError(f"a model is for one of {', '.join(self.names)}", hint="name the one that it is for")
        said = {"model": self.model, "device": self.device}
        return {key: value for key, value in said.items() if value is not None}


async def capabilities(reconciler: Reconciler, table: Routes) -> Json:
    """Return every capability with its children: what is on, and what serves it by ``table``."""
    declared = (await reconciler.source.known()).capabilities
    found = [await _capability(reconciler, table, name.value, declared.get(name)) for name in CapabilityName]
    return {"version": VERSION, "capabilities": found}


async def enable(reconciler: Reconciler, switch: Switch) -> Json:
    """Turn children of a capability on, or give those that are on another model or device.

    Writes ROOT/NAME.toml, or rewrites the children's values in the manifest that is there; where no device is said, a
    child that was off gets the one that is best here. Waits until the slots' definitions are written; a slot whose
    model is not here may have to wait for that, and is no failure. Raises ``NotFound``, ``UsageError``, ``Conflict``,
    ``EditRefused`` and ``InvalidManifests``.
    """
    names, keys = switch.names, switch.keys
    located = await _declared(reconciler, switch.capability)
    choice = None if "device" in keys else await chosen_device(reconciler)
    was, runtime = located.data if located else {}, reconciler.source.facts.runtime
    values = {name: _on(was.get(name), keys, _device(name, choice, runtime)) for name in names}
    draft = await _drafted(reconciler, switch, located, values)
    if wrong := [problem for problem in draft.desired.problems if any(_is_about(problem, name) for name in names)]:
        raise InvalidManifests(wrong)  # what was wrong before, and still is
    persisted, slots = await _written(reconciler, draft, names)
    about = [await _model(reconciler, draft.desired, draft.desired.slots[name].spec) for name in names]
    whole = {name for name, model in zip(names, about, strict=True) if model["model_present"]}
    settled = await carried_out(reconciler, lambda: whole <= reconciler.store.specs.keys())
    slots = [slot | model for slot, model in zip(slots, about, strict=True)]
    said = {"slots": slots, "default": choice and choice_json(choice), "settled": settled}
    return _result("enable", switch, draft, persisted) | said


async def disable(reconciler: Reconciler, switch: Switch) -> Json:
    """Turn children of a capability off, and have their slots removed, however many there are.

    What is off already stays as it is written. Raises as ``enable`` does.
    """
    located = await _declared(reconciler, switch.capability)
    was = located.manifest.slots if located else {}
    names = tuple(name for name in switch.names if name in was)
    if not names:
        return _result("disable", switch, None, Persisted("")) | {"slots": [], "settled": True}
    draft = await _drafted(reconciler, switch, located, dict.fromkeys(names, False))
    persisted, slots = await _written(reconciler, draft, names)
    for name in reconciler.store.specs.keys() & set(names):
        reconciler.store.note_deletion(name)
    settled = await carried_out(reconciler, lambda: not any(map(reconciler.knows, names)))
    return _result("disable", switch, draft, persisted) | {"slots": slots, "settled": settled}


async def _declared(reconciler: Reconciler, name: str) -> Located[CapabilityManifest] | None:
    """Return the manifest of a capability, None where there is none. Raises ``Conflict`` for one that is wrong."""
    if located := (await reconciler.source.known()).capabilities.get(name):
        return located
    for problem in (await reconciler.source.load()).problems:
        if (problem.kind, problem.name) == ("Capability", name):
            raise Conflict(str(problem), hint="mend the manifest by hand")
    return None


def _device(child: str, choice: Choice | None, runtime: RuntimeName) -> Device:
    """Return the device that a child gets by itself: the best here that a seed profile of its type is for."""
    has_seed = choice and seed_profile(CHILDREN[child].type, choice.device, runtime)
    return choice.device if choice and has_seed else Device.CPU


def _on(was: object, keys: Mapping[str, str], device: Device) -> Value:
    """Return the value of a child that is on, made of the one that it had."""
    table: dict[str, Any] = dict(was) if isinstance(was, Mapping) else {}
    if was in (None, False) and device is not Device.CPU:
        table["device"] = device.value
    return {**table, **keys} or True


async def _drafted(
    reconciler: Reconciler, switch: Switch, located: Located[CapabilityManifest] | None, values: Mapping[str, Value]
) -> Draft:
    name, was = switch.capability, located.data if located else {}
    rows = [{"key": key, "before": was.get(key), "after": value} for key, value in values.items()]
    changes = tuple(row for row in rows if row["before"] != row["after"])
    what = ", ".join(f"{row['key']} {'on' if row['after'] else 'off'}" for row in changes)
    if located:
        file, before = await text_of(reconciler, located)
        after = edited(str(file), before, "Capability", name, values)
    else:
        file, before = await new_file(reconciler, name), None
        after = new_manifest("Capability", {"name": name, **values})
    draft = await drafted(reconciler, file, before, after, f"capability {name}: {what} ({switch.who})")
    return replace(draft, changes=changes)


async def _written(reconciler: Reconciler, draft: Draft, names: tuple[str, ...]) -> tuple[Persisted, list[Json]]:
    """Write a draft. Return what became of it, and what it does to each slot."""
    slots = [{"slot": name} | await effect_of(reconciler, name, draft) for name in names]
    return await write(reconciler, draft), slots


async def _capability(
    reconciler: Reconciler, table: Routes, name: str, located: Located[CapabilityManifest] | None
) -> Json:
    own = located.manifest.slots if located else {}
    children = [await _child(reconciler, table, child, is_on=child in own) for child in children_of(name)]
    return {"name": name, "place": located.source if located else "", "children": children}


async def _child(reconciler: Reconciler, table: Routes, name: str, *, is_on: bool) -> Json:
    desired = reconciler.desired
    child, slot, seen = CHILDREN[name], desired.slots.get(name), reconciler.snapshot.slots.get(name)
    about = {"model": child.model, "model_present": None, "size_bytes": None, "mend": ""}
    if is_on and slot:
        about = await _model(reconciler, desired, slot.spec)
    return {
        "name": name,
        "on": is_on,
        "slot": name if is_on else "",
        "type": child.type.value,
        **about,
        "state": seen.state.value if is_on and seen else "",
        "served_by": _target_json(_server(reconciler, table, name, str(about["model"]))),
        "problem": next((str(problem) for problem in desired.problems if _is_about(problem, name)), ""),
    }


def _is_about(problem: ManifestError, child: str) -> bool:
    return (problem.kind, problem.name) in {("Slot", child), ("Capability", CHILDREN[child].capability.value)}


async def _model(reconciler: Reconciler, desired: Desired, spec: SlotSpec) -> Json:
    """Return a slot's model: whether it is here, how large it is where it is on its way, and what brings it here."""
    here = known(await asyncio.to_thread(are_files, spec.model_files))
    transfer = reconciler.actor.transfers.models.get(spec.model)
    return {
        "model": spec.model,
        "model_present": here,
        "size_bytes": transfer.progress.total if transfer else None,
        "mend": desired.mend(spec) if here is False else "",
    }


def _server(reconciler: Reconciler, table: Routes, name: str, model: str) -> Target | None:
    """Return who answers a request to a child's path: a slot of its type, or an upstream that has its model."""
    child, snapshot = CHILDREN[name], reconciler.snapshot
    endpoint = _endpoint(name)
    fit = {slot.name: slot for slot in snapshot.slots.values() if slot.serves.mmproj_path or not child.sees}
    of_type = routes(replace(snapshot, slots=fit)).decide(None, endpoint).target
    named = table.decide(model, endpoint).target
    return of_type or (named if named and named.upstream else None)


def _endpoint(name: str) -> Endpoint:
    return next(endpoint for endpoint in ENDPOINTS.values() if endpoint.type is CHILDREN[name].type)


def _target_json(target: Target | None) -> Json | None:
    if target is None:
        return None
    return {"kind": "slot" if target.slot else "upstream", "name": target.name, "model": target.model}


def _result(act: str, switch: Switch, draft: Draft | None, persisted: Persisted) -> Json:
    return {
        "version": VERSION,
        "act": act,
        "capability": switch.capability,
        "file": persisted.file,
        "changes": list(draft.changes) if draft else [],
        "commit": persisted.commit,
        "warning": persisted.warning,
    }
