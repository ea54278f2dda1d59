"""``hal0 import``: another tool's file to manifests on standard output."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from io import StringIO
from pathlib import Path

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.scalarstring import DoubleQuotedScalarString

from hal0.cli import show as output
from hal0.core.importing import compose, llamaswap, quadlet
from hal0.core.importing.draft import Given, Imported, Keys
from hal0.core.importing.profiles import seeds_of
from hal0.core.schema import Device
from hal0.core.wire import VERSION
from hal0.errors import UsageError
from hal0.host.manifests import seed_manifests

READERS: Mapping[str, Callable[[str, str, Given], Imported]] = {
    "llama-swap": llamaswap.read,
    "compose": compose.read,
    "quadlet": quadlet.read,
}


def show(kind: str, file: Path, values: Sequence[str], gpu: str, *, as_json: bool) -> int:
    """Print the manifests that a file makes; return the exit code, which is 1 where it makes none."""
    text, folder = _read(file)
    given = Given(seeds_of(seed_manifests()), folder, {"HOME": str(Path.home()), **_values(values)}, _device(gpu))
    found = READERS[kind](text, str(file), given)
    output.say([json.dumps(_as_json(found), indent=2)] if as_json else as_yaml(kind, _name(file), found))
    if not found.manifests:
        output.warn(f"{file} holds nothing that hal0 could run")
    return 0 if found.manifests else 1


def _name(file: Path) -> str:
    return "standard input" if str(file) == "-" else file.name


def as_yaml(kind: str, name: str, found: Imported) -> Iterator[str]:
    """Yield the lines of a manifest file, with what is missing in it as comments at its end."""
    yield f"# Made from {name} by hal0 import {kind}. Read it, save it below the manifest root, and run hal0 validate."
    for at, manifest in enumerate(found.manifests):
        yield from ["---"] if at else []
        yield from _yaml(manifest)
    if found.lost:
        yield "#"
        yield "# Not carried over:"
    yield from (f"#   {lost.where}: {lost.what}: {lost.why}" for lost in found.lost)


def _yaml(manifest: Keys) -> list[str]:
    """Return a manifest's lines: a key a line, and what is in a list or a table on that line."""
    yaml = YAML(typ="rt", pure=True)
    yaml.width = sys.maxsize
    text = StringIO()
    yaml.dump({key: _on_one_line(value) for key, value in manifest.items()}, text)
    return text.getvalue().removesuffix("\n").split("\n")  # only there: YAML knows fewer ends of lines than Python


def _on_one_line(value: object) -> object:
    if isinstance(value, dict):
        table = CommentedMap({_on_one_line(key): _on_one_line(item) for key, item in value.items()})
        table.fa.set_flow_style()
        return table
    if isinstance(value, list):
        items = CommentedSeq(_on_one_line(item) for item in value)
        items.fa.set_flow_style()
        return items
    if isinstance(value, str) and not value.isprintable():
        return DoubleQuotedScalarString(value)  # which has escapes; ruamel writes some ends of lines as they are
    return value


def _as_json(found: Imported) -> Keys:
    lost = [{"where": each.where, "what": each.what, "why": each.why} for each in found.lost]
    return {"version": VERSION, "manifests": list(found.manifests), "lost": lost}


def _read(file: Path) -> tuple[str, str]:
    """Return a file's text, and the folder that its paths are relative to. Raises ``UsageError``."""
    if str(file) == "-":
        return sys.stdin.read(), str(Path.cwd())
    try:
        return file.read_text(encoding="utf-8"), str(file.absolute().parent)
    except OSError as error:
        raise UsageError(f"{file} can't be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UsageError(f"{file} is no text in UTF-8") from None


def _values(said: Sequence[str]) -> dict[str, str]:
    pairs = [each.partition("=") for each in said]
    if any(not name or not equals for name, equals, _ in pairs):
        raise UsageError("--set takes NAME=VALUE")
    return {name: value for name, _, value in pairs}


def _device(name: str) -> Device:
    try:
        return Device(name)
    except ValueError:
        raise UsageError(f"{name!r} is no hardware", hint="one of " + ", ".join(Device)) from None
