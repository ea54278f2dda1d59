"""The pure part: reading, resolving and planning a thousand slots, and planning as many as a machine has."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from bench.measure import Row, Rows, milliseconds
from fakes import FakeHost
from worlds import FACTS, SEEDS, TEMPLATES

from hal0.core.documents import Document, parse_file
from hal0.core.kinds import Manifest
from hal0.core.observed import Observed
from hal0.core.plan import plan
from hal0.core.resolve import resolve
from hal0.core.spec import Desired
from hal0.core.steps import Plan
from hal0.core.validate import Located, validate
from hal0.core.world import World
from hal0.host.manifests import ManifestRoot
from hal0.host.store import Store
from hal0.loop.desire import Source

SLOTS = 1000
_FEW = 50
_AIM_MS = 100.0
_ROUNDS = 15
_SLOW_ROUNDS = 5
_HOST = 'kind = "Host"\nslot_ports = "20000-22000"\n'
_MODEL = 'kind = "Model"\nname = "m"\npath = "m.gguf"\n'
_TOML = """kind = "Slot"
name = "slot-{number:04}"
model = "m"
context_size = {size}
aliases = ["alias-{number:04}"]
args = ["--parallel", 2, "--flash-attn", "on"]

[env]
LLAMA_LOG_COLORS = "off"

[limits]
memory = "4Gi"
"""
_YAML = """kind: Slot
name: slot-{number:04}
model: m
context_size: {size}
aliases: [alias-{number:04}]
args: [--parallel, 2, --flash-attn, "on"]
env:
  LLAMA_LOG_COLORS: "off"
limits:
  memory: 4Gi
"""


def rows() -> Rows:
    """Measure all of it."""
    manifests = _manifests(4096)
    yield from _plans(SLOTS, _AIM_MS)
    yield from _plans(_FEW)
    yield Row(
        "resolve and render, the manifests being read",
        "ms",
        milliseconds(lambda: _resolved(manifests), rounds=_SLOW_ROUNDS),
    )
    yield from _reads("toml", _TOML)
    yield from _reads("yaml", _YAML)


def _plans(count: int, aim: float | None = None) -> Iterator[Row]:
    now, then = _resolved(_manifests(4096, count)), _resolved(_manifests(8192, count))
    in_sync = _world(now, _applied(now))
    worlds = {
        "everything as declared": (in_sync, 0),
        "everything new": (_world(now, FakeHost()), count),
        "everything changed": (World(then, in_sync.observed, in_sync.owned), count),
    }
    for name, (world, changes) in worlds.items():
        found = len(_plan(world).changes)
        assert found == changes, f"{name}: {found} changes, not {changes}"
        yield Row(f"plan of {count:,} slots, {name}", "ms", milliseconds(partial(_plan, world), rounds=_ROUNDS), aim)


def _plan(world: World) -> Plan:
    """Plan as a pass does: for a world that nobody has asked anything yet."""
    return plan(replace(world))


def _manifests(size: int, count: int = SLOTS) -> list[Located[Manifest]]:
    texts = [_HOST, _MODEL, *(_TOML.format(number=number, size=size) for number in range(count))]
    documents: list[Document] = []
    for number, text in enumerate(texts):
        found, errors = parse_file(f"{number}.toml", text)
        assert not errors, errors
        documents += found
    good, invalid = validate(documents)
    assert not invalid, invalid
    return good


def _resolved(manifests: Sequence[Located[Manifest]]) -> Desired:
    desired = resolve(manifests, (), seeds=SEEDS, facts=FACTS, templates=TEMPLATES)
    assert not desired.problems, desired.problems
    return desired


def _applied(desired: Desired) -> FakeHost:
    host = FakeHost(images={slot.spec.image: "id" for slot in desired.slots.values()})
    host.carry_out(plan(_world(desired, host)))
    return host


def _world(desired: Desired, host: FakeHost) -> World:
    seen = {name: host.observe(name, slot.spec.image) for name, slot in desired.slots.items()}
    owned = {name: slot.spec for name, slot in desired.slots.items() if name in host.files}
    return World(desired, Observed(seen), owned)


def _reads(suffix: str, text: str) -> Iterator[Row]:
    """Measure reading a folder of a thousand files: at first, again, and as a pass of the loop loads it."""
    with tempfile.TemporaryDirectory(prefix="hal0-bench-") as name:
        folder = Path(name)
        _fill(folder, suffix, text)
        cold = milliseconds(lambda: ManifestRoot(folder).read(), rounds=_SLOW_ROUNDS)
        root = ManifestRoot(folder)
        root.read()
        again = milliseconds(root.read, rounds=_SLOW_ROUNDS)
        loads = _loads(root)
    yield Row(f"read and validate {SLOTS:,} {suffix.upper()} files", "ms", cold)
    yield Row(f"read {SLOTS:,} {suffix.upper()} files again, unchanged", "ms", again)
    yield Row(f"load {SLOTS:,} {suffix.upper()} files again, as every resync does", "ms", loads, note="to Desired")


def _fill(folder: Path, suffix: str, text: str) -> None:
    (folder / "host.toml").write_text(_HOST)
    (folder / "model.toml").write_text(_MODEL)
    for number in range(SLOTS):
        (folder / f"slot-{number:04}.{suffix}").write_text(text.format(number=number, size=4096))


def _loads(root: ManifestRoot) -> tuple[float, ...]:
    with tempfile.TemporaryDirectory(prefix="hal0-bench-") as state:
        store = Store(Path(state) / "hal0.db")
        source = Source(root, FACTS, store, TEMPLATES, SEEDS)

        async def load() -> None:
            await source.load()  # returned, it would be printed by asyncio's runner, for no one to read

        try:
            with asyncio.Runner() as runner:
                runner.run(load())
                return milliseconds(lambda: runner.run(load()), rounds=_SLOW_ROUNDS)
        finally:
            store.close()
