"""All kinds of manifests, and the model that each is checked with."""

from __future__ import annotations

from typing import Annotated, TypeAlias

from pydantic import Field

from hal0.core.capability import CapabilityManifest
from hal0.core.schema import HostManifest, ModelManifest, ProfileManifest, SlotManifest, UpstreamManifest

Manifest: TypeAlias = (
    SlotManifest | ModelManifest | ProfileManifest | UpstreamManifest | CapabilityManifest | HostManifest
)
KINDS: dict[str, type[Manifest]] = {
    "Slot": SlotManifest,
    "Model": ModelManifest,
    "Profile": ProfileManifest,
    "Upstream": UpstreamManifest,
    "Capability": CapabilityManifest,
    "Host": HostManifest,
}
ManifestUnion: TypeAlias = Annotated[Manifest, Field(discriminator="kind")]
