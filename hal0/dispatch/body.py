"""A request's body: what is read of it, and the slot's defaults put in, without writing all of it anew."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Body:
    """A JSON object as a client sent it: its bytes, and what they say."""

    raw: bytes
    data: Mapping[str, Any]

    @property
    def model(self) -> str | None:
        """The model that is asked for; None where none is named."""
        model = self.data.get("model")
        return model if isinstance(model, str) else None

    def filled(self, defaults: Mapping[str, Any]) -> bytes:
        """Return the bytes with those parameters that the client did not send. What it sent stays as it was sent."""
        missing = {key: value for key, value in defaults.items() if key not in self.data}
        if not missing:
            return self.raw
        rest = self.raw.lstrip()
        if not rest.startswith(b"{") or not self.data:  # UTF-16, or with a byte order mark
            return json.dumps(missing | dict(self.data)).encode()
        return json.dumps(missing).encode()[:-1] + b"," + rest[1:]


def parse(raw: bytes) -> Body:
    """Read a body. Raises ``ValueError`` for what is no JSON; anything but an object names nothing."""
    try:
        data = json.loads(raw)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    return Body(raw, data if isinstance(data, dict) else {})
