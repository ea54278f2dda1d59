"""What a lock does to the manifests: pins in force, pins that are void, and what has none."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from dataclasses import dataclass, replace

from hal0.core.pins import Lock, ModelPin, is_pinned_by_itself, source_name
from hal0.core.registry import ModelSpec
from hal0.core.spec import Desired, SlotSpec


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
    if images:
        for reference in sorted(desired.lock.images.keys() - images_of(desired)):
            yield Stale("image", reference, "no slot has it")


def unpinned(desired: Desired, *, images: bool) -> tuple[Stale, ...]:
    """Return the declared models and images that no pin holds."""
    models = [name for name, spec in sorted(desired.registry.items()) if spec.pin is None]
    bare = sorted(images_of(desired) - desired.lock.images.keys()) if images else []
    return (
        *(Stale("model", name, "it is not locked") for name in models),
        *(Stale("image", reference, "it is not locked") for reference in bare),
    )
