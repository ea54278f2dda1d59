"""What a lock does to the manifests: pins in force, pins that are void, and what has none."""

from __future__ import annotations

import posixpath
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace

from hal0.core.facts import Known, Unknown
from hal0.core.observed import SlotObservation, unobserved
from hal0.core.pins import Lock, ModelPin, is_pinned_by_itself, names_commit, source_name
from hal0.core.registry import ModelSpec
from hal0.core.spec import Desired, DesiredSlot, SlotSpec


@dataclass(frozen=True, slots=True)
class Stale:
    """A pin that is not in force: whose it is (``model`` or ``image``, and its name), and why."""

    kind: str
    name: str
    why: str

    def __str__(self) -> str:
        """``model NAME: why``."""
        return f"{self.kind} {self.name}: {self.why}"


def void(spec: ModelSpec, pin: ModelPin) -> str:
    """Return why a pin is not one of a Model any more; empty where it is."""
    if pin.source != source_name(spec.source):
        return f"it was locked as {pin.source or 'put there by hand'}"
    if [file.name for file in pin.files] != [posixpath.basename(path) for path in spec.files]:
        return f"it was locked with the files {', '.join(file.name for file in pin.files)}"
    if spec.sha256 and spec.sha256 != pin.files[0].sha256:
        return f"its manifest says that its sha256 is {spec.sha256[:12]}, and it was locked with another one"
    return ""


def pinned_model(spec: ModelSpec, lock: Lock) -> ModelSpec:
    """Return a Model as the lock has it; one whose pin is void, or that has none, stays as it is declared."""
    pin = lock.models.get(spec.name)
    return spec if pin is None or void(spec, pin) else replace(spec, pin=pin)


def pinned(spec: SlotSpec, model: ModelSpec, lock: Lock) -> SlotSpec:
    """Return a slot's spec with its model and its image as the lock has them; ``model`` is pinned already."""
    spec = replace(spec, model_pins=model.pins)
    pin = lock.images.get(spec.image)
    return replace(spec, image=pin.place(spec.image), image_name=spec.image) if pin else spec


def images_of(desired: Desired) -> frozenset[str]:
    """Return the images of all slots as they are declared: those that are to be locked, as they name no digest."""
    images = {slot.as_declared.spec.declared_image for slot in desired.slots.values()}
    return frozenset(image for image in images if image and not is_pinned_by_itself(image))


def stale(desired: Desired, *, images: bool) -> tuple[Stale, ...]:
    """Return the pins that are not in force. Without ``images``, slots here have none, and no pin of one is judged."""
    return tuple(_stale(desired, images=images))


def _stale(desired: Desired, *, images: bool) -> Iterator[Stale]:
    for name, pin in sorted(desired.lock.models.items()):
        spec = desired.registry.get(name)
        if why := "no manifest declares it" if spec is None else void(spec, pin):
            yield Stale("model", name, why)
    if images and desired.lock.images:
        for reference in sorted(desired.lock.images.keys() - images_of(desired)):
            yield Stale("image", reference, "no slot has it")


def unpinned(desired: Desired, *, images: bool) -> tuple[Stale, ...]:
    """Return the declared models and images that no pin holds."""
    specs = sorted(desired.registry.items())
    models = [name for name, spec in specs if spec.pin is None and not names_commit(spec.source)]
    bare = sorted(images_of(desired) - desired.lock.images.keys()) if images else []
    return (
        *(Stale("model", name, "it is not locked") for name in models),
        *(Stale("image", reference, "it is not locked") for reference in bare),
    )


def not_as_locked(
    desired: Desired,
    slots: Mapping[str, DesiredSlot],
    seen: Mapping[str, SlotObservation],
    unhashed: Collection[str],
) -> tuple[Stale, ...]:
    """Return what some slots would run that is not locked, or is not known to be what was locked.

    ``unhashed`` are the files that are here and that nobody knows the sha256 of. What is missing and would be fetched,
    or pulled, is no fault: it comes as it was locked.
    """
    found: list[Stale] = []
    for name, slot in slots.items():
        at = seen.get(name) or unobserved("not observed yet")
        if why := _model_fault(desired, slot.spec, at, unhashed):
            found.append(Stale("model", slot.spec.model, why))
        if slot.spec.image and (why := _image_fault(desired, slot.spec, at)):
            found.append(Stale("image", slot.spec.declared_image, why))
    return tuple(dict.fromkeys(found))


def _model_fault(desired: Desired, spec: SlotSpec, seen: SlotObservation, unhashed: Collection[str]) -> str:
    model, pin = desired.registry.get(spec.model), desired.lock.models.get(spec.model)
    if model and pin is None and names_commit(model.source):
        return ""
    if model is None or pin is None:
        return "it is not locked"
    if why := void(model, pin):
        return why
    if spec.model_pins != pin.files:
        return f"slot {spec.name} keeps an older one"
    if isinstance(seen.model, Unknown):
        return f"it can't be seen: {seen.model.reason}"
    if seen.model == Known(value=False):
        return "" if desired.download(spec) else f"it is not here as it was locked: {desired.mend(spec)}"
    if any(path in unhashed for path in spec.model_files):
        return f"nobody has hashed its file: hal0 model verify {spec.model}"
    return ""


def _image_fault(desired: Desired, spec: SlotSpec, seen: SlotObservation) -> str:
    pin = desired.lock.images.get(spec.declared_image)
    if is_pinned_by_itself(spec.declared_image):
        return ""
    if pin is None:
        return "it is not locked"
    if spec.image != pin.place(spec.declared_image):
        return f"slot {spec.name} keeps an older one"
    if spec.is_locked_to_id and seen.image == Known(None):
        return f"it is not here as it was locked: build it as it was, or hal0 lock --upgrade {spec.image_name}"
    return ""
