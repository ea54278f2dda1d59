"""Specs of slots as the store keeps them: JSON, read back by the types of today."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict

from pydantic import TypeAdapter, ValidationError

from hal0.core.spec import SlotSpec

_SPEC = TypeAdapter(SlotSpec)
_log = logging.getLogger(__name__)


def dumped(spec: SlotSpec) -> str:
    """Return a spec as text."""
    return json.dumps(asdict(spec))


def loaded(slot: str, text: str) -> SlotSpec | None:
    """Return a spec that was stored; None, with a warning, where it can't be read."""
    try:
        return _SPEC.validate_json(text)
    except ValidationError as error:
        _log.warning(
            "the stored spec of %s can't be read (%d errors): taken as never applied", slot, error.error_count()
        )
        return None
