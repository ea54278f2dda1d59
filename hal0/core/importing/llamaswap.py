"""llama-swap's configuration: each of its models becomes a slot, each of its peers an upstream."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import combinations, product
from typing import Any

from hal0.core.fields import LAST_PORT
from hal0.core.importing.containers import Container
from hal0.core.importing.draft import Draft, Given, Imported, Keys, tell_of_others
from hal0.core.importing.macros import filled
from hal0.core.importing.options import take_options
from hal0.core.importing.slots import declare
from hal0.core.importing.words import expanded, inner, slug, split, whole, yaml_with
from hal0.core.schema import RunPolicy

_CONTAINERS = frozenset({"docker", "podman"})
_NEVER_UNLOADED = "365d"
_MOST_PRIORITY = 100
_PORTS = 100  # llama-swap says where its ports begin, and not where they end
_SCHEDULER = ("routing", "scheduler", "settings", "fifo", "priority")
_ENV = re.compile(r"\$\{env\.([A-Za-z_][A-Za-z0-9_]*)\}")
_MODEL_WHY = {
    "cmdStop": "hal0 stops the slot's service, and drains it before",
    "useModelName": "the engine is asked by the Model's name",
    "unlisted": "every slot is listed",
    "name": "a slot has one name, and aliases",
    "unloadTimeout": "see `drain_timeout`, and `stop_timeout` of the Profile",
    "sendLoadingState": "a request waits, and says nothing meanwhile",
    "timeouts": "an engine is given as long as it takes",
}
_OTHER_WHY = {
    "matrix": "see `exclusive_with`, and pools of memory of the Host",
    "profiles": "see `aliases`",
    "selectors": "see `aliases` and `fallback`",
    "unloadTimeout": "see `drain_timeout`, and `stop_timeout` of the Profile",
    "sendLoadingState": "a request waits, and says nothing meanwhile",
}
_MODEL_TAKEN = frozenset(
    {"macros", "cmd", "env", "aliases", "ttl", "filters", "concurrencyLimit", "checkEndpoint", "proxy"}
)
_OURS = frozenset(
    {"models", "macros", "groups", "peers", "hooks", "routing", "apiKeys", "globalTTL", "healthCheckTimeout"}
    | {"logLevel", "logTimeFormat", "logToStdout", "metricsMaxInMemory", "captureBuffer", "performance", "ui", "store"}
    | {"includeAliasesInList", "startPort"}
)
"""What is read here, and what only tells llama-swap how to log."""


def read(text: str, name: str, given: Given) -> Imported:
    """Return the manifests of a configuration. Raises ``UsageError`` for what is none."""
    config = yaml_with("models", text, name)
    draft = Draft()
    _peers(draft, config, given)
    slots = dict(_slots(draft, config, given))
    _groups(draft, config, slots)
    _host(draft, config)
    tell_of_others(draft, "the configuration", config, _OURS, _OTHER_WHY)
    tell_of_others(draft, "routing", inner(config, "routing", "router", "settings"), {"groups"}, _OTHER_WHY)
    return draft.found()


def _slots(draft: Draft, config: Mapping[str, Any], given: Given) -> Iterator[tuple[str, str]]:
    """Add the slots; yield the id of each model that became one, and its name."""
    common = inner(config, "macros")
    for name, model in config["models"].items():
        if not isinstance(model, Mapping):
            draft.lose(f"models.{name}", "all of it", "is no table")
            continue
        macros = {**common, **inner(model, "macros"), "MODEL_ID": name}
        plain = {key: value for key, value in model.items() if key != "macros"}
        keys = expanded(plain, partial(filled, macros=macros, values=given.values))
        if slot := _slot(draft, given, name, keys, config):
            yield name, slot


def _slot(draft: Draft, given: Given, name: str, keys: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    box = Container(draft=draft, given=given, where=f"models.{name}", name=name)
    for pair in _listed(keys, "env"):
        box.variable(pair)
    box.aliases = _listed(keys, "aliases")
    words = split(str(keys.get("cmd", "")))
    if not words:
        box.leave_out("cmd", "is no command line")
        return ""
    if words[0].rpartition("/")[2] in _CONTAINERS and words[1:2] == ["run"]:
        image, *words = take_options(box, words[2:]) or [""]
        box.image, box.ports = image, [(None, inside) for _, inside in box.ports]
    box.words = words
    box.slot |= _policy(box, keys, config) | _filters(box, keys)
    if patience := whole(config.get("healthCheckTimeout", "")):
        box.profile["start_deadline"] = patience
    slot = declare(box)
    if slot:
        tell_of_others(draft, box.where, keys, _MODEL_TAKEN, _MODEL_WHY)
    return slot


def _listed(keys: Mapping[str, Any], key: str) -> list[str]:
    """Return a list of texts; an empty one where there is none."""
    found = keys.get(key)
    return [str(item) for item in found] if isinstance(found, list) else []


def _policy(box: Container, keys: Mapping[str, Any], config: Mapping[str, Any]) -> Keys:
    """Return when the slot runs, and how it stands with others."""
    is_preloaded = box.name in _listed(inner(config, "hooks", "on_startup"), "preload")
    own: Keys = {"run": (RunPolicy.ALWAYS if is_preloaded else RunPolicy.ON_DEMAND).value}
    if not is_preloaded:
        own["idle_timeout"] = _idle(keys.get("ttl", -1), config.get("globalTTL", 0))
    if limit := whole(keys.get("concurrencyLimit", 0)):
        own["concurrency"] = limit
    if isinstance(priority := inner(config, *_SCHEDULER).get(box.name), int):
        own["priority"] = max(-_MOST_PRIORITY, min(_MOST_PRIORITY, priority))
    return own


def _idle(ttl: object, common: object) -> str | int:
    """Return after how long unused a slot is unloaded: never is a year."""
    return whole(ttl) or (0 if ttl == 0 else whole(common)) or _NEVER_UNLOADED


def _filters(box: Container, keys: Mapping[str, Any]) -> Keys:
    """Return what is changed in requests. The model's name is hal0's to change."""
    filters = inner(keys, "filters")
    tell_of_others(box.draft, f"{box.where}.filters", filters, {"stripParams", "strip_params", "setParams"}, {})
    names = str(filters.get("stripParams", filters.get("strip_params", ""))).split(",")
    strip = [name.strip() for name in names if name.strip() not in {"", "model"}]
    own = {key: value for key, value in inner(filters, "setParams").items() if key != "model"}
    return {"strip": strip, "set": own}


def _groups(draft: Draft, config: Mapping[str, Any], slots: Mapping[str, str]) -> None:
    """Have the slots of groups exclude each other as the groups say."""
    found = inner(config, "routing", "router", "settings", "groups") or inner(config, "groups")
    groups = [_Group.of(group, slots) for group in found.values() if isinstance(group, Mapping)]
    for group in groups:
        for first, second in combinations(group.members, 2) if group.swap else ():
            draft.exclude(first, second)
        for other in groups if group.exclusive else ():
            if other is not group and not other.persistent:
                for first, second in product(group.members, other.members):
                    draft.exclude(first, second)
        for member in group.members if group.persistent else ():
            draft.pin(member)
    if set(slots.values()) - {member for group in groups for member in group.members}:
        why = "hal0 keeps as many as memory allows: `exclusive_with` names slots that are never up together"
        draft.lose("models in no group", "that only one of them is loaded at a time", why)


@dataclass(frozen=True, slots=True)
class _Group:
    members: tuple[str, ...]
    swap: bool
    exclusive: bool
    persistent: bool

    @classmethod
    def of(cls, group: Mapping[str, Any], slots: Mapping[str, str]) -> _Group:
        names = [slots[name] for name in _listed(group, "members") if name in slots]
        flags = (group.get("swap", True), group.get("exclusive", True), group.get("persistent", False))
        return cls(tuple(dict.fromkeys(names)), *(flag is True for flag in flags))


def _peers(draft: Draft, config: Mapping[str, Any], given: Given) -> None:
    for name, peer in inner(config, "peers").items():
        if isinstance(peer, Mapping):
            _peer(draft, name, peer, inner(config, "macros"), given)


def _peer(draft: Draft, name: str, peer: Mapping[str, Any], macros: Mapping[str, Any], given: Given) -> None:
    where = f"peers.{name}"
    plain = {key: value for key, value in peer.items() if key != "apiKey"}
    keys = expanded(plain, partial(filled, macros=macros, values=given.values))
    own: Keys = {"base_url": str(keys.get("proxy", "")).rstrip("/") + "/v1"}
    own["models"] = _listed(keys, "models")
    own |= {"api_key": _key_of(draft, where, name, str(key))} if (key := peer.get("apiKey")) else {}
    timeouts = inner(keys, "timeouts")
    for theirs, ours in (("connect", "connect_timeout"), ("responseHeader", "idle_timeout")):
        own |= {ours: seconds} if (seconds := whole(timeouts.get(theirs, 0))) else {}
    draft.upstream(where, name, own)
    tell_of_others(draft, where, keys, {"proxy", "models", "timeouts"}, {})


def _key_of(draft: Draft, where: str, name: str, key: str) -> Keys:
    """Return the place of a peer's key: the variable that it is read from, else a credential to be made."""
    if variable := _ENV.fullmatch(key.strip()):
        return {"env": variable[1]}
    credential = f"{slug(name, (), 'upstream')}-key"
    draft.lose(where, "apiKey", f"secrets are in no manifest: put it into the systemd credential {credential}")
    return {"credential": credential}


def _host(draft: Draft, config: Mapping[str, Any]) -> None:
    if first := whole(config.get("startPort", 0)):
        draft.host(slot_ports=f"{first}-{max(first, min(first + _PORTS - 1, LAST_PORT))}")
    if config.get("apiKeys"):
        why = "secrets are in no manifest: put the keys into the systemd credential client-keys, one a line"
        draft.lose("the configuration", "apiKeys", why)
        draft.host(api_keys={"credential": "client-keys"})
