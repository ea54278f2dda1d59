"""Manifests of kind Capability: what each may turn on, and the slot that each child of one stands for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BeforeValidator, Field, GetJsonSchemaHandler, ValidationInfo
from pydantic_core import CoreSchema

from hal0.core.schema import RunPolicy, SlotManifest, SlotType, Strict

_GIVEN = ("kind", "name", "type")
"""Keys of a slot that a child's name says."""


class CapabilityName(StrEnum):
    """What a machine can do for its clients, besides talk."""

    EMBED = "embed"
    VOICE = "voice"
    IMG = "img"
    VISION = "vision"


@dataclass(frozen=True, slots=True)
class Child:
    """One slot that a capability may turn on: its type, and the Model that it has where its manifest names none.

    ``sees``: its Model has to have a vision part.
    """

    capability: CapabilityName
    type: SlotType
    model: str
    sees: bool = False


CHILDREN: Mapping[str, Child] = {
    "embed": Child(CapabilityName.EMBED, SlotType.EMBEDDING, "nomic-embed-text-v1.5"),
    "rerank": Child(CapabilityName.EMBED, SlotType.RERANKING, "bge-reranker-v2-m3"),
    "stt": Child(CapabilityName.VOICE, SlotType.TRANSCRIPTION, "whisper-base"),
    "tts": Child(CapabilityName.VOICE, SlotType.TTS, "kokoro"),
    "img": Child(CapabilityName.IMG, SlotType.IMAGE, "stable-diffusion-v1-5"),
    "vision": Child(CapabilityName.VISION, SlotType.LLM, "smolvlm2-2.2b", sees=True),
}
"""By the name of the child, which is that of its slot too. The Models ship in hal0/seeds/models.yaml."""


def children_of(capability: str) -> tuple[str, ...]:
    """Return the names of a capability's children."""
    return tuple(name for name, child in CHILDREN.items() if child.capability == capability)


def _as_slot(value: object, info: ValidationInfo) -> object:
    """Return the keys of the slot that a child stands for; None where it is off."""
    if value is False:
        return None
    if value is not True and not isinstance(value, dict):
        raise ValueError("write true, false, or a table of a slot's keys")
    said: dict[str, Any] = {} if value is True else value
    if given := [key for key in _GIVEN if key in said]:
        raise ValueError(f"{', '.join(given)}: the child's name says that: leave it out")
    name = str(info.field_name)
    child = CHILDREN[name]
    own = {"kind": "Slot", "name": name, "type": child.type, "model": child.model, "run": RunPolicy.ON_DEMAND}
    return own | said


class _ChildSchema:
    """Tells editors what a child may be: true, false, or what a Slot may say, without what the child's name says."""

    def __get_pydantic_json_schema__(self, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        slot = handler.resolve_ref_schema(handler(core_schema))
        slot = handler.resolve_ref_schema(next(part for part in slot["anyOf"] if "$ref" in part))
        own = {key: part for key, part in slot["properties"].items() if key not in _GIVEN}
        own["run"] = own["run"] | {"default": RunPolicy.ON_DEMAND.value}
        table = {"type": "object", "properties": own, "additionalProperties": False}
        return {"anyOf": [{"type": "boolean"}, table]}


Switch: TypeAlias = Annotated[SlotManifest | None, BeforeValidator(_as_slot), _ChildSchema()]
"""A child: the slot that it stands for, None where it is off."""


class CapabilityManifest(Strict):
    """Turns on the slots that a capability is made of. ``embed`` and ``rerank`` are of ``embed``, and so on."""

    kind: Literal["Capability"]
    name: CapabilityName = Field(description="one manifest for each")
    embed: Switch = Field(None, description="slot of type embedding, of capability `embed`")
    rerank: Switch = Field(None, description="slot of type reranking, of capability `embed`")
    stt: Switch = Field(None, description="slot of type transcription, of capability `voice`")
    tts: Switch = Field(None, description="slot of type tts, of capability `voice`")
    img: Switch = Field(None, description="slot of type image, of capability `img`")
    vision: Switch = Field(None, description="slot of type llm whose Model has a `mmproj`, of capability `vision`")

    @property
    def slots(self) -> dict[str, SlotManifest]:
        """The slots that are on, by the name of the child."""
        return {name: slot for name in CHILDREN if (slot := getattr(self, name))}
