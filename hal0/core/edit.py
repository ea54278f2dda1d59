"""Changes to manifests as text: comments, order and spelling stay, and every other line is the same byte for byte.

An edit splices the source. Then the reader reads all of it again: what it finds must differ from before in the wanted
keys of the wanted manifest and in nothing else, or the edit is refused. So a way to write manifests that the splicing
does not know costs a refusal, never a wrong manifest.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from hal0.core import edit_toml, edit_yaml
from hal0.core.documents import Document, parse_file
from hal0.core.splice import EditRefused, Scalar, Value, refused

Data: TypeAlias = Mapping[str, Any]
__all__ = ["Data", "EditRefused", "Scalar", "Value", "appended", "edited", "new_manifest", "without"]
_BOM = "\ufeff"


def edited(file: str, text: str, kind: str, name: str, changes: Mapping[str, Value | None]) -> str:
    """Return the text of a file with some keys of one manifest changed. None takes a key out.

    ``file`` says by its suffix what syntax it is. Only keys at the manifest's own level, not those inside of tables.
    A key that has the wanted value already is left as it is written. Raises ``EditRefused``.
    """
    found, at = _found(file, text, kind, name)
    body = text.removeprefix(_BOM)
    for key, value in changes.items():
        if _differs(found[at].data, key, value):
            body = _put(file, body, at, key, value)
    datas: list[Data] = [item.data for item in found]
    datas[at] = {key: value for key, value in {**datas[at], **changes}.items() if changes.get(key, "") is not None}
    _check(file, body, datas)
    return text[: len(text) - len(text.removeprefix(_BOM))] + body


def without(file: str, text: str, kind: str, name: str) -> str | None:
    """Return the text of a file without one manifest, or None where the file holds no other. Raises ``EditRefused``."""
    found, at = _found(file, text, kind, name)
    if len(found) == 1:
        return None
    after = edit_yaml.without(text.removeprefix(_BOM), at)
    _check(file, after, [item.data for item in (*found[:at], *found[at + 1 :])])
    return after


def new_manifest(kind: str, keys: Mapping[str, Value]) -> str:
    """Return a TOML file of one manifest, a key a line in the order that is given."""
    return "".join(f"{key} = {edit_toml.written(value)}\n" for key, value in {"kind": kind, **keys}.items())


def appended(file: str, text: str, manifests: Sequence[Data]) -> str:
    """Return the text of a YAML file with more manifests at its end; what is there stays as it is.

    Values are scalars, lists and mappings of them. Raises ``EditRefused``.
    """
    documents, errors = parse_file(file, text)
    if errors:
        raise EditRefused(str(errors[0]), hint="mend the file first")
    if file.endswith(".toml"):
        raise refused(file, "a TOML file holds one manifest", "declare it in a file of its own")
    end = "\n" if text and not text.endswith("\n") else ""
    body = text + end + ("---\n" if text.strip() else "") + edit_yaml.declaring(manifests)
    _check(file, body, [*(item.data for item in documents), *manifests])
    return body


def _found(file: str, text: str, kind: str, name: str) -> tuple[list[Document], int]:
    """Return the manifests of a file, and which of them is meant."""
    documents, errors = parse_file(file, text)
    if errors:
        raise EditRefused(str(errors[0]), hint="mend the file first")
    places = [at for at, item in enumerate(documents) if (item.data.get("kind"), item.data.get("name")) == (kind, name)]
    if len(places) != 1:
        raise refused(file, f"{kind} {name!r} is in it {len(places)} times")
    return documents, places[0]


def _differs(data: Data, key: str, value: Value | None) -> bool:
    return key in data if value is None else key not in data or _canonical([data[key]]) != _canonical([value])


def _put(file: str, text: str, at: int, key: str, value: Value | None) -> str:
    documents, errors = parse_file(file, text)
    if errors:  # of the key that was put in before this one
        raise refused(file, f"can't hold what it is to hold: {errors[0].message}")
    if file.endswith(".toml"):
        return edit_toml.put(documents[at], text, key, value)
    return edit_yaml.put(file, text, at, key, value)


def _check(file: str, text: str, wanted: Sequence[Data]) -> None:
    """Raise ``EditRefused`` unless a text reads as what is wanted: 1, 1.0 and true are not the same."""
    documents, errors = parse_file(file, text)
    if errors:
        raise refused(file, f"can't hold what it is to hold: {errors[0].message}")
    if _canonical(item.data for item in documents) != _canonical(wanted):
        raise refused(file, "it is written in a way that can't be edited safely")


def _canonical(datas: Iterable[object]) -> list[str]:
    return [json.dumps(data, sort_keys=True) for data in datas]
