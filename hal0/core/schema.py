"""The manifests' schema: what an operator may write. Strict: an unknown key or a wrong type is an error.

These models hold what was written. ``resolve`` makes defaults that depend on other manifests explicit.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from hal0.core.quantity import parse_duration, parse_size

NAME_PATTERN = r"^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$"
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_LAST_PORT = 65535
_ID_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,127}$"


class SlotType(StrEnum):
    """What a slot serves."""

    LLM = "llm"
    EMBEDDING = "embedding"
    RERANKING = "reranking"
    TRANSCRIPTION = "transcription"
    TTS = "tts"
    IMAGE = "image"


class Device(StrEnum):
    """What a slot computes on."""

    CPU = "cpu"
    GPU_VULKAN = "gpu-vulkan"
    GPU_ROCM = "gpu-rocm"
    GPU_CUDA = "gpu-cuda"
    NPU = "npu"


class RunPolicy(StrEnum):
    """When a slot runs."""

    ALWAYS = "always"
    ON_DEMAND = "on-demand"
    NEVER = "never"


class DriftPolicy(StrEnum):
    """What to do about a change that was made outside hal0."""

    HEAL = "heal"
    ALERT = "alert"
    HEAL_WHEN_IDLE = "heal-when-idle"


class Engine(StrEnum):
    """Whose command line a profile speaks. ``custom`` adds no flags: ``args`` is the whole of it."""

    LLAMA_SERVER = "llama-server"
    CUSTOM = "custom"


def _no_control(value: str) -> str:
    if any(char in value for char in "\0\n\r"):
        raise ValueError("must be one line, without NUL")
    if any(ord(char) & 0xFFFE == 0xFFFE or 0xFDD0 <= ord(char) <= 0xFDEF for char in value):  # noqa: PLR2004  (Unicode's)
        raise ValueError("holds a noncharacter, which systemd does not take for UTF-8")
    return value


def parse_listen(text: str) -> tuple[str, int]:
    """Return host and port of ``127.0.0.1:8080`` or ``[::1]:8080``; port 0 is any free one. Raises ``ValueError``."""
    host, colon, port = text.rpartition(":")
    is_plain = bool(host) and ":" not in host and not any(char.isspace() for char in host)
    is_ipv6 = host.startswith("[") and host.endswith("]")
    if not colon or not (is_plain or is_ipv6) or not port.isdecimal() or int(port) > _LAST_PORT:
        raise ValueError(f"{text!r} is no address to listen on: write it like 127.0.0.1:8080")
    return host.strip("[]"), int(port)


def _listen(value: str) -> str:
    parse_listen(value)
    return value


def _mount_path(value: str) -> str:
    if not value.strip("/") or ":" in value:
        raise ValueError(f"{value!r} can't be mounted into a container: name a path without a colon, and not /")
    return value


def _env(value: dict[str, str]) -> dict[str, str]:
    for name in value:
        if not _ENV_NAME.fullmatch(name):
            raise ValueError(f"{name!r} is not the name of an environment variable")
    return value


def _command_line(value: object) -> object:
    """Numbers in an argument list are written without quotes by everyone."""
    if isinstance(value, list):
        return [str(item) if isinstance(item, int | float) and not isinstance(item, bool) else item for item in value]
    return value


Name = Annotated[str, Field(pattern=NAME_PATTERN, description="lower-case letters, digits and hyphens, up to 40")]
ModelId = Annotated[str, Field(pattern=_ID_PATTERN, description="a model id; slashes and colons are fine")]
Line = Annotated[str, AfterValidator(_no_control)]
MountPath = Annotated[Line, AfterValidator(_mount_path)]
Image = Annotated[str, Field(pattern=r"^[A-Za-z0-9][^\s]*$", description="an image reference")]
Args: TypeAlias = Annotated[list[Line], BeforeValidator(_command_line)]
Env = Annotated[dict[str, Line], AfterValidator(_env)]
Duration = Annotated[
    float,
    BeforeValidator(parse_duration, json_schema_input_type=str | float),
    Field(description="seconds, or a text like 90s, 15m, 1h30m"),
]
Size = Annotated[
    int,
    BeforeValidator(parse_size, json_schema_input_type=str | int),
    Field(description="bytes, or a text like 512Mi, 8Gi"),
]
Port = Annotated[int, Field(ge=1, le=_LAST_PORT, strict=True)]
Tokens = Annotated[int, Field(ge=1, strict=True)]


class Strict(BaseModel):
    """Base of every manifest part: unknown keys are errors, values are not guessed."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=False, str_strip_whitespace=False, allow_inf_nan=False
    )


class Limits(Strict):
    """What a slot may take from the machine."""

    memory: Size | None = Field(None, description="hard memory limit")
    cpus: float | None = Field(None, gt=0, description="number of CPUs; the engine's threads follow it")


class SlotManifest(Strict):
    """One model in one container on one loopback port."""

    kind: Literal["Slot"]
    name: Name
    type: SlotType = SlotType.LLM
    model: ModelId = Field(description="name or alias of a Model manifest")
    profile: Name | None = Field(None, description="Profile; by default the seed profile of the device")
    device: Device = Device.CPU
    run: RunPolicy = RunPolicy.ALWAYS
    port: Port | None = Field(None, description="loopback port; by default the next free one, remembered")
    context_size: Tokens | None = Field(None, description="tokens; by default what the model states")
    aliases: list[ModelId] = Field(default_factory=list, description="further names that /v1 answers to")
    idle_timeout: Duration = Field(900.0, description="an on-demand slot is unloaded after this long unused")
    env: Env = Field(default_factory=dict, description="environment of the engine; anyone may read it: no secrets")
    args: Args = Field(default_factory=list, description="appended to the engine's command line")
    limits: Limits = Field(default_factory=Limits)
    defaults: dict[str, Any] = Field(default_factory=dict, description="request parameters where a client sends none")
    suspend: bool = Field(False, description="leave this slot exactly as it is")
    drift: DriftPolicy = Field(DriftPolicy.HEAL, description="what to do about changes made outside hal0")


class ModelManifest(Strict):
    """A model file."""

    kind: Literal["Model"]
    name: ModelId
    path: MountPath = Field(description="file below the model directory, or an absolute path")
    aliases: list[ModelId] = Field(default_factory=list)
    context_size: Tokens | None = Field(None, description="tokens, where a slot states none")
    defaults: dict[str, Any] = Field(default_factory=dict, description="request parameters, below the slot's own")


class ProfileManifest(Strict):
    """How an engine is run: an image and its flags, and the command where there is no container."""

    kind: Literal["Profile"]
    name: Name
    engine: Engine = Engine.LLAMA_SERVER
    image: Image | None = Field(None, description="container image; needed by the systemd runtime")
    entrypoint: Line | None = Field(None, description="program in the image, where its own entrypoint isn't the engine")
    command: Args = Field(default_factory=list, description="program of the process runtime; {python} is hal0's own")
    args: Args = Field(default_factory=list)
    env: Env = Field(default_factory=dict)
    devices: list[Line] = Field(default_factory=list, description="host devices, or CDI names")
    groups: list[Line] = Field(default_factory=list, description="further groups inside the container")
    mounts: list[Line] = Field(default_factory=list, description="host:container[:ro] in podman's spelling")
    port: Port = Field(8080, description="port that the engine listens on inside the container")
    probe: str = Field("/health", pattern=r"^/[!-~]*$", description="path that answers 200 when the model is loaded")
    start_deadline: Duration = Field(600.0, description="a slot that is not ready by then has failed")
    stop_timeout: Duration = Field(20.0, description="from SIGTERM to SIGKILL")


class HostManifest(Strict):
    """The machine: at most one."""

    kind: Literal["Host"]
    name: Name = "host"
    listen: Annotated[str, AfterValidator(_listen)] = Field("127.0.0.1:8080", description="address and port of hal0")
    model_dir: MountPath | None = Field(
        None, description="where model files lie; by default models/ in the state directory"
    )
    slot_ports: str = Field("8081-8099", pattern=r"^\d{1,5}-\d{1,5}$", description="ports handed out to slots")
    image_registry: str | None = Field(
        None, pattern=r"^[^\s/]+(/[^\s]+)?$", description="prefix of images that name no registry"
    )
    resync: Duration = Field(30.0, gt=0, description="look at everything this often, whatever events said")

    @model_validator(mode="after")
    def _ports_in_order(self) -> HostManifest:
        first, last = self.port_range
        if not 1 <= first <= last <= _LAST_PORT:
            raise ValueError(f"slot_ports: {self.slot_ports} is no range of ports: write it like 8081-8099")
        return self

    @property
    def listen_at(self) -> tuple[str, int]:
        """Host and port to listen on."""
        return parse_listen(self.listen)

    @property
    def port_range(self) -> tuple[int, int]:
        """First and last port for slots, both included."""
        first, last = self.slot_ports.split("-")
        return int(first), int(last)


Manifest: TypeAlias = SlotManifest | ModelManifest | ProfileManifest | HostManifest
KINDS: dict[str, type[Manifest]] = {
    "Slot": SlotManifest,
    "Model": ModelManifest,
    "Profile": ProfileManifest,
    "Host": HostManifest,
}
ManifestUnion: TypeAlias = Annotated[Manifest, Field(discriminator="kind")]
