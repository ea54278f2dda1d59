"""Capabilities made into what they stand for: ordinary slots, each located at the lines of its child."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from hal0.core.capability import CHILDREN, CapabilityManifest, children_of
from hal0.core.documents import ManifestError
from hal0.core.schema import ModelManifest, SlotManifest
from hal0.core.validate import Located, did_you_mean


def expanded(capabilities: Iterable[Located[CapabilityManifest]]) -> list[Located[SlotManifest]]:
    """Return the slots that capabilities turn on, of each its own children only."""
    return [
        Located(slot, capability.document, (name,))
        for capability in capabilities
        for name, slot in capability.manifest.slots.items()
        if CHILDREN[name].capability == capability.manifest.name
    ]


def capability_errors(capabilities: Iterable[Located[CapabilityManifest]]) -> Iterator[ManifestError]:
    """Yield an error for each child that is none of its capability's, and for a capability that names no child."""
    for capability in capabilities:
        own = children_of(capability.manifest.name)
        named = [name for name in CHILDREN if name in capability.manifest.model_fields_set]
        for name in named:
            if name not in own:
                hint = did_you_mean(name, own) or f"it is of capability {CHILDREN[name].capability.value}"
                yield capability.error(f"is no part of {capability.manifest.name.value}", name, hint=hint)
        if not named:
            lines = " or ".join(f"{name}: true" for name in own)
            yield capability.error("turns nothing on", "name", hint=f"say what: {lines}")


def blind(slot: Located[SlotManifest], model: Located[ModelManifest]) -> ManifestError | None:
    """Return the error of a capability's slot that has to see and whose Model can't; None for any other slot."""
    if not slot.at or not CHILDREN[str(slot.at[0])].sees or model.manifest.mmproj:
        return None
    hint = f"write `mmproj` into its manifest, {model.source}, or name a model that has one"
    return slot.error(f"Model {model.manifest.name!r} has no vision part", "model", hint=hint)
