"""From a resolved slot to the command line that runs it: podman's, or the engine's own.

A command line is made of parts, each of which knows who gave it: so what is executed and where it comes from are told
by the same words.
"""

from __future__ import annotations

import json
import math
import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from typing import NamedTuple

from hal0.core.definition import digest
from hal0.core.enginekinds import ENGINES
from hal0.core.flags import merged, read
from hal0.core.modelpath import mount_root
from hal0.core.spec import (
    ENV_MODEL,
    LABEL_MODEL,
    LABEL_SLOT,
    LABEL_SPEC,
    Launch,
    RuntimeName,
    SlotSpec,
    container_name,
)

PODMAN = "/usr/bin/podman"
MODELS_IN_CONTAINER = "/models"
_PLACEHOLDER = re.compile(r"\{(model|model_name|mmproj|host|port|name|context_size|threads)\}")


class Owner(StrEnum):
    """Whose manifest gave a part. ``ARGS`` are the merged flags of slot and profile."""

    HAL0 = "hal0"
    SLOT = "slot"
    MODEL = "model"
    PROFILE = "profile"
    ARGS = "args"


class Part(NamedTuple):
    """Words of a command line that belong together, and the manifest key that they come from.

    ``at`` is the place of the first one in the slot's ``args``, for those. ``flag`` is the key of an engine's flag;
    empty for what podman reads.
    """

    words: tuple[str, ...]
    owner: Owner = Owner.HAL0
    key: str = ""
    at: int = 0
    flag: str = ""


class Composed(NamedTuple):
    """A slot's command line in its parts, a child's environment, and the hash of both."""

    parts: tuple[Part, ...]
    env: Mapping[str, str]
    spec_hash: str


def launch(spec: SlotSpec, runtime: RuntimeName, *, model_dirs: Sequence[str]) -> Launch:
    """Return what to execute for a slot in a runtime."""
    found = composed(spec, runtime, model_dirs=model_dirs)
    return Launch(_words(found.parts), found.env, found.spec_hash)


def composed(spec: SlotSpec, runtime: RuntimeName, *, model_dirs: Sequence[str]) -> Composed:
    """Return what to execute for a slot in a runtime, in its parts."""
    if runtime == "process":
        parts, env = _process(spec), {**spec.env, **({ENV_MODEL: spec.locked_model} if spec.model_pins else {})}
        return Composed(parts, env, hash_of(_words(parts), env))
    parts = _podman(spec, model_dirs)
    spec_hash = hash_of(_words(parts), {})
    return Composed(_labelled(parts, spec_hash), {}, spec_hash)


def hash_of(argv: Iterable[str], env: Mapping[str, str]) -> str:
    """Return the hash of what is executed, be it asked for or found."""
    return digest(json.dumps([list(argv), sorted(env.items())]))


def own_parts(spec: SlotSpec) -> tuple[Part, ...]:
    """Return hal0's own flags for a slot's engine, before the slot's ``args`` replace any of them."""
    kind = ENGINES[spec.engine]
    parts = [_base(flag.words) for flag in read(kind.base, kind.flags)]
    if kind.mmproj and spec.mmproj_path:
        parts.append(Part((kind.mmproj, "{mmproj}"), Owner.MODEL, "mmproj"))
    if kind.context and spec.context_size is not None:
        parts.append(Part((kind.context, str(spec.context_size)), Owner.SLOT, "context_size"))
    if kind.sleep and spec.sleep_after is not None:
        parts.append(Part((kind.sleep, str(math.ceil(spec.sleep_after))), Owner.SLOT, "sleep_after"))
    if kind.threads:
        parts.append(Part((kind.threads, str(spec.threads)), Owner.SLOT, "limits.cpus"))
    if words := kind.types.get(spec.type):
        parts.append(Part(words, Owner.SLOT, "type"))
    return tuple(parts)


def _base(words: tuple[str, ...]) -> Part:
    return Part(words, Owner.MODEL, "path") if "{model}" in words else Part(words)


def _process(spec: SlotSpec) -> tuple[Part, ...]:
    """Return the engine's command as a child process on the slot's loopback port."""
    parts = [Part(spec.command, Owner.PROFILE, "command"), *_engine(spec)]
    paths = {"model": spec.model_path, "mmproj": spec.mmproj_path}
    return tuple(_filled(parts, spec, **paths, host="127.0.0.1", port=str(spec.port)))


def _podman(spec: SlotSpec, model_dirs: Sequence[str]) -> tuple[Part, ...]:
    """Return the hardened ``podman run`` of a slot, published on loopback only."""
    mount, model, mmproj = _model_mount(spec, model_dirs)
    place = {"host": "0.0.0.0", "port": str(spec.container_port)}  # noqa: S104  (inside the container)
    inside = _filled(_engine(spec), spec, model=model, mmproj=mmproj, **place)
    options = [*_identity(spec), *_hardening(), *_resources(spec), Part((f"--volume={mount}",), Owner.MODEL, "path")]
    image = Part((spec.image,), Owner.PROFILE, "image")
    return (Part((PODMAN, "run")), *options, *_given(spec), image, *inside)


def _engine(spec: SlotSpec) -> Iterator[Part]:
    """Yield hal0's own flags and the slot's, merged: of each the last one stays."""
    own = own_parts(spec)
    for flag in merged([*(part.words for part in own), spec.args], ENGINES[spec.engine].flags):
        if flag.layer < len(own):
            yield own[flag.layer]._replace(words=flag.words, flag=flag.key)
        else:
            yield Part(flag.words, Owner.ARGS, "args", flag.at, flag.key)


def _filled(parts: Iterable[Part], spec: SlotSpec, *, model: str, mmproj: str, host: str, port: str) -> Iterator[Part]:
    """Fill the placeholders that a profile may use; other braces (JSON in a flag) are left alone."""
    values = {
        "model": model,
        "model_name": spec.model,
        "mmproj": mmproj,
        "host": host,
        "port": port,
        "name": spec.name,
        "context_size": str(spec.context_size or 0),
        "threads": str(spec.threads),
    }
    for part in parts:
        words = (_PLACEHOLDER.sub(lambda found: values[found[1]], word) for word in part.words)
        yield part._replace(words=tuple(words))


def _model_mount(spec: SlotSpec, model_dirs: Sequence[str]) -> tuple[str, str, str]:
    """Return the read-only mount that holds the model, and inside the container its path and its vision part's."""
    root = mount_root(spec.model_path, model_dirs)
    paths = (spec.model_path, spec.mmproj_path)
    inside = [path and posixpath.join(MODELS_IN_CONTAINER, posixpath.relpath(path, root)) for path in paths]
    return f"{root}:{MODELS_IN_CONTAINER}:ro", inside[0], inside[1]


def _identity(spec: SlotSpec) -> Iterator[Part]:
    for word in (
        f"--name={container_name(spec.key)}",
        "--replace",
        "--rm",
        "--detach",
        "--pull=never",  # a pull inside ExecStart would count against the start timeout
        "--cgroups=split",
        "--sdnotify=conmon",
        "--log-driver=passthrough",
        f"--label={LABEL_SLOT}={spec.key}",
    ):
        yield Part((word,))
    if spec.model_pins:
        yield Part((f"--label={LABEL_MODEL}={spec.locked_model}",))
    yield Part((f"--publish=127.0.0.1:{spec.port}:{spec.container_port}",), Owner.SLOT, "port")


def _hardening() -> Iterator[Part]:
    for word in ("--read-only", "--tmpfs=/tmp", "--cap-drop=all", "--security-opt=no-new-privileges"):
        yield Part((word,))


def _resources(spec: SlotSpec) -> Iterator[Part]:
    if spec.memory:
        yield Part((f"--memory={spec.memory}b",), Owner.SLOT, "limits.memory")
    if spec.cpus:
        yield Part((f"--cpus={spec.cpus:g}",), Owner.SLOT, "limits.cpus")


def _given(spec: SlotSpec) -> Iterator[Part]:
    """Yield what a profile, or a slot's ``env``, asks of podman."""
    for option, key, values in (
        ("--volume", "mounts", spec.mounts),
        ("--device", "devices", spec.devices),
        ("--group-add", "groups", spec.groups),
    ):
        yield from (Part((f"{option}={value}",), Owner.PROFILE, key) for value in values)
    for name, value in sorted(spec.env.items()):
        yield Part((f"--env={name}={value}",), Owner.SLOT, f"env.{name}")
    if spec.shm_size is not None:
        yield Part((f"--shm-size={spec.shm_size}b",), Owner.PROFILE, "shm_size")
    if spec.entrypoint:
        yield Part((f"--entrypoint={spec.entrypoint}",), Owner.PROFILE, "entrypoint")


def _labelled(parts: tuple[Part, ...], spec_hash: str) -> tuple[Part, ...]:
    """Put the spec's hash on the container; it comes last because it is made of all the rest."""
    at = next(index for index, part in enumerate(parts) if part.words[0].startswith(f"--label={LABEL_SLOT}="))
    return (*parts[: at + 1], Part((f"--label={LABEL_SPEC}={spec_hash}",)), *parts[at + 1 :])


def _words(parts: Iterable[Part]) -> tuple[str, ...]:
    return tuple(word for part in parts for word in part.words)


def qualified_image(image: str, registry: str) -> str:
    """Return an image reference with the host's registry in front where it names none itself."""
    head, slash, _ = image.partition("/")
    names_registry = bool(slash) and ("." in head or ":" in head or head == "localhost")
    return image if not registry or names_registry else f"{registry.rstrip('/')}/{image}"
