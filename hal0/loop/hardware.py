"""What this machine has, and what a new slot runs on: for API and command line alike."""

from __future__ import annotations

from hal0.core.backend import Choice, default_device
from hal0.core.hardware import pools as probed_pools
from hal0.core.hardware_json import machine_json
from hal0.core.pools import pools_of
from hal0.core.spec import HostSpec, RuntimeName
from hal0.core.wire import Json
from hal0.host.ports import Hardware
from hal0.loop.reconcile import Reconciler


async def probed(hardware: Hardware, host: HostSpec, runtime: RuntimeName) -> Json:
    """Return what this machine has, the device that it is best at, and the pools as slots share them out."""
    machine = await hardware.machine(host.model_dir)
    pools = pools_of(probed_pools(machine.sample), host)
    return machine_json(machine, default_device(machine, runtime), pools)


async def probe(reconciler: Reconciler) -> Json:
    """Return ``probed`` for the manifests in force."""
    host = (await reconciler.source.load()).host
    return await probed(reconciler.observer.hardware, host, reconciler.source.facts.runtime)


async def chosen_device(reconciler: Reconciler) -> Choice:
    """Return the device for a new slot for which nobody names one."""
    host = (await reconciler.source.load()).host
    return default_device(await reconciler.observer.hardware.machine(host.model_dir), reconciler.source.facts.runtime)
