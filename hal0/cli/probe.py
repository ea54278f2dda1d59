"""``hal0 probe``: what the daemon knows of this machine, or a look of our own."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

from hal0.cli import show
from hal0.cli.ask import asked_of
from hal0.cli.options import Options
from hal0.core.quantity import show_size

_WIDTH = 9


def probe(options: Options, *, as_json: bool) -> int:
    """Print what this machine has."""
    found = asked_of(options, "/api/hardware", lambda: asyncio.run(_own_machine(options)))
    show.found(found, machine_text, as_json=as_json)
    return 0


async def _own_machine(options: Options) -> dict[str, Any]:
    """Look at this machine. Where there are no manifests yet, the models lie where they would by default."""
    from hal0.cli.local import settings
    from hal0.core.spec import HostSpec
    from hal0.host.clock import SystemClock
    from hal0.loop.assembly import make_hardware, make_source, open_store
    from hal0.loop.desire import host_facts
    from hal0.loop.hardware import probed

    found = settings(options.path, options.runtime, options.scope)
    if found.root.exists() or options.path:
        with open_store(found, read_only=True) as store:
            host = (await make_source(found, store).load()).host
    else:
        facts = host_facts(found.runtime_name, found.scope.state_dir, rootless=found.scope.is_user)
        host = HostSpec(model_dir=facts.model_dir)
    return await probed(make_hardware(found, SystemClock()), host, found.runtime_name)


def machine_text(found: dict[str, Any]) -> Iterator[str]:
    """Yield a machine, a line for each thing that it has."""
    if cpu := found["cpu"]:
        cores = f"{cpu['cores']} cores, {cpu['threads']} threads, {cpu['usable']} usable"
        yield _row("cpu", f"{cpu['model'] or 'unknown model'} ({cpu['arch']}): {cores}")
        yield _row("", f"flags: {' '.join(cpu['flags']) or 'none that engines use'}")
    if memory := found["memory"]:
        sizes = (show_size(memory[f"{kind}_bytes"]) for kind in ("total", "available", "swap"))
        yield _row("memory", "{}, {} available, {} swap".format(*sizes))
    for gpu in found["gpus"]:
        yield from _gpu_text(gpu)
    for npu in found["npus"]:
        yield _row("npu", f"{npu['driver']} {npu['ids']}{_node_text(npu['node'], npu['gid'])}")
    if (virt := found["virtualization"]) and virt["kind"] != "none":
        yield _row("inside", f"{virt['kind']} {virt['name']}".strip())
    yield from _cdi_text(found["cdi"])
    if disk := found["model_disk"]:
        sizes = (show_size(disk[f"{kind}_bytes"]) for kind in ("free", "total"))
        yield _row("models", "{}: {} of {} free ({})".format(disk["path"], *sizes, disk["filesystem"] or "?"))
    for pool in found["pools"]:
        yield _row("pool", _pool_text(pool))
    for part, why in found["unknown"].items():
        yield show.paint(_row("unknown", f"{part}: {why}"), "33")
    yield _row("default", f"{found['default']['device']}: {found['default']['why']}")


def _gpu_text(gpu: dict[str, Any]) -> Iterator[str]:
    driver = f"{gpu['driver'] or 'no driver'} {gpu['driver_version']}".strip()
    name = f"{gpu['name']} ({gpu['gfx']})" if gpu["gfx"] else gpu["name"]
    yield _row(
        "gpu", f"{name}: {driver}, {gpu['pci'] or 'no PCI address'}{_node_text(gpu['render_node'], gpu['render_gid'])}"
    )
    if memory := gpu["memory"]:
        parts = [f"VRAM {_used(memory['vram_used_bytes'])}{show_size(memory['vram_bytes'])}"]
        if memory["shared_bytes"]:
            parts += [f"GTT {_used(memory['shared_used_bytes'])}{show_size(memory['shared_bytes'])}"]
        parts += ["shares the machine's memory"] if gpu["unified"] else []
        parts += [] if gpu["busy"] is None else [f"busy {gpu['busy']:.0%}"]
        yield _row("", ", ".join(parts))
    else:
        yield _row("", gpu["unknown"])


def _used(size: int | None) -> str:
    return "" if size is None else f"{show_size(size)} of "


def _node_text(node: str, gid: int | None) -> str:
    return f", {node} (group {gid})" if node else ", no node below /dev"


def _cdi_text(cdi: dict[str, Any] | None) -> Iterator[str]:
    if cdi and cdi["names"]:
        yield _row("cdi", ", ".join(cdi["names"]))
    for why in cdi["unread"] if cdi else ():
        yield show.paint(_row("cdi", why), "33")


def _pool_text(pool: dict[str, Any]) -> str:
    if pool["unknown"]:
        return f"{pool['name']}  unknown: {pool['unknown']}"
    used = "" if pool["used_bytes"] is None else f", {show_size(pool['used_bytes'])} in use"
    stated = ", as the Host manifest says" if pool["stated"] else f" of {show_size(pool['total_bytes'])}"
    return f"{pool['name']}  {show_size(pool['for_slots_bytes'])} for slots{stated}{used}"


def _row(name: str, text: str) -> str:
    return f"{name:<{_WIDTH}} {text}".rstrip()
