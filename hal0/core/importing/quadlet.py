"""A quadlet: podman's ``.container`` unit becomes a slot."""

from __future__ import annotations

import posixpath
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping

from hal0.core.importing.containers import Container
from hal0.core.importing.draft import Draft, Given, Imported, tell_of_others
from hal0.core.importing.options import take_options
from hal0.core.importing.slots import declare
from hal0.core.importing.words import split, unknown
from hal0.core.quantity import parse_duration
from hal0.errors import UsageError

_MEANT = frozenset(
    {"ContainerName", "AutoUpdate", "Label", "LogDriver", "Notify", "Pull", "ReadOnly", "NoNewPrivileges", "RunInit"}
    | {
        "DropCapability",
        "HealthCmd",
        "HealthInterval",
        "HealthRetries",
        "HealthStartPeriod",
        "HealthTimeout",
        "StartWithPod",
    }
)
"""What hal0 does itself, in its own way."""
_WHY = {
    "Secret": "hal0 hands no secrets to engines",
    "EnvironmentFile": "copy what of it is no secret to the slot's `env`",
    "Network": "a slot has a port on loopback, and clients ask hal0's /v1",
    "Pod": "a slot has a container of its own",
    "User": "the image's own user runs the engine",
}
_SECTION = re.compile(r"\[([^\]]+)\]")
_SPECIFIER = re.compile("%(.)")


def read(text: str, name: str, given: Given) -> Imported:
    """Return the manifests of one ``.container`` file. Raises ``UsageError`` for what is no such file."""
    unit = _sections(text, given)
    keys = unit.get("Container", {})
    if not keys.get("Image"):
        raise UsageError(f"{name} has no [Container] with an Image", hint="hal0 reads .container files of quadlet")
    stem = posixpath.basename(name).rpartition(".")[0] or "quadlet"
    draft = Draft()
    box = Container(draft=draft, given=given, where=posixpath.basename(name), name=stem, image=keys["Image"][-1])
    if box.image.endswith((".image", ".build")):
        box.leave_out(box.image, "is a unit: name its image itself")
        return draft.found()
    _deadlines(box, unit.get("Service", {}))
    _take(box, keys)
    if declare(box):
        tell_of_others(draft, box.where, keys, _TAKEN | _MEANT, _WHY)
    return draft.found()


def _sections(text: str, given: Given) -> dict[str, dict[str, list[str]]]:
    """Return each section's keys with all of their values; an empty value takes back those before it."""
    found: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    section = ""
    for line in _lines(text.replace("\0", "")):
        if header := _SECTION.fullmatch(line):
            section = header[1]
            continue
        key, equals, value = line.partition("=")
        if not equals:
            continue
        values, value = found[section][key.strip()], value.strip()
        if value:
            values.append(_specified(value, given))
        else:
            values.clear()
    return found


def _lines(text: str) -> Iterator[str]:
    """Yield lines that say something; one that ends in a backslash goes on with the next."""
    kept = ""
    for line in text.replace("\r\n", "\n").split("\n"):
        if line.lstrip().startswith(("#", ";")):
            continue
        if line.endswith("\\"):
            kept += line[:-1] + " "
            continue
        if whole := (kept + line).strip():
            yield whole
        kept = ""
    if kept.strip():
        yield kept.strip()


def _specified(text: str, given: Given) -> str:
    """Fill in the specifiers that an import can know: the home folder."""
    home = given.values.get("HOME", unknown("HOME"))
    return _SPECIFIER.sub(lambda found: {"%": "%", "h": home}.get(found[1], unknown(f"%{found[1]}")), text)


def _take(box: Container, keys: Mapping[str, list[str]]) -> None:
    for line in keys.get("Environment", []):
        for pair in split(line) or []:
            box.variable(pair)
    for key, take in (
        ("Volume", box.mount),
        ("PublishPort", box.publish),
        ("Memory", box.memory),
        ("ShmSize", box.shared_memory),
    ):
        for value in keys.get(key, []):
            take(value)
    box.devices += keys.get("AddDevice", [])
    box.groups += keys.get("GroupAdd", [])
    box.entrypoint += [word for line in keys.get("Entrypoint", [])[-1:] for word in split(line) or []]
    box.words += [word for line in keys.get("Exec", [])[-1:] for word in split(line) or []]
    for line in keys.get("PodmanArgs", []):
        take_options(box, split(line) or [])


def _deadlines(box: Container, service: Mapping[str, list[str]]) -> None:
    for key, own in (("TimeoutStartSec", "start_deadline"), ("TimeoutStopSec", "stop_timeout")):
        for value in service.get(key, [])[-1:]:
            text = value.replace("min", "m").replace("sec", "s").replace(" ", "")
            try:
                seconds = parse_duration(float(text) if text.isdecimal() else text)
                box.profile[own] = int(seconds) if seconds.is_integer() else seconds
            except ValueError:
                box.lose(f"{key}={value}", "is no duration that hal0 takes")


_TAKEN = frozenset(
    {
        "Image",
        "Environment",
        "Volume",
        "PublishPort",
        "Memory",
        "ShmSize",
        "AddDevice",
        "GroupAdd",
        "Entrypoint",
        "Exec",
    }
    | {"PodmanArgs"}
)
