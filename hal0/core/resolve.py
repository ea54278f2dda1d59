"""Manifests to Desired: references checked, defaults made explicit, ports handed out, the last good spec kept.

A slot whose manifests are wrong keeps the spec it had, marked with what is wrong; the others go on.
"""

from __future__ import annotations

import math
import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import replace

from hal0.core.breaker import BreakerPolicy
from hal0.core.documents import ManifestError
from hal0.core.endpoints import engine_paths
from hal0.core.enginekinds import ENGINES
from hal0.core.expansion import blind
from hal0.core.fields import parse_listen
from hal0.core.index import Index, exclusion_errors, fallback_errors, index, prefix_of
from hal0.core.kinds import Manifest
from hal0.core.launch import launch, qualified_image
from hal0.core.locked import pinned, pinned_model
from hal0.core.pins import Lock
from hal0.core.profiles import FlatProfile, Profiles, profiles_of, slot_args, torn
from hal0.core.quantity import show_duration
from hal0.core.registry import model_spec, registry_errors
from hal0.core.rejections import good_again
from hal0.core.render import Templates
from hal0.core.schema import (
    Engine,
    HostManifest,
    ModelManifest,
    ProfileManifest,
    RunPolicy,
    SlotManifest,
    UpstreamManifest,
)
from hal0.core.seeds import seed_profile
from hal0.core.spec import Desired, DesiredSlot, HostFacts, HostSpec, Placing, PoolSpec, Serving, SlotSpec, UpstreamSpec
from hal0.core.validate import Located, did_you_mean

_DECLARE = "declare it: hal0 model scan --write if its file is there, else hal0 model pull OWNER/REPO/FILE"


_TAKE_FOLDERS = frozenset({Engine.VLLM, Engine.CUSTOM})


def resolve(
    manifests: Sequence[Located[Manifest]],
    errors: Sequence[ManifestError],
    *,
    seeds: Sequence[Located[Manifest]],
    facts: HostFacts,
    templates: Templates,
    last_good: Mapping[str, SlotSpec] | None = None,
    last_upstreams: Mapping[str, UpstreamSpec] | None = None,
    last_ports: Mapping[str, int] | None = None,
    models: Mapping[str, str] | None = None,
    proven: Mapping[str, SlotSpec] | None = None,
    lock: Lock | None = Lock(),  # noqa: B008  (a frozen value)
) -> Desired:
    """Return what the manifests ask for.

    ``errors`` are those that reading the files already found. ``last_good`` holds the spec of every slot that
    hal0 owns: it keeps the slots of broken manifests as they are, and gives each slot the port it had.
    ``last_upstreams`` does the same for upstreams. ``last_ports`` holds the ports of slots that ``last_good`` lacks.
    ``proven`` holds specs with which slots were ready: what is kept of such a slot is that, on the port that it has.
    ``models`` names, by slot, the Model to have in the place of its manifest's; one that is not there changes nothing.
    ``lock`` None is one that can't be read, which ``errors`` tell of: every slot stays as it was.
    """
    last_good, proven = last_good or {}, proven or {}
    had = {**(last_ports or {}), **{name: spec.port for name, spec in last_good.items()}}
    known = index(manifests, seeds)
    host = _host(known.host.manifest if known.host else None, facts)
    specs, problems = _specs(known, facts, host, models or {}, lock or Lock())
    declared = {model.manifest.name: model for model in known.models.values()}
    problems = [*errors, *known.problems, *problems, *fallback_errors(known), *exclusion_errors(known)]
    problems += registry_errors(declared.values(), host.model_roots)
    upstreams = _upstreams(known, problems)
    while True:
        blamed = {error.name for error in problems if error.kind == "Slot"}
        good = {name: spec for name, spec in specs.items() if name not in blamed and lock is not None}
        # A broken file may be where a missing slot has moved to: nothing is removed while anything is wrong.
        kept = {
            name: good_again(proven.get(name, spec), spec, spec.port)
            for name, spec in last_good.items()
            if problems and name not in good
        }
        ported, failed = _with_ports(good, kept, had, host)
        if not failed:
            break
        problems += [known.slots[name].error(text, "port") for name, text in failed.items()]
    return Desired(
        slots={
            name: desired_slot(spec, facts, host, templates, _about(spec, problems) if name in kept else ())
            for name, spec in sorted(ported.items())
        },
        host=host,
        models={name: model.manifest.name for name, model in known.models.items()},
        upstreams={**(last_upstreams or {}), **upstreams} if problems else upstreams,
        problems=tuple(sorted(problems, key=lambda error: (error.file, error.line, error.key))),
        registry={
            name: pinned_model(model_spec(model, host.model_dir), lock or Lock())
            for name, model in sorted(declared.items())
        },
        lock=lock or Lock(),
    )


def _host(manifest: HostManifest | None, facts: HostFacts) -> HostSpec:
    manifest = manifest or HostManifest(kind="Host")
    return HostSpec(
        listen=manifest.listen,
        model_dir=posixpath.normpath(posixpath.join(facts.model_dir, manifest.model_dir or "")),
        ports=manifest.port_range,
        image_registry=manifest.image_registry or "",
        resync=manifest.resync,
        load_wait=manifest.load_wait,
        max_body=manifest.max_body,
        api_keys=manifest.api_keys.ref if manifest.api_keys else None,
        commit=manifest.commit,
        pools={name: PoolSpec(pool.size, pool.reserve or 0) for name, pool in manifest.pools.items()},
        share_gpu_with_images=manifest.share_gpu_with_images,
        model_dirs=tuple(map(posixpath.normpath, manifest.model_dirs)),
    )


def _upstreams(known: Index, problems: Sequence[ManifestError]) -> dict[str, UpstreamSpec]:
    blamed = {error.name for error in problems if error.kind == "Upstream"}
    return {name: _upstream(found) for name, found in known.upstreams.items() if name not in blamed}


def _upstream(located: Located[UpstreamManifest]) -> UpstreamSpec:
    own = located.manifest
    return UpstreamSpec(
        name=own.name,
        base_url=own.base_url,
        api=own.api,
        api_key=own.api_key.ref if own.api_key else None,
        models=tuple(own.models),
        refresh=own.refresh,
        prefix=prefix_of(own),
        headers=own.headers,
        connect_timeout=own.connect_timeout,
        idle_timeout=own.idle_timeout,
        breaker=BreakerPolicy(own.failures, own.cooldown),
        fallback=tuple(own.fallback),
        source=located.source,
    )


def _specs(
    known: Index, facts: HostFacts, host: HostSpec, models: Mapping[str, str], lock: Lock
) -> tuple[dict[str, SlotSpec], list[ManifestError]]:
    """Return the spec of every slot whose references hold, and an error for each that doesn't."""
    specs: dict[str, SlotSpec] = {}
    profiles = profiles_of(known)
    problems: list[ManifestError] = list(dict.fromkeys(profiles.errors.values()))
    for name, slot in known.slots.items():
        model, profile, errors = _references(slot, known, profiles, facts)
        if model and profile:
            model = known.models.get(models.get(name, ""), model)
            as_locked = pinned_model(model_spec(model, host.model_dir), lock)
            specs[name] = pinned(_spec(slot, model, profile, facts, host), as_locked, lock)
        problems += errors
    return specs, problems


def _references(
    slot: Located[SlotManifest], known: Index, profiles: Profiles, facts: HostFacts
) -> tuple[Located[ModelManifest] | None, FlatProfile | None, list[ManifestError]]:
    errors = []
    model = known.models.get(slot.manifest.model)
    if model is None:
        hint = did_you_mean(slot.manifest.model, known.models) or _DECLARE
        errors.append(slot.error(f"no Model {slot.manifest.model!r}", "model", hint=hint))
    elif unseeing := blind(slot, model):
        errors.append(unseeing)
    wanted = slot.manifest.profile or seed_profile(slot.manifest.type, slot.manifest.device, facts.runtime)
    profile = profiles.flat.get(wanted)
    if wrong := profiles.errors.get(wanted):
        errors.append(slot.error(f"profile {wanted!r} is wrong: {wrong}", "profile"))
    elif profile is None:
        errors.append(_no_profile(slot, wanted, known))
    elif lack := _lack(profile.manifest, facts):
        errors.append(slot.error(f"profile {wanted!r} {lack}", "profile"))
        profile = None
    elif sleepless := _sleepless(slot.manifest, profile.manifest):
        errors.append(slot.error(sleepless[0], "sleep_after", hint=sleepless[1]))
        profile = None
    elif model and (misfit := _misfit(slot, model.manifest, profile.manifest)):
        errors.append(misfit)
        profile = None
    elif apart := torn(slot, profile):
        errors.append(apart)
        profile = None
    return model, profile, errors


def _misfit(slot: Located[SlotManifest], model: ModelManifest, profile: ProfileManifest) -> ManifestError | None:
    """Return an error for a model that is a folder, where the engine takes a file."""
    if not (model.source and model.source.is_folder) or profile.engine in _TAKE_FOLDERS:
        return None
    what = f"{model.name} is a whole repository, and the engine of profile {profile.name!r} takes a file"
    return slot.error(what, "model", hint="name a `file` in the Model's source, or a profile of vLLM")


def _no_profile(slot: Located[SlotManifest], wanted: str, known: Index) -> ManifestError:
    if not wanted:
        message = f"device {slot.manifest.device.value} has no seed profile for type {slot.manifest.type.value}"
        return slot.error(message, "device", hint="name a profile of your own")
    hint = did_you_mean(wanted, known.profiles) or "known: " + ", ".join(sorted(known.profiles))
    return slot.error(f"no Profile {wanted!r}", "profile", hint=hint)


def _lack(profile: ProfileManifest, facts: HostFacts) -> str:
    """Return what a profile lacks for the runtime; empty where nothing."""
    if facts.runtime == "systemd" and not profile.image:
        return "has no image, which the systemd runtime needs"
    if facts.runtime == "process" and not profile.command:
        return "has no command, which the process runtime needs"
    return ""


def _sleepless(slot: SlotManifest, profile: ProfileManifest) -> tuple[str, str] | None:
    """Return why a slot's engine can't sleep, or never would, with a hint; None where it can or need not."""
    if slot.sleep_after is None:
        return None
    if not ENGINES[profile.engine].sleep:
        hint = "leave it out; if the engine has a flag for it, put that into `args`"
        return f"profile {profile.name!r} has an engine that hal0 can't tell to sleep", hint
    if slot.run is RunPolicy.ON_DEMAND and slot.sleep_after >= slot.idle_timeout:
        hint = "make it shorter, idle_timeout longer, or leave it out"
        return f"the slot is stopped after {show_duration(slot.idle_timeout)} unused, before it would sleep", hint
    return None


def _spec(
    slot: Located[SlotManifest],
    located: Located[ModelManifest],
    flat: FlatProfile,
    facts: HostFacts,
    host: HostSpec,
) -> SlotSpec:
    own, profile = slot.manifest, flat.manifest
    model, files = located.manifest, model_spec(located, host.model_dir)
    image = qualified_image(profile.image, host.image_registry) if profile.image else ""
    return SlotSpec(
        name=own.name,
        type=own.type,
        model=model.name,
        model_path=files.path,
        profile=profile.name,
        engine=profile.engine,
        device=own.device,
        run=own.run,
        port=own.port or 0,
        context_size=own.context_size or model.context_size,
        aliases=tuple(own.aliases),
        idle_timeout=own.idle_timeout,
        sleep_after=own.sleep_after,
        env={**profile.env, **own.env},
        args=slot_args(own, flat),
        memory=own.limits.memory,
        cpus=own.limits.cpus,
        threads=max(1, math.floor(min(own.limits.cpus or facts.cpus, facts.cpus))),
        defaults={**model.defaults, **own.defaults},
        suspend=own.suspend,
        drift=own.drift,
        image=image if facts.runtime == "systemd" else "",
        entrypoint=profile.entrypoint or "",
        command=tuple(word.replace("{python}", facts.python) for word in profile.command),
        devices=tuple(profile.devices),
        groups=_groups(profile.groups, facts),
        mounts=tuple(profile.mounts),
        container_port=profile.port,
        probe=profile.probe,
        start_deadline=profile.start_deadline,
        stop_timeout=profile.stop_timeout,
        source=slot.source,
        serving=_serving(own, profile),
        placing=_placing(own),
        replace=own.replace,
        mmproj_path=files.mmproj,
        shm_size=profile.shm_size,
    )


def _serving(own: SlotManifest, profile: ProfileManifest) -> Serving:
    return Serving(
        load_wait=own.load_wait,
        queue=own.queue,
        concurrency=own.concurrency,
        max_keep_alive=own.max_keep_alive,
        abort=own.abort,
        drain_timeout=own.drain_timeout,
        strip=tuple(own.strip),
        set=own.set,
        paths=engine_paths(profile.engine, profile.paths),
        fallback=tuple(own.fallback),
    )


def _placing(own: SlotManifest) -> Placing:
    return Placing(
        priority=own.priority,
        pinned=own.pinned,
        exclusive_with=tuple(own.exclusive_with),
        claim=own.claim,
        pool=own.pool or "",
    )


def _groups(names: Sequence[str], facts: HostFacts) -> tuple[str, ...]:
    """Return groups as podman on this host takes them: ids, since a container's names are its own."""
    if names and facts.rootless:
        return ("keep-groups",)
    return tuple(str(facts.groups.get(name, name)) for name in names if name in facts.groups or name.isdigit())


def _about(spec: SlotSpec, problems: Sequence[ManifestError]) -> tuple[ManifestError, ...]:
    """Return the errors that keep a slot from its manifest: its own, else its file's, else all."""
    own = [error for error in problems if error.kind == "Slot" and error.name == spec.name]
    of_file = [error for error in problems if error.file == spec.source_file]
    return tuple(own or of_file or problems)


def _with_ports(
    good: Mapping[str, SlotSpec], kept: Mapping[str, SlotSpec], had: Mapping[str, int], host: HostSpec
) -> tuple[dict[str, SlotSpec], dict[str, str]]:
    """Give every slot a port: its own, the one it had, or the next free one. Returns the slots left without, too."""
    holders = {spec.port: name for name, spec in kept.items()}
    taken = {*holders, parse_listen(host.listen)[1], *(spec.port for spec in good.values())}
    # In their order: a dict, as each slot takes one out.
    free = dict.fromkeys(port for port in range(host.ports[0], host.ports[1] + 1) if port not in taken)
    placed, failed = dict(kept), dict[str, str]()
    # Those that can have the port they had come first: nobody is moved for the sake of another.
    for name, spec in sorted(
        good.items(), key=lambda item: (had.get(item[0]) not in free, item[0] not in had, item[0])
    ):
        port = spec.port or (had[name] if had.get(name) in free else next(iter(free), 0))
        if port in holders:
            failed[name] = f"port {port} is held by slot {holders[port]!r}, which stays as it was until all is well"
        elif port:
            placed[name] = replace(spec, port=port)
            free.pop(port, None)
        else:
            failed[name] = "no free port in {}-{}: widen slot_ports of the Host manifest".format(*host.ports)
    return placed, failed


def desired_slot(
    spec: SlotSpec,
    facts: HostFacts,
    host: HostSpec,
    templates: Templates,
    problems: tuple[ManifestError, ...] = (),
) -> DesiredSlot:
    """Return a resolved slot with its command line and its definition."""
    started = launch(spec, facts.runtime, model_dirs=host.model_roots)
    return DesiredSlot(spec, started, templates.render(spec, started, facts.runtime), problems)
