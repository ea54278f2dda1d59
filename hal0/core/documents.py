"""Text of a manifest file to documents: plain data, and the line of every key.

TOML files hold one document, YAML files any number.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from io import StringIO
from typing import Any, TypeAlias

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import MarkedYAMLError, YAMLError

KeyPath: TypeAlias = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class ManifestError:
    """One thing that is wrong with the manifests: where, which key, what, and what to do."""

    file: str
    line: int
    message: str
    key: str = ""
    hint: str = ""
    kind: str = ""
    name: str = ""

    def __str__(self) -> str:
        """``file:line: key: message (hint)``, as editors and people read it."""
        key = f"{self.key}: " if self.key else ""
        hint = f" ({self.hint})" if self.hint else ""
        return f"{self.file}:{self.line}: {key}{self.message}{hint}"


@dataclass(frozen=True, slots=True)
class Document:
    """One manifest as written. ``lines`` maps key paths to 1-based lines."""

    file: str
    data: Mapping[str, Any]
    line: int = 1
    lines: Mapping[KeyPath, int] = field(default_factory=dict)

    def line_of(self, path: KeyPath) -> int:
        """Return the line of a key, or of the nearest key above it."""
        while path:
            if path in self.lines:
                return self.lines[path]
            path = path[:-1]
        return self.line


def parse_file(file: str, text: str) -> tuple[list[Document], list[ManifestError]]:
    """Return the documents of one file and what is wrong with it; never raises on bad text."""
    return _parse_toml(file, text) if file.endswith(".toml") else _parse_yaml(file, text)


# TOML: tomllib gives no positions, so the lines of keys are found by a scan of the text.

_TOML_AT = re.compile(r"\s*\(at (?:line (\d+), column \d+|end of document)\)$")
_TOML_KEY = re.compile(r"""^\s*((?:[\w-]+|"[^"]*"|'[^']*')(?:\s*\.\s*(?:[\w-]+|"[^"]*"|'[^']*'))*)\s*=""")
_TOML_TABLE = re.compile(r"^\s*\[(\[?)\s*([^\[\]]+?)\s*\]?\]\s*(?:#.*)?$")
_TOML_PART = re.compile(r"""[\w-]+|"[^"]*"|'[^']*'""")
_TOML_FENCE = re.compile(r'"""|' + "'''")


def _parse_toml(file: str, text: str) -> tuple[list[Document], list[ManifestError]]:
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        message = str(error)
        match = _TOML_AT.search(message)
        line = int(match[1]) if match and match[1] else text.count("\n") + 1
        return [], [ManifestError(file, line, _TOML_AT.sub("", message))]
    return ([Document(file, data, 1, _toml_lines(text))] if data else []), []


def _toml_lines(text: str) -> dict[KeyPath, int]:
    lines: dict[KeyPath, int] = {}
    table: KeyPath = ()
    counts: dict[KeyPath, int] = {}
    fence = ""
    for number, line in enumerate(text.splitlines(), 1):
        if not fence:
            table = _toml_line(line, number, table, lines, counts)
        fence = _toml_fence(line, fence)
    return lines


def _toml_line(
    line: str, number: int, table: KeyPath, lines: dict[KeyPath, int], counts: dict[KeyPath, int]
) -> KeyPath:
    if match := _TOML_TABLE.match(line):
        table = _toml_path(match[2])
        if match[1]:
            counts[table] = counts.get(table, -1) + 1
            table = (*table, counts[table])
        lines.setdefault(table, number)
    elif match := _TOML_KEY.match(line):
        path = _toml_path(match[1])
        for depth in range(1, len(path) + 1):
            lines.setdefault((*table, *path[:depth]), number)
    return table


def _toml_fence(line: str, fence: str) -> str:
    for mark in _TOML_FENCE.findall(line):
        fence = mark if not fence else "" if mark == fence else fence
    return fence


def _toml_path(text: str) -> KeyPath:
    return tuple(part.strip("\"'") for part in _TOML_PART.findall(text))


# YAML: ruamel's round-trip loader keeps positions.


def _parse_yaml(file: str, text: str) -> tuple[list[Document], list[ManifestError]]:
    documents: list[Document] = []
    try:
        for tree in YAML(typ="rt", pure=True).load_all(StringIO(text)):
            if tree is None:
                continue
            if not isinstance(tree, CommentedMap):
                error = ManifestError(file, 1, "a document must be a mapping", hint="begin with: kind: Slot")
                return documents, [error]
            documents.append(_yaml_document(file, tree))
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        return documents, [ManifestError(file, mark.line + 1 if mark else 1, error.problem or "is not YAML")]
    except (YAMLError, ValueError) as error:
        return documents, [ManifestError(file, 1, str(error).splitlines()[0])]
    return documents, []


def _yaml_document(file: str, tree: CommentedMap) -> Document:
    lines: dict[KeyPath, int] = {}
    data = _plain(tree, (), lines)
    return Document(file, data, tree.lc.line + 1, lines)


def _plain(node: Any, path: KeyPath, lines: dict[KeyPath, int]) -> Any:
    """Return plain data for a round-trip node and note the line of every key on the way."""
    if isinstance(node, CommentedMap):
        for key in node:
            lines[(*path, str(key))] = node.lc.key(key)[0] + 1 if key in node.lc.data else node.lc.line + 1
        return {str(key): _plain(value, (*path, str(key)), lines) for key, value in node.items()}
    if isinstance(node, CommentedSeq):
        for index in range(len(node)):
            lines[(*path, index)] = node.lc.item(index)[0] + 1
        return [_plain(value, (*path, index), lines) for index, value in enumerate(node)]
    if isinstance(node, bool) or node is None:
        return node
    for plain in (str, int, float):
        if isinstance(node, plain):
            return plain(node)
    return str(node)
