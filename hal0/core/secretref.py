"""Where a secret is. Never what it is: references are compared, stored and shown freely."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

SecretKind: TypeAlias = Literal["env", "file", "credential"]


@dataclass(frozen=True, slots=True)
class SecretRef:
    """The place of a secret: an environment variable, a file's path, or the name of a systemd credential."""

    kind: SecretKind
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"
