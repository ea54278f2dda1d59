"""What differs between two specs of a slot, key by key, as an operator would say it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from typing import Any

from hal0.core.masked import masked, masked_words
from hal0.core.spec import Placing, Serving, SlotSpec
from hal0.core.steps import Reason

_NOT_TOLD = frozenset({"source", "model_path", "mmproj_path", "threads"})
"""Where a manifest stands is no difference; the others follow from keys that are told."""


def differences(before: SlotSpec, after: SlotSpec) -> Iterator[Reason]:
    """Yield a reason for each key that differs; ``threads`` and the model's path only where nothing else tells."""
    own, new = _keys(before), _keys(after)
    names = [name for name in own if own[name] != new[name]]
    told = [name for name in names if name not in _NOT_TOLD] or [name for name in names if name != "source"]
    for name in told:
        yield Reason(name, _show(own[name]), _show(new[name]))


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
