"""Desired: what the manifests ask for, with every default made explicit."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypeAlias

from hal0.core.breaker import BreakerPolicy
from hal0.core.definition import digest
from hal0.core.documents import ManifestError
from hal0.core.modelpath import files_of
from hal0.core.pins import FilePin, Lock, short
from hal0.core.registry import Download, ModelSpec
from hal0.core.schema import Abort, Device, DriftPolicy, Engine, Fetch, Replace, RunPolicy, SlotType, UpstreamApi
from hal0.core.secretref import SecretRef
from hal0.core.trial import Rejection

RuntimeName: TypeAlias = Literal["systemd", "process"]

UNIT_PREFIX = "hal0-slot@"
CONTAINER_PREFIX = "hal0-slot-"
OWN_PREFIX = "hal0/"
"""Before a slot's name in /v1: that slot and no other."""
LABEL_SLOT = "hal0.slot"
LABEL_SPEC = "hal0.spec"
LABEL_MODEL = "hal0.model"
ENV_MODEL = "HAL0_MODEL"
"""What a container, or a child's environment, says of a model that is locked: another one is another container."""


def unit_name(slot: str) -> str:
    """Return the systemd unit of a slot."""
    return f"{UNIT_PREFIX}{slot}.service"


def container_name(slot: str) -> str:
    """Return the container of a slot."""
    return f"{CONTAINER_PREFIX}{slot}"


@dataclass(frozen=True, slots=True)
class HostFacts:
    """What resolving needs to know of the machine.

    ``cpus`` is what this process may really use. ``groups`` maps the host's group names to their ids: a container
    has its own names. ``rootless`` podman can only hand on the groups that its user is in.
    """

    runtime: RuntimeName
    cpus: float
    python: str
    model_dir: str
    groups: Mapping[str, int] = field(default_factory=dict)
    rootless: bool = False


@dataclass(frozen=True, slots=True)
class PoolSpec:
    """A pool as the Host manifest states it: bytes, and those of them that slots leave free."""

    size: int
    reserve: int = 0


@dataclass(frozen=True, slots=True)
class HostSpec:
    """The Host manifest, resolved. ``resync`` is in seconds, ``ports`` is first and last, both included."""

    listen: str = "127.0.0.1:8080"
    model_dir: str = ""
    ports: tuple[int, int] = (8081, 8099)
    image_registry: str = ""
    resync: float = 30.0
    load_wait: float = 300.0
    max_body: int = 64 * 2**20
    api_keys: SecretRef | None = None
    commit: bool = False
    pools: Mapping[str, PoolSpec] = field(default_factory=dict)
    share_gpu_with_images: bool = False
    model_dirs: tuple[str, ...] = ()

    @property
    def model_roots(self) -> tuple[str, ...]:
        """All folders of models; hal0 writes into the first one alone."""
        return (self.model_dir, *self.model_dirs)


@dataclass(frozen=True, slots=True)
class Serving:
    """How the dispatcher treats a slot's requests: nothing of it is seen by the engine's command line.

    Durations are seconds. ``queue`` counts waiting requests, ``concurrency`` those at the engine.
    ``paths`` maps paths of /v1 to the engine's. ``load_wait`` None is the host's.
    """

    load_wait: float | None = None
    queue: int = 1024
    concurrency: int = 512
    max_keep_alive: float | None = None
    abort: Abort = Abort.CANCEL
    drain_timeout: float = 30.0
    strip: tuple[str, ...] = ()
    set: Mapping[str, Any] = field(default_factory=dict)
    paths: Mapping[str, str] = field(default_factory=dict)
    fallback: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Placing:
    """What a slot's manifest says of its place among the others: nothing of it is seen by the engine.

    ``claim`` is in bytes; None: it is found out. ``pool`` empty is that of the device.
    """

    priority: int = 0
    pinned: bool = False
    exclusive_with: tuple[str, ...] = ()
    claim: int | None = None
    pool: str = ""


@dataclass(frozen=True, slots=True)
class UpstreamSpec:
    """One upstream, resolved. ``base_url`` has no slash at its end; ``models`` empty means: ask for its list.

    ``prefix`` begins the names of its models in /v1, with its slash. Durations are seconds.
    """

    name: str
    base_url: str
    api: UpstreamApi
    api_key: SecretRef | None
    models: tuple[str, ...]
    refresh: float
    prefix: str
    headers: Mapping[str, str]
    connect_timeout: float
    idle_timeout: float
    breaker: BreakerPolicy
    fallback: tuple[str, ...]
    source: str


@dataclass(frozen=True, slots=True)
class SlotSpec:
    """One slot, resolved: its manifest, its model and its profile in one value.

    Sizes are bytes, durations seconds, ``context_size`` tokens. ``source`` is the manifest's ``file:line``.
    ``image`` is empty in the process runtime. ``unit`` is the key of the engine (``hal0.core.engines``) that the
    spec is of, where it is not the slot's own. ``model_pins`` say what each of ``model_files`` has to be, and
    ``image_name`` is how the image is declared: of a slot whose model, or image, is locked.
    """

    name: str
    type: SlotType
    model: str
    model_path: str
    profile: str
    engine: Engine
    device: Device
    run: RunPolicy
    port: int
    context_size: int | None
    aliases: tuple[str, ...]
    idle_timeout: float
    env: Mapping[str, str]
    args: tuple[str, ...]
    memory: int | None
    cpus: float | None
    threads: int
    defaults: Mapping[str, Any]
    suspend: bool
    drift: DriftPolicy
    image: str
    entrypoint: str
    command: tuple[str, ...]
    devices: tuple[str, ...]
    groups: tuple[str, ...]
    mounts: tuple[str, ...]
    container_port: int
    probe: str
    start_deadline: float
    stop_timeout: float
    source: str
    serving: Serving = Serving()
    placing: Placing = Placing()
    sleep_after: float | None = None
    replace: Replace = Replace.AUTO
    unit: str = ""
    mmproj_path: str = ""
    shm_size: int | None = None
    model_pins: tuple[FilePin, ...] = ()
    image_name: str = ""

    @property
    def locked_model(self) -> str:
        """What tells its model's content from any other, where that is locked; else empty."""
        return short(self.model_pins) if self.model_pins else ""

    @property
    def declared_image(self) -> str:
        """Its image as the manifests name it."""
        return self.image_name or self.image

    @property
    def is_locked_to_id(self) -> bool:
        """Whether its image is locked to one that no registry has: nothing can fetch it."""
        return bool(self.image_name) and "@" not in self.image

    @property
    def key(self) -> str:
        """The key of its engine: what its unit, container and definition are called after."""
        return self.unit or self.name

    @property
    def model_files(self) -> tuple[str, ...]:
        """The files of its model that have to be there."""
        return files_of(self.model_path, self.mmproj_path)

    @property
    def source_file(self) -> str:
        """The manifest's file, without the line."""
        return self.source.rpartition(":")[0]


@dataclass(frozen=True, slots=True)
class Launch:
    """What is executed for a slot. ``spec_hash`` covers all of it: another hash means another container."""

    argv: tuple[str, ...]
    env: Mapping[str, str]
    spec_hash: str


@dataclass(frozen=True, slots=True)
class DesiredSlot:
    """A slot that should exist. ``body`` is its definition file without the mark.

    ``problems`` is not empty where the manifests are broken and ``spec`` is the last good one. ``declared`` is what the
    manifests alone make of it, where an override changes that, or the spec that they make was ``rejected``.
    """

    spec: SlotSpec
    launch: Launch
    body: str
    problems: tuple[ManifestError, ...] = ()
    declared: DesiredSlot | None = None
    rejected: Rejection | None = None

    @property
    def as_declared(self) -> DesiredSlot:
        """The slot as the manifests alone would have it."""
        return self.declared or self

    @property
    def spec_hash(self) -> str:
        """Hash of what is executed."""
        return self.launch.spec_hash

    @property
    def is_barred(self) -> bool:
        """Whether its own spec was rejected, and no good one stands in for it: it is kept down."""
        return self.rejected is not None and self.rejected.spec_hash == self.spec_hash


@dataclass(frozen=True, slots=True)
class Desired:
    """All manifests resolved. ``generation`` grows when the content changes, ``revision`` is the git commit.

    ``models`` names the Model behind each of their names and aliases, ``registry`` has them by their own names.
    """

    slots: Mapping[str, DesiredSlot]
    host: HostSpec = field(default_factory=HostSpec)
    models: Mapping[str, str] = field(default_factory=dict)
    generation: int = 0
    revision: str = ""
    problems: tuple[ManifestError, ...] = ()
    upstreams: Mapping[str, UpstreamSpec] = field(default_factory=dict)
    registry: Mapping[str, ModelSpec] = field(default_factory=dict)
    lock: Lock = field(default_factory=Lock)

    def download(self, spec: SlotSpec) -> Download | None:
        """Return what fetches all files of a spec's model without being asked; None where a person has to bring it."""
        model = self._model_of(spec)
        return model.download if model and model.fetch is Fetch.AUTO else None

    def mend(self, spec: SlotSpec) -> str:
        """Return what a person can do about a model that is not there and is not fetched by itself."""
        model = self._model_of(spec)
        if model and model.download:
            return f"hal0 model pull {model.name}"
        if spec.model_pins:
            return f"put the file there that was locked, or hal0 lock --upgrade {spec.model}"
        return f"put the file there, or give Model {spec.model} a source"

    def _model_of(self, spec: SlotSpec) -> ModelSpec | None:
        """Return the Model that a spec was made of; None where it is gone, or is of other files by now."""
        model = self.registry.get(spec.model)
        is_its = model is not None and (model.files, model.pins) == (spec.model_files, spec.model_pins)
        return model if is_its else None

    @property
    def content(self) -> str:
        """Digest of all that makes a generation: where a manifest stands, their order and overrides are no part."""
        own = [slot.as_declared for _, slot in sorted(self.slots.items())]
        slots = [asdict(slot.spec) | {"source": "", "body": slot.body} for slot in own]
        upstreams = [asdict(upstream) | {"source": ""} for _, upstream in sorted(self.upstreams.items())]
        registry = [asdict(model) | {"place": ""} for _, model in sorted(self.registry.items())]
        return digest(json.dumps([slots, asdict(self.host), dict(self.models), upstreams, registry], sort_keys=True))
