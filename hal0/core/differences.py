"""What differs between two specs of a slot, key by key, as an operator would say it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from typing import Any

from hal0.core.masked import masked, masked_words
from hal0.core.spec import Placing, Serving, SlotSpec
from hal0.core.steps import Reason

_NOT_TOLD = frozenset({"source", "model_path", "mmproj_path", "threads", "image_name"})
"""Where a manifest stands is no difference; the others follow from keys that are told."""
_DIGEST = 19
"""Characters of a digest that are shown: ``sha256:`` and twelve."""


def differences(before: SlotSpec, after: SlotSpec) -> Iterator[Reason]:
    """Yield a reason for each key that differs; ``threads`` and the model's path only where nothing else tells."""
    own, new = _keys(before), _keys(after)
    names = [name for name in own if own[name] != new[name]]
    told = [name for name in names if name not in _NOT_TOLD] or [name for name in names if name != "source"]
    for name in told:
        yield _locked(name, before, after) or Reason(name, _show(own[name]), _show(new[name]))


def behind_lock(runs: SlotSpec, wanted: SlotSpec) -> tuple[Reason, ...]:
    """Return what of a slot that runs is not what the lock has for it; empty where it is, or nothing is locked."""
    is_other = {
        "model_pins": bool(wanted.model_pins) and runs.model_pins != wanted.model_pins,
        "image": bool(wanted.image_name) and runs.image != wanted.image,
    }
    return tuple(reason for name, other in is_other.items() if other and (reason := _locked(name, runs, wanted)))


def _locked(name: str, before: SlotSpec, after: SlotSpec) -> Reason | None:
    """Return how a model or an image changes that is locked, before or after; None for any other key."""
    if name == "model_pins":
        return Reason("model", _model(before), f"{_model(after)} (lock)")
    if name == "image" and (before.image_name or after.image_name):
        return Reason("image", _image(before), f"{_image(after)} (lock)")
    return None


def _model(spec: SlotSpec) -> str:
    return f"sha256:{spec.locked_model}"[:_DIGEST] if spec.model_pins else "not locked"


def _image(spec: SlotSpec) -> str:
    """Return an image as it is told: of one that is locked, what it is locked to."""
    if not spec.image_name:
        return spec.image
    return f"id {spec.image}"[:_DIGEST] if spec.is_locked_to_id else spec.image.rpartition("@")[2][:_DIGEST]


def _keys(spec: SlotSpec) -> dict[str, Any]:
    """Return a spec by its keys as a manifest has them: without the level that groups some of them."""
    groups = {"serving", "placing"}
    flat = {field.name: getattr(spec, field.name) for field in fields(SlotSpec) if field.name not in groups}
    flat |= {field.name: getattr(spec.serving, field.name) for field in fields(Serving)}
    return flat | {field.name: getattr(spec.placing, field.name) for field in fields(Placing)}


def _show(value: object) -> str:
    if isinstance(value, tuple):
        return " ".join(masked_words(map(str, value))) or "none"
    if isinstance(value, dict):
        return ", ".join(f"{key}={masked(key, str(item))}" for key, item in value.items()) or "none"
    return "none" if value in (None, "") else f"{value:g}" if isinstance(value, float) else str(value)
