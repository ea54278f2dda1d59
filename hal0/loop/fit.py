"""Whether a model fits: the claim of a slot that nobody has declared, against what its pool has and has left."""

from __future__ import annotations

from hal0.core.backend import Choice
from hal0.core.claims import claim_key, claim_of
from hal0.core.edit import Scalar, new_slot
from hal0.core.facts import Known, Unknown, known
from hal0.core.fields import LAST_PORT
from hal0.core.fit import Fits, fit, largest_context
from hal0.core.modelfile import ModelFile
from hal0.core.pools import Pool, pool_of, pools_of
from hal0.core.schema import Device, Engine
from hal0.core.spec import SlotSpec
from hal0.core.wire import VERSION, Json, claim_json
from hal0.errors import UsageError
from hal0.host.gguf import ModelFiles
from hal0.loop.hardware import chosen_device
from hal0.loop.reconcile import Reconciler

_FILE = ".fit.toml"
"""Where the manifest of a fit check would be: no file of that name is ever read, and none is written."""


async def model_fit(reconciler: Reconciler, model: str, *, context_size: int | None, device: str | None) -> Json:
    """Return whether a new slot of a model would fit, what it would take, and the largest context that would.

    Without ``device`` it is the one that ``slot create`` would take. Raises ``UsageError`` where there is no such Model
    or device. Nothing is changed.
    """
    choice = Choice(Device(device), "as asked") if device in set(Device) else await chosen_device(reconciler)
    keys: dict[str, Scalar] = {"model": model, "device": device or choice.device.value}
    spec = await _drafted(reconciler, keys | ({"context_size": context_size} if context_size else {}))
    file = await _read(spec)
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


async def _drafted(reconciler: Reconciler, keys: dict[str, Scalar]) -> SlotSpec:
    """Return the spec of a slot as the manifests would make it: nothing is written."""
    there = await reconciler.source.load()
    taken = {slot.spec.port for slot in there.slots.values()}
    name = next(name for number in range(len(there.slots) + 1) if (name := f"fit-{number}") not in there.slots)
    port = next(port for port in range(LAST_PORT, 0, -1) if port not in taken)  # it asks for none of the slots' range
    file = str(reconciler.source.root.base / _FILE)
    desired = await reconciler.source.having(file, new_slot({"name": name, "port": port, **keys}))
    for problem in desired.problems:
        if problem.file == file:
            raise UsageError(problem.message, hint=problem.hint)
    return desired.slots[name].spec


async def _read(spec: SlotSpec) -> ModelFile:
    files = ModelFiles()
    await files.look([spec.model_path])
    return files.of(spec.model_path)


def _context(spec: SlotSpec, file: ModelFile) -> int | None:
    """Return the tokens that the claim is for; None where neither the manifests nor the model say."""
    return spec.context_size or (file.facts.value.context_length if isinstance(file.facts, Known) else None)


def _largest(spec: SlotSpec, file: ModelFile, room: int | None) -> int | None:
    if room is None or spec.engine is not Engine.LLAMA_SERVER or isinstance(file.facts, Unknown):
        return None
    return largest_context(spec, file.facts.value, room)
