"""Hypothesis strategies of the domain: manifests as written, whole sets of them, and the worlds they resolve to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cache, partial
from typing import Any, TypeAlias

from hypothesis import strategies as st
from worlds import FACTS, SEEDS, TEMPLATES

from hal0.core.documents import Document
from hal0.core.endpoints import ENDPOINTS
from hal0.core.kinds import Manifest
from hal0.core.resolve import resolve
from hal0.core.routes import Listing
from hal0.core.schedule import Verdict
from hal0.core.schema import Abort, Device, DriftPolicy, Engine, RunPolicy, SlotType, UpstreamApi
from hal0.core.seeds import SEED_PROFILES
from hal0.core.spec import Desired, DesiredSlot, HostFacts, Serving, SlotSpec, UpstreamSpec
from hal0.core.state import SlotState
from hal0.core.status import SlotStatus, Snapshot
from hal0.core.validate import Located, validate

Data: TypeAlias = dict[str, Any]


NONCHARACTERS = "".join(chr(code) for code in range(0x110000) if code & 0xFFFE == 0xFFFE or 0xFDD0 <= code <= 0xFDEF)

# Strategies are made once: making them costs more than drawing from them.


@cache
def characters(exclude: str = "") -> st.SearchStrategy[str]:
    """Return what a manifest's text may hold: all that UTF-8 has, but noncharacters."""
    special = st.sampled_from([char for char in " \t\"'\\%$;{}=#!@-\n\x1b\x7f\x85\u2028\ufeff" if char not in exclude])
    return special | st.characters(codec="utf-8", exclude_characters=NONCHARACTERS + exclude)


@cache
def words(*, min_size: int = 0) -> st.SearchStrategy[str]:
    """Return one word of a command line: any text of one line, without NUL."""
    return st.text(characters("\0\n\r"), min_size=min_size, max_size=12)


@cache
def names() -> st.SearchStrategy[str]:
    return st.from_regex(r"[a-z0-9]([a-z0-9-]{0,6}[a-z0-9])?", fullmatch=True)


@cache
def model_ids() -> st.SearchStrategy[str]:
    return st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,8}", fullmatch=True)


@cache
def environments() -> st.SearchStrategy[dict[str, str]]:
    return st.dictionaries(st.sampled_from(["A", "_b", "PATH", "HF_TOKEN", "x1"]), words(), max_size=3)


@cache
def arguments() -> st.SearchStrategy[list[str]]:
    flags = [
        "--jinja",
        "--threads",
        "-t",
        "--ctx-size",
        '{"temperature": {port}}',
        "{model}",
        "$HOME",
        "100%",
        "a b",
        "",
    ]
    return st.lists(st.sampled_from(flags) | words(), max_size=4)


@cache
def sizes() -> st.SearchStrategy[int | str]:
    return st.integers(1, 2**40) | st.sampled_from(["512Mi", "8Gi", "1.5G", "4G", "700k"])


@cache
def durations() -> st.SearchStrategy[float | str]:
    return st.integers(0, 10**6) | st.sampled_from(["90s", "15m", "1h30m", "250ms", "1d"])


@cache
def requests() -> st.SearchStrategy[Data]:
    """Return request parameters, as ``defaults`` holds them: what JSON, TOML and YAML all have."""
    values = st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    trees = st.sampled_from([[], {}, ["</s>", 1], {"a": {"b": [0.5]}}])
    return st.dictionaries(st.sampled_from(["temperature", "stop", "a b", "é"]), values | words() | trees, max_size=3)


@cache
def _models() -> st.SearchStrategy[Data]:
    path = st.sampled_from(["m.gguf", "sub/m.gguf", "/data/m.gguf", "with space.gguf", "{port}.gguf"])
    extra = {"context_size": st.integers(1, 10**6), "defaults": requests()}
    return st.fixed_dictionaries({"kind": st.just("Model"), "path": path}, optional=extra)


@cache
def _profiles() -> st.SearchStrategy[Data]:
    """Return a profile that either runtime can use."""
    image = st.sampled_from(["engine:1", "org/engine:1", "registry.example/org/engine@sha256:0"])
    command = st.lists(st.sampled_from(["{python}", "-m", "engine"]) | words(), min_size=1, max_size=3)
    extra: Data = {
        "engine": st.sampled_from([engine.value for engine in Engine]),
        "entrypoint": words(min_size=1),
        "args": arguments(),
        "env": environments(),
        "devices": st.sampled_from([[], ["/dev/dri"], ["/dev/dri", "vendor.example/gpu=all"]]),
        "groups": st.sampled_from([[], ["video", "render"], ["44"], ["nobody-has-this"]]),
        "mounts": st.just(["/srv:/srv:ro"]),
        "port": st.integers(1, 65535),
        "probe": st.sampled_from(["/health", "/ready?now"]),
        "start_deadline": durations(),
        "stop_timeout": durations(),
        "paths": st.dictionaries(st.sampled_from(list(ENDPOINTS)), st.just("/elsewhere"), max_size=2),
    }
    return st.fixed_dictionaries({"kind": st.just("Profile"), "image": image, "command": command}, optional=extra)


@cache
def _slots() -> st.SearchStrategy[Data]:
    """Return a slot without what ties it to other manifests: name, model, profile, device, port and aliases."""
    extra: Data = {
        "type": st.sampled_from([kind.value for kind in SlotType]),
        "run": st.sampled_from([policy.value for policy in RunPolicy]),
        "drift": st.sampled_from([policy.value for policy in DriftPolicy]),
        "context_size": st.integers(1, 10**6),
        "idle_timeout": durations(),
        "env": environments(),
        "args": arguments(),
        "limits": st.fixed_dictionaries({}, optional={"memory": sizes(), "cpus": st.floats(0.01, 1000)}),
        "defaults": requests(),
        "suspend": st.booleans(),
    }
    return st.fixed_dictionaries({"kind": st.just("Slot")}, optional=extra | _servings())


def _servings() -> Data:
    """Return the keys of a slot that only the dispatcher reads, but for ``fallback``."""
    return {
        "strip": st.lists(words(), max_size=2),
        "set": requests(),
        "load_wait": durations(),
        "queue": st.integers(0, 9),
        "concurrency": st.integers(1, 9),
        "max_keep_alive": durations(),
        "abort": st.sampled_from([abort.value for abort in Abort]),
        "drain_timeout": durations(),
    }


@cache
def _upstreams() -> st.SearchStrategy[Data]:
    """Return an upstream without its name, its models and its fallback."""
    url = st.sampled_from(["https://api.example/v1", "http://10.0.0.1:8080/v1/", "http://[::1]:8080"])
    extra: Data = {
        "api": st.sampled_from([api.value for api in UpstreamApi]),
        "api_key": st.sampled_from([{"env": "KEY"}, {"file": "/run/key"}, {"credential": "key"}]),
        "refresh": st.sampled_from(["10m", 5]),
        "headers": st.just({"X-Team": "a"}),
        "connect_timeout": st.integers(1, 9),
        "idle_timeout": st.integers(1, 9),
        "failures": st.integers(1, 9),
        "cooldown": st.integers(1, 9),
    }
    return st.fixed_dictionaries({"kind": st.just("Upstream"), "base_url": url}, optional=extra)


@cache
def host_facts(*runtimes: str) -> st.SearchStrategy[HostFacts]:
    return st.builds(
        HostFacts,
        runtime=st.sampled_from(runtimes or ("systemd", "process")),
        cpus=st.sampled_from([0.5, 1, 2.5, 64]),
        python=st.just("/usr/bin/python3"),
        model_dir=st.sampled_from(["/models", "/var/lib/hal0/models"]),
        groups=st.just({"video": 44, "render": 105}),
        rootless=st.booleans(),
    )


@st.composite
def manifest_sets(draw: st.DrawFn, facts: HostFacts, *, max_slots: int = 4) -> list[Data]:
    """Return manifests that hold together: every reference leads somewhere, no name or port is claimed twice."""
    model_names, aliases = _split(draw(_unique(model_ids(), 1, 6)), 3)
    slot_names = draw(_unique(names(), 0, max_slots))
    profile_names = draw(_unique(names(), 1, 2))
    further = [name for name in draw(_unique(model_ids(), 0, 3)) if name not in slot_names]
    found = [
        {**draw(_models()), "name": name, "aliases": aliases[at :: len(model_names)]}
        for at, name in enumerate(model_names)
    ]
    found += [{**draw(_profiles()), "name": name} for name in profile_names]
    if draw(st.booleans()):
        found.append({"kind": "Host", "slot_ports": "8081-8095", "image_registry": "registry.example/x"})
    found += draw(_upstream_sets())
    targets = [*_fallbacks(found), *slot_names, *further]
    for at, name in enumerate(slot_names):
        slot = {**draw(_slots()), "name": name, "model": draw(st.sampled_from(model_names + aliases))}
        if draw(st.booleans()):
            slot |= {"profile": draw(st.sampled_from(profile_names)), "device": draw(_devices(*Device)).value}
        elif facts.runtime == "systemd":
            kind, device = draw(st.sampled_from(sorted(SEED_PROFILES)))
            slot |= {"type": kind.value, "device": device.value}
        elif slot.get("type") == "tts":
            slot["type"] = "llm"  # the seed for speech is a container
        if draw(st.booleans()):
            slot["port"] = 8090 - at
        if draw(st.booleans()):
            slot["fallback"] = draw(st.lists(st.sampled_from(targets), max_size=2))
        found.append({**slot, "aliases": further[at :: len(slot_names)]})
    return found


@cache
def _upstream_sets() -> st.SearchStrategy[list[Data]]:
    """Return upstreams; the first one is asked for its models, others have a list of their own."""
    first = st.builds(dict[str, Any], _upstreams(), name=st.just("asked"))
    second = st.builds(dict[str, Any], _upstreams(), name=st.just("listed"), models=st.just(["x", "y/z"]))
    third = st.builds(dict[str, Any], second, name=st.just("bare"), prefix=st.just(""), fallback=st.just(["listed/x"]))
    return st.just([]) | st.tuples(first).map(list) | st.tuples(first, second, third).map(list)


def _fallbacks(found: Iterable[Data]) -> list[str]:
    """Return names that lead to upstreams."""
    names = {data["name"] for data in found if data["kind"] == "Upstream"}
    return [*(["asked/any"] if "asked" in names else []), *(["x", "listed/y/z"] if "listed" in names else [])]


@cache
def _unique(strategy: st.SearchStrategy[str], least: int, most: int) -> st.SearchStrategy[list[str]]:
    return st.lists(strategy, min_size=least, max_size=most, unique=True)


@cache
def _devices(*devices: Device) -> st.SearchStrategy[Device]:
    return st.sampled_from(devices)


def _split(values: list[str], most: int) -> tuple[list[str], list[str]]:
    return values[:most], values[most:]


def documents(datas: Iterable[Data], *, first_line: int = 1) -> list[Document]:
    """Return manifests as if each was read from a file of its own."""
    return [Document(f"{at}.yaml", data, first_line, {}) for at, data in enumerate(datas)]


def located(found: Iterable[Document]) -> list[Located[Manifest]]:
    good, errors = validate(found)
    assert not errors, [str(error) for error in errors]
    return good


def resolved(datas: Iterable[Data], facts: HostFacts, last_good: Mapping[str, SlotSpec] | None = None) -> Desired:
    return resolve(located(documents(datas)), [], seeds=SEEDS, facts=facts, templates=TEMPLATES, last_good=last_good)


@st.composite
def worlds(draw: st.DrawFn, *runtimes: str, max_slots: int = 4) -> tuple[HostFacts, list[Data], Desired]:
    """Return a machine, manifests that hold together, and what they resolve to."""
    facts = draw(host_facts(*runtimes))
    datas = draw(manifest_sets(facts, max_slots=max_slots))
    return facts, datas, resolved(datas, facts)


@st.composite
def desired_slots(draw: st.DrawFn, *runtimes: str) -> tuple[HostFacts, DesiredSlot, Desired]:
    """Return one resolved slot, the machine, and the rest of Desired."""
    found = draw(worlds(*runtimes, max_slots=2).filter(lambda world: bool(world[2].slots)))
    return found[0], draw(st.sampled_from(sorted(found[2].slots.values(), key=lambda slot: slot.spec.name))), found[2]


# What a route table is made of. Names are few, so that they meet.

SLOT_NAMES = ["a", "b", "c"]
UPSTREAM_NAMES = ["cloud", "peer", "up"]
WORDS = [
    *("a", "b", "m1", "m2", "m3", "gpt", "x:tag", "A", "M1", "hal0/a", "hal0/gone", "HAL0/A", "only", "nobody", ""),
    *("up/m1", "up/only", "up/", "up/nobody", "cloud/only", "cloud/x:tag", "peer/up/m1"),
]


@cache
def slot_statuses() -> st.SearchStrategy[SlotStatus]:
    """Return slots in any state, of any type, that claim each other's names."""
    spec = resolved([{"kind": "Model", "name": "m1", "path": "m"}, {"kind": "Slot", "name": "a", "model": "m1"}], FACTS)
    words = st.sampled_from(WORDS)
    specs = st.builds(
        partial(replace, spec.slots["a"].spec),
        name=st.sampled_from(SLOT_NAMES),
        model=st.sampled_from(["m1", "m2", "m9"]) | words,
        aliases=st.lists(words, max_size=2).map(tuple),
        type=st.sampled_from([SlotType.LLM, SlotType.EMBEDDING]) | st.sampled_from(SlotType),
        device=st.sampled_from([Device.CPU, Device.NPU]),
        serving=st.builds(Serving, fallback=st.lists(words, max_size=2).map(tuple)),
    )
    states = st.sampled_from([SlotState.READY, SlotState.OFFLINE]) | st.sampled_from(SlotState)
    verdicts = st.builds(Verdict, up=st.booleans(), why=st.just(""), barred=st.booleans())

    def made(spec: SlotSpec, state: SlotState, verdict: Verdict) -> SlotStatus:
        return SlotStatus(spec.name, state, 0.0, (), spec, spec, spec.name, verdict=verdict)

    return st.builds(made, specs, states, verdicts)


@cache
def upstream_specs() -> st.SearchStrategy[UpstreamSpec]:
    """Return upstreams with and without a prefix and an allow-list, of both kinds."""
    spec = resolved([{"kind": "Upstream", "name": "up", "base_url": "https://api.example/v1"}], FACTS).upstreams["up"]
    return st.builds(
        lambda name, bare, **changes: replace(spec, name=name, prefix="" if bare else f"{name}/", **changes),
        st.sampled_from(UPSTREAM_NAMES),
        st.sampled_from([False, False, True]),
        api=st.sampled_from([UpstreamApi.OPENAI, *UpstreamApi]),
        models=st.just(()) | model_lists(),
        fallback=st.lists(st.sampled_from(WORDS), max_size=1).map(tuple),
    )


@cache
def model_lists() -> st.SearchStrategy[tuple[str, ...]]:
    """Return what an upstream has, or says that it has."""
    ids = ["m1", "m3", "only", "x:tag", "a", "up/m1", "hal0/a", "hal0/gone"]
    return st.lists(st.sampled_from(ids), min_size=1, max_size=3).map(tuple)


@cache
def catalogues() -> st.SearchStrategy[dict[str, Listing]]:
    """Return what upstreams said: one of them nothing yet, others what is outdated, and others that they failed."""
    listings = st.builds(Listing, st.just(()) | model_lists(), st.sampled_from(["", "it answered 500"]))
    return st.fixed_dictionaries({"cloud": listings, "up": listings}, optional={"gone": listings, "peer": listings})


@cache
def snapshots() -> st.SearchStrategy[Snapshot]:
    """Return pictures of slots, upstreams and models. Some models are held by no slot, some slots' by no manifest."""
    slots = st.lists(slot_statuses(), min_size=1, max_size=3, unique_by=lambda slot: slot.name)
    upstreams = st.lists(upstream_specs(), min_size=1, max_size=3, unique_by=lambda upstream: upstream.name)
    aliases = st.dictionaries(st.sampled_from(["gpt", "a", "x:tag", "hal0/a", "only"]), st.sampled_from(["m1", "m3"]))
    return st.builds(_snapshot, slots, upstreams, st.sets(st.sampled_from(["m1", "m2", "m3"])), aliases)


def _snapshot(
    slots: list[SlotStatus], upstreams: list[UpstreamSpec], models: set[str], aliases: dict[str, str]
) -> Snapshot:
    known = {model: model for model in sorted(models)}
    return Snapshot(
        slots={slot.name: slot for slot in slots},
        upstreams={upstream.name: upstream for upstream in upstreams},
        models=known | {alias: model for alias, model in aliases.items() if model in known},
    )


@st.composite
def asked_models(draw: st.DrawFn, snapshot: Snapshot, catalogue: Mapping[str, Listing]) -> str:
    """Return a model that a request names: mostly one that means something, sometimes one that is made up."""
    specs = [slot.spec for slot in snapshot.slots.values()]
    own = [name for spec in specs for name in (spec.name, f"hal0/{spec.name}", spec.name.upper(), *spec.aliases)]
    theirs = [
        name
        for spec in snapshot.upstreams.values()
        for model in (*(spec.models or catalogue.get(spec.name, Listing()).models), "unlisted")
        for name in (spec.prefix + model, model)
    ]
    groups = [own + [spec.model for spec in specs], theirs, theirs, [*snapshot.models, "x:tag", "nobody"], WORDS]
    model: str = draw(st.one_of(*map(st.sampled_from, groups), st.text(max_size=4)))
    return model
