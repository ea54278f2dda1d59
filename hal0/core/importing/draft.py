"""The manifests that an import makes, as they are collected: names that clash with none, and only what hal0 takes.

Whatever does not fit the schema is left out and told, so what is printed is valid.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from pydantic import ValidationError

from hal0.core.importing.words import holds_secret, model_id, readable, slug, unknown_in
from hal0.core.kinds import KINDS
from hal0.core.modelpath import last_segment
from hal0.core.schema import Device, HostManifest, ProfileManifest
from hal0.core.spec import OWN_PREFIX

Keys: TypeAlias = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Given:
    """What an import is told beside the file.

    ``seeds`` are hal0's seed profiles by name. ``folder`` is what relative paths are relative to. ``values`` are those
    of variables that the file uses. ``gpu`` is the device of models that are on a GPU of which the file does not say
    the kind.
    """

    seeds: Mapping[str, ProfileManifest]
    folder: str = "/"
    values: Mapping[str, str] = field(default_factory=dict)
    gpu: Device = Device.GPU_VULKAN


@dataclass(frozen=True, slots=True)
class Lost:
    """Something that could not be carried over: where it stands, what it is, and why or what to do instead."""

    where: str
    what: str
    why: str


@dataclass(frozen=True, slots=True)
class Imported:
    """Manifests as plain data, in the order to print them, and what is missing in them."""

    manifests: tuple[Keys, ...]
    lost: tuple[Lost, ...]


class Draft:
    """Collects manifests. ``found`` returns what of them holds together."""

    def __init__(self) -> None:
        self.lost: list[Lost] = []
        self._host: Keys = {}
        self._models: list[Keys] = []
        self._profiles: dict[str, Keys] = {}
        self._slots: dict[str, Keys] = {}
        self._aliases: dict[str, list[tuple[str, str]]] = {}  # with where each one stands
        self._upstreams: dict[str, Keys] = {}
        self._prefixes = {OWN_PREFIX}

    def lose(self, where: str, what: str, why: str) -> None:
        """Note something that is not carried over. No text but ``what`` may hold a secret, which is not told then."""
        what = "something" if holds_secret("", what) else what
        self.lost.append(Lost(readable(where), readable(what), readable(why)))

    def leave_out(self, where: str, what: str, why: str) -> None:
        """Note that nothing of a part is carried over. Its details are not worth telling then."""
        self.lost = [lost for lost in self.lost if lost.where != readable(where)]
        self.lose(where, what, why)

    def host(self, **keys: Any) -> None:
        """Add keys of the Host manifest."""
        self._host |= keys

    def model(self, where: str, own: Keys) -> str:
        """Return the name of the Model with these keys, new or known; empty where no manifest can hold them."""
        same = [model for model in self._models if _file(model) == _file(own)]
        if same and same[0].get("source") != own.get("source"):
            self.lose(
                where, f"the source of {_file(own)}", f"another one than that of Model {same[0]['name']}, its file"
            )
            return str(same[0]["name"])
        known = next((model for model in same if model.get("mmproj") == own.get("mmproj")), None)
        if known is None:
            taken = [str(model["name"]) for model in self._models]
            known = self._fitted(where, {"kind": "Model", "name": model_id(_file(own), taken), **own})
            self._models += [known] if known else []
        return str(known["name"]) if known else ""

    def profile(self, where: str, name: str, keys: Mapping[str, Any], seed: ProfileManifest | None) -> str:
        """Return the name of the Profile with these keys, new, known or the seed; empty where it can't be one.

        One that extends the seed says only what is not the seed's.
        """
        fitted = self._fitted(where, {"kind": "Profile", "name": slug(name, self._profiles, "engine"), **keys})
        if fitted is None or ("image" in keys and "image" not in fitted):
            return ""
        if seed:
            fitted = _beyond(fitted, seed)
            if fitted.keys() <= {"kind", "name", "extends"}:
                return seed.name
        for known in self._profiles.values():
            if known | {"name": ""} == fitted | {"name": ""}:
                return str(known["name"])
        self._profiles[fitted["name"]] = fitted
        return str(fitted["name"])

    def slot(self, where: str, name: str, keys: Mapping[str, Any], aliases: Iterable[str] = ()) -> str:
        """Add a Slot that also answers to these names; return its own, which is empty where the keys make no Slot."""
        fitted = self._fitted(where, {"kind": "Slot", "name": slug(name, self._slots, "slot"), **keys})
        if fitted is None:
            return ""
        own = str(fitted["name"])
        self._slots[own] = fitted
        self._aliases[own] = [(where, alias) for alias in dict.fromkeys([name, *aliases]) if alias not in {own, ""}]
        return own

    def exclude(self, first: str, second: str) -> None:
        """Have two slots never be up together; it is enough that one of them says so."""
        known = self._slots[first].setdefault("exclusive_with", [])
        if first != second and second not in known and first not in self._slots[second].get("exclusive_with", []):
            known.append(second)

    def pin(self, name: str) -> None:
        """Have a slot never be stopped for another one."""
        self._slots[name]["pinned"] = True

    def upstream(self, where: str, name: str, keys: Mapping[str, Any]) -> None:
        """Add an Upstream whose models go on being asked for as ``name/model``, where that can be."""
        taken = {*self._upstreams, *(prefix.removesuffix("/") for prefix in self._prefixes)}
        own = slug(name, taken, "upstream")
        prefix = {} if own == name or f"{name}/" in self._prefixes else {"prefix": f"{name}/"}
        fitted = self._fitted(where, {"kind": "Upstream", "name": own, **prefix, **keys})
        if fitted is not None:
            self._prefixes.add(fitted.get("prefix", f"{own}/"))
            self._upstreams[own] = fitted

    def found(self) -> Imported:
        """Return the manifests: the Host, models, profiles, slots and upstreams."""
        self._name_aliases()
        self._part_ports()
        host = self._fitted("the Host", {"kind": "Host", **self._host}) if self._host else None
        bodies = [*self._models, *self._profiles.values(), *self._slots.values(), *self._upstreams.values()]
        return Imported(tuple(_brief(body) for body in ([host] if host else []) + bodies), tuple(self.lost))

    def _name_aliases(self) -> None:
        """Leave each alias to the first slot that has it, and none that is a slot's name."""
        taken = set(self._slots)
        for name, wanted in self._aliases.items():
            kept = self._slots[name]["aliases"] = list[str]()
            for where, alias in wanted:
                if _unfit({**self._slots[name], "aliases": [alias]}):
                    self.lose(where, f"the name {alias!r}", f"is no model id: the slot is {name}")
                elif alias in taken:
                    self.lose(where, f"the name {alias!r}", "another slot answers to it")
                else:
                    kept.append(alias)
                    taken.add(alias)

    def _part_ports(self) -> None:
        """Leave each port to the first slot that has it, and hal0's own to hal0."""
        taken = {HostManifest(kind="Host").listen_at[1]: "hal0 itself"}
        for name, slot in self._slots.items():
            port = slot.get("port")
            if port in taken:
                self.lose(f"slot {name}", f"port {port}", f"belongs to {taken[port]}: the slot gets another one")
                del slot["port"]
            elif port is not None:
                taken[port] = f"slot {name}"

    def _fitted(self, where: str, keys: Keys) -> Keys | None:
        """Return keys without those that hal0 does not take, and tell of them; None where it needs one of these."""
        for key in sorted(key for key, value in keys.items() if unknown_in(value)):
            name = unknown_in(keys[key])
            self.lose(
                where, key, f"holds the variable {name}, which has no value here: --set {name}=VALUE gives it one"
            )
            keys = {other: value for other, value in keys.items() if other != key}
        while unfit := _unfit(keys):
            needed = {name for name, at in KINDS[keys["kind"]].model_fields.items() if at.is_required()}
            if unfit & needed or not unfit <= keys.keys():
                what = ", ".join(sorted(unfit & needed)) or "it"
                self.leave_out(where, "all of it", f"{what} is not of a form that hal0 takes")
                return None
            for key in sorted(unfit):
                self.lose(where, key, "is not of a form that hal0 takes")
            keys = {key: value for key, value in keys.items() if key not in unfit}
        return keys


def _brief(keys: Keys) -> Keys:
    """Return a manifest without the keys that say what holds without them: none, where it extends another."""
    if "extends" in keys:
        return keys
    fields = KINDS[keys["kind"]].model_fields
    return {key: value for key, value in keys.items() if value not in ([], {}) and value != fields[key].default}


def _beyond(keys: Keys, seed: ProfileManifest) -> Keys:
    """Return a Profile's keys without those that say what the seed says."""
    read = ProfileManifest.model_validate(keys)
    kept = {"kind", "name", "extends"}
    return {key: value for key, value in keys.items() if key in kept or getattr(read, key) != getattr(seed, key)}


def _file(model: Keys) -> str:
    """Return the path of a model's file as hal0 puts or finds it: that of its source where it names none."""
    source = model.get("source", {})
    of_hub = posixpath.join(source.get("repo", ""), source.get("file", ""))
    return str(model.get("path") or of_hub or last_segment(source.get("url", "")))


def _unfit(keys: Keys) -> set[str]:
    """Return the keys of a manifest that the schema does not take; the empty name stands for all of it."""
    try:
        KINDS[keys["kind"]].model_validate(keys)
    except ValidationError as error:
        return {str(place[0]) if (place := detail["loc"]) else "" for detail in error.errors(include_input=False)}
    return set()


def tell_of_others(
    draft: Draft, where: str, table: Mapping[str, Any], known: Iterable[str], why: Mapping[str, str]
) -> None:
    """Tell of every key of a table that is not among the known ones."""
    told = set(known)
    for key in table:
        if key not in told:
            draft.lose(where, key, why.get(key, "hal0 has nothing like it"))
