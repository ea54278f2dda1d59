"""Bodies of requests that change something: JSON objects with known keys, or the client's mistake."""

from __future__ import annotations

from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hal0.core.edit import Scalar
from hal0.errors import UsageError

B = TypeVar("B", bound=BaseModel)
Who = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f]{1,64}$")]


class Signed(BaseModel):
    """What an operator asks for. ``who`` is told in the log and in commits: the socket's owner is believed."""

    model_config = ConfigDict(extra="forbid", strict=True)
    who: Who = "unknown"


class SlotKeys(Signed):
    """Keys of a Slot manifest; a key that is given as null is taken out."""

    model: str | None = None
    device: str | None = None
    port: int | None = None
    context_size: int | None = None
    profile: str | None = None

    @property
    def given(self) -> dict[str, Scalar | None]:
        """The keys that the body names."""
        return self.model_dump(exclude_unset=True, exclude={"who", "name"})


class NewSlot(SlotKeys):
    """A slot to be created. Keys that are not given, or null, are left to their defaults."""

    name: str
    model: str
    type: str | None = None
    run: str | None = None

    @property
    def keys(self) -> dict[str, Scalar]:
        """The keys of its manifest, but for its name."""
        return {key: value for key, value in self.given.items() if value is not None}


def parsed(kind: type[B], body: bytes) -> B:
    """Return a body as a value. Raises ``UsageError``, which says what does not fit."""
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "the body"
        raise UsageError(f"{where}: {first['msg']}") from error
