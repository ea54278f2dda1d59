"""From a resolved slot to the command line that runs it: podman's, or the engine's own."""

from __future__ import annotations

import json
import math
import posixpath
import re
from collections.abc import Iterable, Mapping

from hal0.core.definition import digest
from hal0.core.modelpath import mount_root
from hal0.core.schema import Engine, SlotType
from hal0.core.spec import LABEL_SLOT, LABEL_SPEC, Launch, RuntimeName, SlotSpec, container_name

PODMAN = "/usr/bin/podman"
MODELS_IN_CONTAINER = "/models"
_TYPE_FLAGS = {SlotType.EMBEDDING: "--embedding", SlotType.RERANKING: "--reranking"}
_THREAD_FLAGS = frozenset({"-t", "--threads"})
_PLACEHOLDER = re.compile(r"\{(model|mmproj|host|port|name|context_size|threads)\}")


def launch(spec: SlotSpec, runtime: RuntimeName, *, model_dir: str) -> Launch:
    """Return what to execute for a slot in a runtime."""
    if runtime == "process":
        argv, env = process_argv(spec), dict(spec.env)
    else:
        argv, env = podman_argv(spec, model_dir=model_dir), {}
    spec_hash = hash_of(argv, env)
    return Launch(_labelled(argv, spec_hash) if runtime == "systemd" else argv, env, spec_hash)


def hash_of(argv: Iterable[str], env: Mapping[str, str]) -> str:
    """Return the hash of what is executed, be it asked for or found."""
    return digest(json.dumps([list(argv), sorted(env.items())]))


def process_argv(spec: SlotSpec) -> tuple[str, ...]:
    """Return the engine's argv as a child process on the slot's loopback port."""
    argv = (*spec.command, *engine_args(spec, host="127.0.0.1", port=spec.port))
    return _filled(argv, spec, model=spec.model_path, mmproj=spec.mmproj_path, host="127.0.0.1", port=spec.port)


def podman_argv(spec: SlotSpec, *, model_dir: str) -> tuple[str, ...]:
    """Return the hardened ``podman run`` of a slot, published on loopback only."""
    mount, model, mmproj = _model_mount(spec, model_dir)
    options = [*_identity(spec), *_hardening(), *_resources(spec), f"--volume={mount}"]
    options += [f"--volume={mount}" for mount in spec.mounts]
    options += [f"--device={device}" for device in spec.devices]
    options += [f"--group-add={group}" for group in spec.groups]
    options += [f"--env={key}={value}" for key, value in sorted(spec.env.items())]
    options += [f"--entrypoint={spec.entrypoint}"] if spec.entrypoint else []
    inside = engine_args(spec, host="0.0.0.0", port=spec.container_port)  # noqa: S104  (inside the container)
    inside = _filled(inside, spec, model=model, mmproj=mmproj, host="0.0.0.0", port=spec.container_port)  # noqa: S104
    return (PODMAN, "run", *options, spec.image, *inside)


def engine_args(spec: SlotSpec, *, host: str, port: int) -> tuple[str, ...]:
    """Return the engine's flags for a slot: those its type needs, the profile's, then the slot's own."""
    if spec.engine is Engine.CUSTOM:
        return spec.args
    args = ["--model", "{model}", "--host", host, "--port", str(port), "--alias", spec.name, "--metrics"]
    if spec.mmproj_path:
        args += ["--mmproj", "{mmproj}"]
    if spec.context_size is not None:
        args += ["--ctx-size", str(spec.context_size)]
    if spec.sleep_after is not None:
        args += ["--sleep-idle-seconds", str(math.ceil(spec.sleep_after))]
    if not _has_flag(spec.args, _THREAD_FLAGS):
        args += ["--threads", str(spec.threads)]
    if flag := _TYPE_FLAGS.get(spec.type):
        args.append(flag)
    return (*args, *spec.args)


def _has_flag(args: Iterable[str], flags: frozenset[str]) -> bool:
    return any(arg.split("=", 1)[0] in flags for arg in args)


def _filled(argv: Iterable[str], spec: SlotSpec, *, model: str, mmproj: str, host: str, port: int) -> tuple[str, ...]:
    """Fill the placeholders that a profile may use; other braces (JSON in a flag) are left alone."""
    values = {
        "model": model,
        "mmproj": mmproj,
        "host": host,
        "port": str(port),
        "name": spec.name,
        "context_size": str(spec.context_size or 0),
        "threads": str(spec.threads),
    }
    return tuple(_PLACEHOLDER.sub(lambda found: values[found[1]], word) for word in argv)


def _model_mount(spec: SlotSpec, model_dir: str) -> tuple[str, str, str]:
    """Return the read-only mount that holds the model, and inside the container its path and its vision part's."""
    root = mount_root(spec.model_path, model_dir)
    paths = (spec.model_path, spec.mmproj_path)
    inside = [path and posixpath.join(MODELS_IN_CONTAINER, posixpath.relpath(path, root)) for path in paths]
    return f"{root}:{MODELS_IN_CONTAINER}:ro", inside[0], inside[1]


def _identity(spec: SlotSpec) -> list[str]:
    return [
        f"--name={container_name(spec.key)}",
        "--replace",
        "--rm",
        "--detach",
        "--pull=never",  # a pull inside ExecStart would count against the start timeout
        "--cgroups=split",
        "--sdnotify=conmon",
        "--log-driver=passthrough",
        f"--label={LABEL_SLOT}={spec.key}",
        f"--publish=127.0.0.1:{spec.port}:{spec.container_port}",
    ]


def _hardening() -> list[str]:
    return ["--read-only", "--tmpfs=/tmp", "--cap-drop=all", "--security-opt=no-new-privileges"]


def _resources(spec: SlotSpec) -> list[str]:
    memory = [f"--memory={spec.memory}b"] if spec.memory else []
    return memory + ([f"--cpus={spec.cpus:g}"] if spec.cpus else [])


def _labelled(argv: tuple[str, ...], spec_hash: str) -> tuple[str, ...]:
    """Put the spec's hash on the container; it comes last because it is made of all the rest."""
    at = next(index for index, word in enumerate(argv) if word.startswith(f"--label={LABEL_SLOT}="))
    return (*argv[: at + 1], f"--label={LABEL_SPEC}={spec_hash}", *argv[at + 1 :])


def qualified_image(image: str, registry: str) -> str:
    """Return an image reference with the host's registry in front where it names none itself."""
    head, slash, _ = image.partition("/")
    names_registry = bool(slash) and ("." in head or ":" in head or head == "localhost")
    return image if not registry or names_registry else f"{registry.rstrip('/')}/{image}"
