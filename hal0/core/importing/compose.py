"""A compose file: each service that runs an engine becomes a slot."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from hal0.core.importing.containers import Container
from hal0.core.importing.draft import Draft, Given, Imported, tell_of_others
from hal0.core.importing.options import take_options
from hal0.core.importing.slots import declare
from hal0.core.importing.words import compose_expanded, expanded, inner, split, yaml_with

_MEANT = frozenset(
    {"container_name", "restart", "hostname", "expose", "logging", "pull_policy", "stdin_open", "tty", "init"}
    | {"healthcheck", "stop_grace_period", "stop_signal"}
)
"""What hal0 does itself, in its own way."""
_WHY = {
    "depends_on": "slots depend on nothing: requests wait until theirs is ready",
    "networks": "a slot has a port on loopback, and clients ask hal0's /v1",
    "network_mode": "a slot has a port on loopback, and clients ask hal0's /v1",
    "build": "hal0 builds no images: build it, and name it in the Profile",
    "env_file": "copy what of it is no secret to the slot's `env`",
    "secrets": "hal0 hands no secrets to engines",
    "ipc": "the engine has shared memory of its own: see `shm_size` of the Profile",
    "user": "the image's own user runs the engine",
    "extends": "is not followed: merge it with `docker compose config` first",
    "profiles": "use `run: never` for a slot that is not to run",
    "privileged": "the engine runs without privileges",
}
_MODELLESS = re.compile(
    r"ollama|kokoro|speaches|localai|open-?tts|openedai|text-embeddings-inference|tabbyapi", re.IGNORECASE
)
"""Servers that speak OpenAI's API and are no engine with one model file."""


def read(text: str, name: str, given: Given) -> Imported:
    """Return the manifests of a compose file's services. Raises ``UsageError`` for what is no such file."""
    services = yaml_with("services", text, name)["services"]
    draft = Draft()
    for service, keys in expanded(services, lambda word: compose_expanded(word, given.values)).items():
        if isinstance(keys, Mapping):
            _service(Container(draft=draft, given=given, where=f"services.{service}", name=service), keys)
    return draft.found()


def _service(box: Container, keys: Mapping[str, Any]) -> None:
    box.image = str(keys.get("image", ""))
    if box.image and _MODELLESS.search(box.image):
        _elsewhere(box, keys)
        return
    if not box.image:
        box.leave_out("the service", "names no image, and hal0 builds none")
        return
    for key, take in _TAKES.items():
        if keys.get(key) is not None:
            take(box, keys[key])
    if declare(box):
        tell_of_others(box.draft, box.where, keys, {*_TAKES, *_MEANT, "image"}, _WHY)


def _elsewhere(box: Container, keys: Mapping[str, Any]) -> None:
    """Make a server that stays with compose an Upstream, where it has a port on this host."""
    _ports(box, keys.get("ports"))
    outer = next((outer for outer, _ in box.ports if outer), None)
    if outer is None:
        box.leave_out(box.image, "has no model file of its own, and no port of this host to ask it on")
        return
    box.lose(box.image, "has no model file of its own: it stays with compose, and hal0 asks it as an Upstream")
    box.draft.upstream(box.where, box.name, {"base_url": f"http://127.0.0.1:{outer}/v1"})


def _texts(value: object) -> list[str]:
    """Return a list of texts that may be written as one."""
    return [str(item) for item in value] if isinstance(value, list) else [str(value)]


def _words(value: object) -> list[str]:
    """Return a command: a list of words, or one text as a shell splits it."""
    if isinstance(value, list):
        return [str(item) for item in value]
    return split(str(value)) or []


def _environment(box: Container, value: object) -> None:
    if isinstance(value, Mapping):
        pairs = [name if own is None else f"{name}={_plain(own)}" for name, own in value.items()]
    else:
        pairs = _texts(value)
    for pair in pairs:
        box.variable(pair)


def _plain(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _volumes(box: Container, value: object) -> None:
    for volume in value if isinstance(value, list) else []:
        if isinstance(volume, Mapping):
            read_only = ":ro" if volume.get("read_only") is True else ""
            box.mount(f"{volume.get('source', '')}:{volume.get('target', '')}{read_only}")
        else:
            box.mount(str(volume))


def _ports(box: Container, value: object) -> None:
    for port in value if isinstance(value, list) else []:
        if isinstance(port, Mapping):
            box.publish(f"{port.get('published', '')}:{port.get('target', '')}")
        else:
            box.publish(str(port))


def _deploy(box: Container, value: object) -> None:
    limits = inner(value, "resources", "limits")
    if "memory" in limits:
        box.memory(limits["memory"])
    if "cpus" in limits:
        box.cpus(limits["cpus"])
    reserved = inner(value, "resources", "reservations").get("devices")
    for device in reserved if isinstance(reserved, list) else []:
        _reserved(box, device)


def _reserved(box: Container, device: object) -> None:
    found = device if isinstance(device, Mapping) else {}
    if found.get("driver", "nvidia") not in {"nvidia", "cdi"}:
        box.lose("a reserved device", "is no GPU of NVIDIA: name its files in `devices` of the Profile")
    elif isinstance(ids := found.get("device_ids"), list):
        names = [str(each) for each in ids]
        box.devices += [each for each in names if "=" in each]
        box.gpus(each for each in names if "=" not in each)
    else:
        _gpus(box, found.get("count", "all"))


def _gpus(box: Container, value: object) -> None:
    count = value if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 100 else None  # noqa: PLR2004
    box.gpus([str(number) for number in range(count)] if count else ["all"])


def _runtime(box: Container, value: object) -> None:
    take_options(box, ["--runtime", str(value)])


_TAKES: Mapping[str, Callable[[Container, Any], None]] = {
    "environment": _environment,
    "volumes": _volumes,
    "ports": _ports,
    "deploy": _deploy,
    "gpus": _gpus,
    "runtime": _runtime,
    "mem_limit": Container.memory,
    "cpus": Container.cpus,
    "shm_size": Container.shared_memory,
    "command": lambda box, value: box.words.extend(_words(value)),
    "entrypoint": lambda box, value: box.entrypoint.extend(_words(value)),
    "devices": lambda box, value: box.devices.extend(_texts(value)),
    "group_add": lambda box, value: box.groups.extend(_texts(value)),
}
