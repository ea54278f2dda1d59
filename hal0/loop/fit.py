"""Whether a model fits: the claim of a slot that nobody has declared, against what its pool has and has left."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hal0.core.backend import Choice
from hal0.core.claims import claim_key, claim_of
from hal0.core.edit import Scalar, appended
from hal0.core.facts import Fact, Known, Unknown, known
from hal0.core.fields import LAST_PORT
from hal0.core.fit import Fits, fit, largest_context
from hal0.core.modelfile import ModelFile
from hal0.core.pools import ClaimSource, Pool, pool_of, pools_of
from hal0.core.registry import Download
from hal0.core.schema import Device, Engine
from hal0.core.spec import SlotSpec
from hal0.core.wire import VERSION, Json, claim_json
from hal0.errors import StepFailed, UsageError
from hal0.host.gguf import ModelFiles
from hal0.host.ports import Fetcher
from hal0.loop.hardware import chosen_device
from hal0.loop.models import undeclared
from hal0.loop.reconcile import Reconciler

_FILE = ".fit.yaml"
"""Where the manifest of a fit check would be: no file of that name is ever read, and none is written."""


@dataclass(frozen=True, slots=True)
class Fitting:
    """The slot that is asked about. ``context_size`` is in tokens; None of a key is what ``slot create`` would take."""

    model: str
    context_size: int | None = None
    device: str | None = None
    profile: str | None = None


async def model_fit(reconciler: Reconciler, asked: Fitting) -> Json:
    """Return whether a new slot of a model would fit, what it would take, and the largest context that would.

    The model may be a declared one or a found one. Of one that is not here its source is asked how large it is: the
    slot takes that, at least. Raises ``UsageError`` where there is no such model, device or profile. Changes nothing.
    """
    choice = await _choice(reconciler, asked)
    keys = {"model": asked.model, "device": asked.device or choice.device.value}
    said = {"context_size": asked.context_size, "profile": asked.profile}
    spec = await _drafted(reconciler, keys | {key: value for key, value in said.items() if value})
    file = await _read(reconciler, spec)
    claim = claim_of(spec, file, reconciler.lessons.measured.of(claim_key(spec, known(file.size))))
    name, pool = await _pool(reconciler, spec)
    view = reconciler.snapshot.pools.get(name)
    found = fit(claim, pool, view.claimed if view else 0)
    return {
        "version": VERSION,
        "model": spec.model,
        "device": spec.device.value,
        "device_why": choice.why,
        "pool": name,
        "fits": found.fits.value,
        "why": found.why,
        "claim": claim_json(claim),
        "at_least": claim.source is ClaimSource.FILE,
        "room_bytes": found.room,
        "free_bytes": found.free,
        "context_size": _context(spec, file),
        "largest_context": _largest(spec, file, found.room),
        "largest_context_now": _largest(spec, file, found.free) if found.fits is not Fits.NEVER else None,
    }


async def _pool(reconciler: Reconciler, spec: SlotSpec) -> tuple[str, Pool | None]:
    """Return the pool that a slot's memory would be of, as it is now: its name, and what is known of it."""
    host = (await reconciler.source.load()).host
    pools = pools_of(await reconciler.observer.hardware.pools(), host)
    name = pool_of(spec, pools)
    return name, known(pools.get(name, Unknown("no such pool")))


async def _choice(reconciler: Reconciler, asked: Fitting) -> Choice:
    if asked.device in set(Device):
        return Choice(Device(asked.device), "as asked")
    if asked.profile:
        return Choice(Device.CPU, "as the manifest of a slot with a profile says where it names none")
    return await chosen_device(reconciler)


async def _drafted(reconciler: Reconciler, keys: Mapping[str, Scalar]) -> SlotSpec:
    """Return the spec of a slot as the manifests would make it: nothing is written."""
    there = await reconciler.source.load()
    taken = {slot.spec.port for slot in there.slots.values()}
    name = next(name for number in range(len(there.slots) + 1) if (name := f"fit-{number}") not in there.slots)
    port = next(port for port in range(LAST_PORT, 0, -1) if port not in taken)  # it asks for none of the slots' range
    found = await undeclared(reconciler, str(keys["model"]))
    file = str(reconciler.source.root.base / _FILE)
    slot = {"kind": "Slot", "name": name, "port": port, **keys}
    desired = await reconciler.source.having({file: appended(file, "", [slot, *([found] if found else [])])})
    for problem in desired.problems:
        if problem.file == file:
            raise UsageError(problem.message, hint=problem.hint)
    return desired.slots[name].spec


async def _read(reconciler: Reconciler, spec: SlotSpec) -> ModelFile:
    """Return what is known of a model's files: by themselves, else by what their source says of their size."""
    files = ModelFiles()
    await files.look([spec.model_path])
    here = files.of(spec.model_path)
    model = (await reconciler.source.load()).registry.get(spec.model)
    if isinstance(here.size, Known) or model is None or model.download is None:
        return here
    size = await _size(reconciler.actor.transfers.fetcher, model.download)
    return ModelFile(size, Unknown("it is not here yet, and its header tells the rest"))


async def _size(fetcher: Fetcher, download: Download) -> Fact[int]:
    total = 0
    for file in download.files:
        try:
            size = await fetcher.size_of(file.source)
        except StepFailed as error:
            return Unknown(f"{download.model} is not here, and its source can't be asked: {error}")
        if size is None:
            return Unknown(f"{download.model} is not here, and its source does not say how large it is")
        total += size
    return Known(total)


def _context(spec: SlotSpec, file: ModelFile) -> int | None:
    """Return the tokens that the claim is for; None where neither the manifests nor the model say."""
    return spec.context_size or (file.facts.value.context_length if isinstance(file.facts, Known) else None)


def _largest(spec: SlotSpec, file: ModelFile, room: int | None) -> int | None:
    if room is None or spec.engine is not Engine.LLAMA_SERVER or isinstance(file.facts, Unknown):
        return None
    return largest_context(spec, file.facts.value, room)
