"""The manifests' schema: what an operator may write. Strict: an unknown key or a wrong type is an error.

These models hold what was written. ``resolve`` makes defaults that depend on other manifests explicit.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from hal0.core.fields import (
    LAST_PORT,
    AbsolutePath,
    Args,
    BaseUrl,
    Count,
    Credential,
    Duration,
    EnginePath,
    Env,
    HeaderName,
    Image,
    Line,
    Listen,
    ModelId,
    MountFolder,
    MountPath,
    Name,
    Parameters,
    Port,
    Positive,
    Priority,
    RepoFile,
    RepoName,
    Revision,
    Sha256,
    Size,
    SourceUrl,
    Tokens,
    Variable,
    parse_listen,
)
from hal0.core.modelpath import last_segment, parts
from hal0.core.secretref import SecretRef


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


class Replace(StrEnum):
    """How the engine of a slot that is ready is replaced by one of another spec."""

    AUTO = "auto"  # beside the old one, where memory and ports allow
    IN_PLACE = "in-place"


class Engine(StrEnum):
    """Whose command line a profile speaks. ``custom`` adds no flags: ``args`` is the whole of it."""

    LLAMA_SERVER = "llama-server"
    WHISPER_SERVER = "whisper-server"
    SD_SERVER = "sd-server"
    VLLM = "vllm"
    CUSTOM = "custom"


class Abort(StrEnum):
    """What becomes of a request at the engine when its client has gone away."""

    CANCEL = "cancel"
    DRAIN = "drain"


class Fetch(StrEnum):
    """When a model is fetched from its source."""

    AUTO = "auto"  # as soon as a slot needs it
    MANUAL = "manual"  # when a person asks for it


class UpstreamApi(StrEnum):
    """Whose API an upstream speaks."""

    OPENAI = "openai"
    ANTHROPIC = "anthropic"


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
    profile: Name | None = Field(None, description="Profile; by default the seed profile of type and device")
    device: Device = Device.CPU
    run: RunPolicy = RunPolicy.ALWAYS
    port: Port | None = Field(None, description="loopback port; by default the next free one, remembered")
    context_size: Tokens | None = Field(None, description="tokens; by default what the model states")
    aliases: list[ModelId] = Field(default_factory=list, description="further names that /v1 answers to")
    idle_timeout: Duration = Field(900.0, description="an on-demand slot is unloaded after this long unused")
    sleep_after: Duration | None = Field(
        None, ge=1, description="the engine lets go of its model after this long unused, and stays up"
    )
    env: Env = Field(default_factory=dict, description="environment of the engine; anyone may read it: no secrets")
    args: Args = Field(default_factory=list, description="appended to the engine's command line")
    limits: Limits = Field(default_factory=Limits)
    defaults: Parameters = Field(default_factory=dict, description="request parameters where a client sends none")
    strip: list[Line] = Field(default_factory=list, description="request parameters that are taken out")
    set: Parameters = Field(default_factory=dict, description="request parameters that are always these")
    load_wait: Duration | None = Field(
        None, description="how long a request waits for the slot to be ready; by default the host's"
    )
    queue: Count = Field(1024, description="requests that may wait for the slot; one more is told `slot.busy`")
    concurrency: Positive = Field(
        512, description="requests sent to the engine at once; further ones wait for their turn"
    )
    max_keep_alive: Duration | None = Field(
        None, description="the most that a request's `keep_alive` may ask for; by default idle_timeout"
    )
    abort: Abort = Field(Abort.CANCEL, description="a request whose client has gone: cancel it at the engine, or drain")
    drain_timeout: Duration = Field(30.0, description="how long a stop waits for requests that are being answered")
    fallback: list[ModelId] = Field(
        default_factory=list, description="slots or upstream models that are tried in turn where this slot can't answer"
    )
    suspend: bool = Field(False, description="leave this slot exactly as it is")
    drift: DriftPolicy = Field(DriftPolicy.HEAL, description="what to do about changes made outside hal0")
    priority: Priority = Field(0, description="where memory is short, a slot of a higher one takes the place of others")
    pinned: bool = Field(False, description="never stopped to make room for another slot")
    exclusive_with: list[Name] = Field(default_factory=list, description="slots that are never up together with it")
    claim: Size | None = Field(None, description="memory that it takes of its pool; by default hal0 finds out")
    pool: Name | None = Field(None, description="memory pool that it takes from; by default that of its device")
    replace: Replace = Field(
        Replace.AUTO, description="a ready engine gives way to a new one beside it where memory allows, or in place"
    )


class SourceManifest(Strict):
    """Where a model is fetched from: an address, or a repository of the Hugging Face hub, or a file of it."""

    url: SourceUrl | None = Field(None, description="address of the file; this, or `repo`")
    repo: RepoName | None = Field(None, description="repository of the hub")
    file: RepoFile | None = Field(
        None, description="file in `repo`; the first one, where the model is split. Without it: the whole repository"
    )
    revision: Revision | None = Field(None, description="branch, tag or commit of `repo`; by default main")
    include: list[Line] = Field(
        default_factory=list, description="patterns of the files that are fetched of a whole repository; by default all"
    )

    @model_validator(mode="after")
    def _is_one(self) -> SourceManifest:
        if (self.url is None) == (self.repo is None):
            raise ValueError("name exactly one of url, repo")
        if self.url is not None and (self.file or self.revision):
            raise ValueError("file and revision go with repo, not with url")
        if self.include and not self.is_folder:
            raise ValueError("include goes with a whole repository: repo without a file")
        return self

    @property
    def is_folder(self) -> bool:
        """Whether it is a whole repository."""
        return self.repo is not None and self.file is None


class ModelManifest(Strict):
    """A model's file or folder, and where it comes from."""

    kind: Literal["Model"]
    name: ModelId
    path: MountPath | None = Field(
        None,
        description="file or folder below the model directory, or an absolute path; needed unless `source` gives one",
    )
    source: SourceManifest | None = Field(
        None, description="where the file is fetched from; by default it is put there by hand"
    )
    sha256: Sha256 | None = Field(None, description="the file's sha256, which a download has to have")
    mmproj: MountPath | None = Field(
        None, description="the model's vision part: a path as `path` is; beside the model where it has a `source.repo`"
    )
    fetch: Fetch = Field(Fetch.AUTO, description="fetch it when a slot needs it, or only by `hal0 model pull`")
    aliases: list[ModelId] = Field(default_factory=list)
    context_size: Tokens | None = Field(None, description="tokens, where a slot states none")
    defaults: Parameters = Field(default_factory=dict, description="request parameters, below the slot's own")

    @model_validator(mode="after")
    def _lies_somewhere(self) -> ModelManifest:
        if not (self.path or self.source):
            raise ValueError("path: is required, unless `source` says where the model comes from")
        is_folder = bool(self.source and self.source.is_folder)
        if not (self.path or self.source_file or is_folder):
            raise ValueError("path: is required where the address of `source` ends without the name of a file")
        if self.mmproj and self.source and self.source.url:
            raise ValueError("mmproj: comes from a repository, and this model from an address: put both there by hand")
        if is_folder and (self.sha256 or self.mmproj or (self.path or "").endswith(".gguf")):
            raise ValueError("source: without a file it is a folder: that has no sha256, no mmproj, and no file's path")
        counts = [len(parts(name)) for name in (self.path, self.source_file) if name]
        if len(set(counts)) > 1:
            raise ValueError(f"path: the source has {counts[1]} files, and this names {counts[0]}")
        if self.sha256 and max(counts, default=1) > 1:
            raise ValueError("sha256: each part of a split model has its own: leave it out")
        return self

    @property
    def source_file(self) -> str:
        """The name of the file as its source has it; empty where there is none."""
        if self.source is None:
            return ""
        return self.source.file or last_segment(self.source.url or "")


class ProfileManifest(Strict):
    """How an engine is run: an image and its flags, and the command where there is no container."""

    kind: Literal["Profile"]
    name: Name
    extends: Name | None = Field(None, description="Profile that this one is made from; what is written here wins")
    engine: Engine = Engine.LLAMA_SERVER
    image: Image | None = Field(None, description="container image; needed by the systemd runtime")
    entrypoint: Line | None = Field(None, description="program in the image, where its own entrypoint isn't the engine")
    command: Args = Field(default_factory=list, description="program of the process runtime; {python} is hal0's own")
    args: Args = Field(default_factory=list)
    env: Env = Field(default_factory=dict)
    devices: list[Line] = Field(default_factory=list, description="host devices, or CDI names")
    groups: list[Line] = Field(default_factory=list, description="further groups inside the container")
    mounts: list[Line] = Field(
        default_factory=list, description="host:container[:ro] in podman's spelling; container alone is a fresh volume"
    )
    shm_size: Size | None = Field(None, description="shared memory of the container; by default podman's 64 MB")
    port: Port = Field(8080, description="port that the engine listens on inside the container")
    probe: str = Field("/health", pattern=r"^/[!-~]*$", description="path that answers 200 when the model is loaded")
    paths: dict[EnginePath, EnginePath] = Field(
        default_factory=dict, description="where the engine serves a path of /v1, if elsewhere"
    )
    start_deadline: Duration = Field(600.0, description="a slot that is not ready by then has failed")
    stop_timeout: Duration = Field(20.0, description="from SIGTERM to SIGKILL")


class SecretManifest(Strict):
    """Where a secret is read when it is needed: exactly one of these."""

    env: Variable | None = Field(None, description="environment variable of hal0's own process")
    file: AbsolutePath | None = Field(None, description="absolute path of a file that hal0 may read")
    credential: Credential | None = Field(None, description="name of a systemd credential of hal0's service")

    @model_validator(mode="before")
    @classmethod
    def _is_place(cls, value: object) -> object:
        if isinstance(value, dict | SecretManifest):
            return value
        raise ValueError("say where the secret is, not what it is: name one of env, file, credential")

    @model_validator(mode="after")
    def _is_one(self) -> SecretManifest:
        if len(self.model_fields_set) != 1 or not next(iter(self.model_dump(exclude_none=True)), None):
            raise ValueError("name exactly one of env, file, credential")
        return self

    @property
    def ref(self) -> SecretRef:
        """Where the secret is."""
        if self.env:
            return SecretRef("env", self.env)
        return SecretRef("file", self.file) if self.file else SecretRef("credential", self.credential or "")


class UpstreamManifest(Strict):
    """A server elsewhere that speaks OpenAI's or Anthropic's API; another hal0 is one."""

    kind: Literal["Upstream"]
    name: Name
    base_url: BaseUrl = Field(description="where its API begins, like https://api.example.com/v1")
    api: UpstreamApi = UpstreamApi.OPENAI
    api_key: SecretManifest | None = Field(None, description="where its key is; it is in no log and no error")
    models: list[ModelId] = Field(
        default_factory=list, description="the models to use, and no others; by default it is asked for its list"
    )
    refresh: Duration = Field(600.0, gt=0, description="ask for the list of models this often")
    prefix: str | None = Field(
        None, pattern=r"^([A-Za-z0-9][A-Za-z0-9._:@+-]*/)?$", description="before its model ids; by default `name/`"
    )
    headers: dict[HeaderName, Line] = Field(default_factory=dict, description="further headers; no secrets")
    connect_timeout: Duration = Field(5.0, gt=0, description="for a connection to be there")
    idle_timeout: Duration = Field(600.0, gt=0, description="the longest gap in an answer")
    failures: Positive = Field(5, description="failures in a row that open its circuit breaker")
    cooldown: Duration = Field(30.0, gt=0, description="how long an open circuit breaker sends it nothing")
    fallback: list[ModelId] = Field(
        default_factory=list, description="slots or upstream models that are tried in turn where it can't answer"
    )


class PoolManifest(Strict):
    """How much memory slots may take of one pool."""

    size: Size = Field(description="memory of the pool")
    reserve: Size | None = Field(None, description="what of it slots leave free; by default nothing")

    @model_validator(mode="after")
    def _leaves_something(self) -> PoolManifest:
        if self.reserve is not None and self.reserve >= self.size:
            raise ValueError("reserve: leaves nothing of the pool for slots")
        return self


def _as_table(value: object) -> object:
    return value if isinstance(value, dict | PoolManifest) else {"size": value}


Pools: TypeAlias = dict[
    Name, Annotated[PoolManifest, BeforeValidator(_as_table, json_schema_input_type=PoolManifest | str | int)]
]


class HostManifest(Strict):
    """The machine: at most one."""

    kind: Literal["Host"]
    name: Name = "host"
    listen: Listen = Field("127.0.0.1:8080", description="address and port of hal0")
    model_dir: MountPath | None = Field(
        None, description="where model files lie; by default models/ in the state directory"
    )
    model_dirs: list[MountFolder] = Field(
        default_factory=list,
        description="further folders with models, absolute paths: hal0 looks into them, and writes nothing",
    )
    slot_ports: str = Field("8081-8099", pattern=r"^\d{1,5}-\d{1,5}$", description="ports handed out to slots")
    image_registry: str | None = Field(
        None, pattern=r"^[^\s/]+(/[^\s]+)?$", description="prefix of images that name no registry"
    )
    resync: Duration = Field(30.0, gt=0, description="look at everything this often, whatever events said")
    load_wait: Duration = Field(300.0, description="how long a request waits for a slot to be ready")
    max_body: Size = Field(64 * 2**20, description="the largest request body")
    api_keys: SecretManifest | None = Field(
        None, description="keys that /v1 asks for on its TCP address, one a line; by default it asks for none"
    )
    pools: Pools = Field(
        default_factory=dict, description="memory that slots share out among them, by the name of its pool"
    )
    share_gpu_with_images: bool = Field(False, description="serve images and other models on one GPU at the same time")

    commit: bool = Field(False, description="commit the manifests that hal0 writes, where the root is in git")

    @model_validator(mode="after")
    def _ports_in_order(self) -> HostManifest:
        first, last = self.port_range
        if not 1 <= first <= last <= LAST_PORT:
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
