"""From the manifest root to Desired: reads, resolves, numbers."""

from __future__ import annotations

import grp
import logging
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from hal0 import resources
from hal0.core.documents import ManifestError
from hal0.core.index import Index, index
from hal0.core.kinds import Manifest
from hal0.core.observed import Observed
from hal0.core.override import models_of, overridden
from hal0.core.rebuild import ports_found
from hal0.core.rejections import with_rejections
from hal0.core.render import Templates
from hal0.core.resolve import desired_slot, resolve
from hal0.core.schema import SlotManifest
from hal0.core.spec import Desired, DesiredSlot, HostFacts, RuntimeName, SlotSpec
from hal0.core.validate import Located
from hal0.host.cpus import usable_cpus
from hal0.host.manifests import ManifestRoot, ManifestSet, parsed, seed_manifests
from hal0.host.store import Store

_log = logging.getLogger(__name__)


def host_facts(runtime: RuntimeName, state_dir: Path, *, rootless: bool) -> HostFacts:
    """Read what resolving needs to know of this machine."""
    return HostFacts(
        runtime=runtime,
        cpus=usable_cpus(),
        python=sys.executable,
        model_dir=os.environ.get("HAL0_MODELS") or str(state_dir / "models"),
        groups={group.gr_name: group.gr_gid for group in grp.getgrall()},
        rootless=rootless,
    )


@dataclass
class Source:
    """The manifests of one root, resolved for one host."""

    root: ManifestRoot
    facts: HostFacts
    store: Store
    templates: Templates = field(
        default_factory=lambda: Templates(
            dropin=resources.read("templates", "slot.conf.j2"), process=resources.read("templates", "process.toml.j2")
        )
    )
    seeds: tuple[Located[Manifest], ...] = field(default_factory=seed_manifests)
    texts: Mapping[str, str] = field(default_factory=dict, init=False, repr=False)
    manifests: tuple[Located[Manifest], ...] = field(default=(), init=False, repr=False)
    _ports: Mapping[str, int] = field(default_factory=dict, init=False, repr=False)
    _last: tuple[object, Desired] | None = field(default=None, init=False, repr=False)

    async def load(self) -> Desired:
        """Read the root and resolve it. Never raises for bad manifests: they are in ``problems``.

        While nothing has changed, the answer is the same object.
        """
        found, models = await self.root.load(), self._models
        self.texts, self.manifests = found.texts, found.manifests
        store = self.store
        known = (store.specs, store.trials.good, store.trials.rejections, self._ports)
        given = (found.manifests, found.errors, found.revision, found.lock, known, models)
        if self._last is None or self._last[0] != given:
            self._last = given, self._numbered(found, models)
        return self._last[1]

    async def declared(self, slot: str) -> Located[SlotManifest] | None:
        """Return the valid manifest of a slot, and where it is written."""
        return (await self.known()).slots.get(slot)

    async def known(self) -> Index:
        """Return the valid manifests by kind and name, those of slots that capabilities turn on too."""
        return index((await self.root.load()).manifests, self.seeds)

    async def having(self, texts: Mapping[str, str | None]) -> Desired:
        """Resolve the root as it would be if files had these texts; None is: if there were no such file."""
        found = await self.root.load()
        for file, text in texts.items():
            found = found.having(file, text)
        return self._numbered(found, self._models)

    async def with_models(self, models: Mapping[str, str]) -> Desired:
        """Return what slots would be with other models (slot to Model). Nothing is remembered of it."""
        return self._resolve(await self.root.load(), models)

    def problems_of(self, texts: Mapping[str, str]) -> tuple[ManifestError, ...]:
        """Return what would be wrong with some texts as the files of the root."""
        return self._resolve(parsed(self.root.base, texts), {}).problems

    def recall(self, desired: Desired, observed: Observed) -> bool:
        """Take ports back from definitions that the store knows nothing of; return whether that changes anything."""
        found = ports_found(desired, observed, self.store.specs)
        lost = sorted(name for name, port in found.items() if port != desired.slots[name].spec.port)
        is_news = any(self._ports.get(name) != found[name] for name in lost)
        if is_news:
            _log.warning("the store knows nothing of %s: ports are read back from the host", ", ".join(lost))
            self._ports = {**self._ports, **found}
        return is_news

    @property
    def _models(self) -> dict[str, str]:
        return models_of(self.store.overrides.rows)

    def _numbered(self, found: ManifestSet, models: Mapping[str, str]) -> Desired:
        desired = self._resolve(found, {})
        if models:
            desired = overridden(desired, self._resolve(found, models))
        trials = self.store.trials
        desired = with_rejections(desired, trials.rejections, trials.good, lambda spec: self.rendered(spec, desired))
        return replace(desired, generation=self.store.generation(desired.content), revision=found.revision)

    def _resolve(self, found: ManifestSet, models: Mapping[str, str]) -> Desired:
        return resolve(
            found.manifests,
            found.errors,
            seeds=self.seeds,
            facts=self.facts,
            templates=self.templates,
            last_good=self.store.specs,
            last_upstreams=self._last[1].upstreams if self._last else None,
            last_ports=self._ports,
            models=models,
            proven=self.store.trials.good,
            lock=found.lock,
        )

    def rendered(self, spec: SlotSpec, desired: Desired) -> DesiredSlot:
        """Return the definition of a spec that no manifest declares: a slot's last one, or a stand-in's."""
        return desired_slot(spec, self.facts, desired.host, self.templates)
