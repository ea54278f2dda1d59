"""Small worlds for tests: manifests as text in, Desired out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from hal0 import resources
from hal0.core.documents import parse_file
from hal0.core.pins import Lock
from hal0.core.render import Templates
from hal0.core.resolve import resolve
from hal0.core.spec import Desired, HostFacts, SlotSpec
from hal0.core.validate import validate
from hal0.host.manifests import seed_manifests

TEMPLATES = Templates(
    dropin=resources.read("templates", "slot.conf.j2"), process=resources.read("templates", "process.toml.j2")
)
FACTS = HostFacts(runtime="systemd", cpus=4, python="/usr/bin/python3", model_dir="/models")
SEEDS = seed_manifests()
MODEL = "kind: Model\nname: m\npath: m.gguf\n"


def desired(
    text: str,
    *,
    facts: HostFacts = FACTS,
    generation: int = 1,
    last_good: Mapping[str, SlotSpec] | None = None,
    before: Desired | None = None,
    models: Mapping[str, str] | None = None,
    proven: Mapping[str, SlotSpec] | None = None,
    lock: Lock | None = Lock(),  # noqa: B008  (a frozen value)
) -> Desired:
    """Resolve manifests, given as YAML. ``before`` was desired until now, ``models`` overrides slots' models."""
    documents, errors = parse_file("test.yaml", text)
    good, invalid = validate(documents)
    found = resolve(
        good,
        [*errors, *invalid],
        seeds=SEEDS,
        facts=facts,
        templates=TEMPLATES,
        last_good={name: slot.spec for name, slot in before.slots.items()} if before else last_good,
        last_upstreams=before.upstreams if before else None,
        models=models,
        proven=proven,
        lock=lock,
    )
    return replace(found, generation=generation, revision="abc")


def slots(*names: str, **settings: object) -> str:
    """Return manifests of some slots that serve one model."""
    extra = "".join(f"{key.replace('_', '-') if key == 'on' else key}: {value}\n" for key, value in settings.items())
    return MODEL + "".join(f"---\nkind: Slot\nname: {name}\nmodel: m\n{extra}" for name in names)
