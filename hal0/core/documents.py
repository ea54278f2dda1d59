"""Text of a manifest file to documents: plain data, and the line of every key.

TOML files hold one document, YAML files any number.
"""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from io import StringIO
from typing import Any, TypeAlias

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import MarkedYAMLError

KeyPath: TypeAlias = tuple[str | int, ...]
_MOST_KEYS = 100_000  # YAML aliases can make a file of ten lines into a tree of any size
_INTEGER = 2**63


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
    text = text.removeprefix("\ufeff")
    return parse_toml(file, text) if file.endswith(".toml") else _parse_yaml(file, text)


class _NotPlain(Exception):
    """A value that no manifest can hold, and where it is."""

    def __init__(self, path: KeyPath, message: str) -> None:
        super().__init__(message)
        self.path = path


def _plain(node: Any, path: KeyPath = ()) -> Any:
    """Return a value as JSON has it, dates as text."""
    if isinstance(node, Mapping):
        return {_text(str(key), path): _plain(value, (*path, str(key))) for key, value in node.items()}
    if isinstance(node, list):
        return [_plain(value, (*path, index)) for index, value in enumerate(node)]
    if isinstance(node, bool) or node is None:
        return node
    if isinstance(node, int):
        if not -_INTEGER <= node < _INTEGER:
            raise _NotPlain(path, "is a number beyond 64 bits")
        return int(node)
    if isinstance(node, float):
        if not math.isfinite(node):
            raise _NotPlain(path, "is not a finite number")
        return float(node)
    return _text(str(node), path)


def _text(text: str, path: KeyPath) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise _NotPlain(path, "holds half a character (a lone surrogate)") from None
    return text


def _first_line(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "is nested too deeply"
    return (str(error).splitlines() or [type(error).__name__])[0]


def _document(file: str, tree: Mapping[str, Any], line: int, lines: Mapping[KeyPath, int]) -> Document | ManifestError:
    try:
        return Document(file, _plain(tree), line, lines)
    except _NotPlain as error:
        return ManifestError(file, Document(file, {}, line, lines).line_of(error.path), str(error))


# TOML: tomllib gives no positions, so the lines of keys are found by a scan of the text.

_TOML_AT = re.compile(r"\s*\(at (?:line (\d+), column \d+|end of document)\)$")
_TOML_PART = re.compile(r"""[\w-]+|"(?:\\.|[^"\\])*"|'[^']*'""")
_TOML_DOTTED = rf"((?:{_TOML_PART.pattern})(?:\s*\.\s*(?:{_TOML_PART.pattern}))*)"
_TOML_KEY = re.compile(rf"^\s*{_TOML_DOTTED}\s*=")
_TOML_TABLE = re.compile(rf"^\s*\[(\[?)\s*{_TOML_DOTTED}\s*\]\]?\s*$")
_TOML_SKIPPED = re.compile(
    r"""("{3}(?:\\.|[^\\])*?"{3,5}|'{3}.*?'{3,5})|("(?:\\.|[^"\\\n])*"|'[^'\n]*')|#[^\n]*""", re.DOTALL
)


def parse_toml(file: str, text: str) -> tuple[list[Document], list[ManifestError]]:
    """Return the document of a TOML text, or what is wrong with it; an empty one holds none. Never raises."""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        message = str(error)
        match = _TOML_AT.search(message)
        line = int(match[1]) if match and match[1] else text.count("\n") + 1
        return [], [ManifestError(file, line, _TOML_AT.sub("", message))]
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, a thousand brackets
        return [], [ManifestError(file, 1, _first_line(error))]
    if not data:
        return [], []
    found = _document(file, data, 1, _toml_lines(text))
    return ([found], []) if isinstance(found, Document) else ([], [found])


def _toml_lines(text: str) -> dict[KeyPath, int]:
    lines: dict[KeyPath, int] = {}
    table: KeyPath = ()
    counts: dict[KeyPath, int] = {}
    open_brackets = 0
    for number, line in enumerate(_TOML_SKIPPED.sub(_skeleton, text).split("\n"), 1):
        if not open_brackets:
            table = _toml_line(line, number, table, lines, counts)
        bare = _TOML_SKIPPED.sub("", line)
        open_brackets += sum(bare.count(mark) for mark in "[{") - sum(bare.count(mark) for mark in "]}")
    return lines


def _skeleton(match: re.Match[str]) -> str:
    """Leave of a multi-line string its line breaks, of a comment nothing, and other strings whole."""
    return match[2] or '""' * bool(match[1]) + "\n" * match[0].count("\n")


def _toml_line(
    line: str, number: int, table: KeyPath, lines: dict[KeyPath, int], counts: dict[KeyPath, int]
) -> KeyPath:
    path = table
    if match := _TOML_TABLE.match(line):
        path = table = _toml_table(_toml_path(match[2]), counts, is_array=bool(match[1]))
    elif match := _TOML_KEY.match(line):
        path = (*table, *_toml_path(match[1]))
    for depth in range(1, len(path) + 1):
        lines.setdefault(path[:depth], number)
    return table


def _toml_table(header: tuple[str, ...], counts: dict[KeyPath, int], *, is_array: bool) -> KeyPath:
    """Return the path of a table; below an array of tables it is the array's last table."""
    path: KeyPath = ()
    for part in header[:-1]:
        path = (*path, part)
        path = (*path, counts[path]) if path in counts else path
    path = (*path, header[-1])
    if is_array:
        counts[path] = counts.get(path, -1) + 1
        path = (*path, counts[path])
    return path


def _toml_path(text: str) -> tuple[str, ...]:
    return tuple(part[1:-1] if part[0] in "\"'" else part for part in _TOML_PART.findall(text))


# YAML: ruamel's round-trip loader keeps positions.


def _parse_yaml(file: str, text: str) -> tuple[list[Document], list[ManifestError]]:
    documents: list[Document] = []
    try:
        for tree in _yaml().load_all(StringIO(text)):
            if tree is None:
                continue
            found = _yaml_document(file, tree)
            if isinstance(found, ManifestError):
                return documents, [found]
            documents.append(found)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        return documents, [ManifestError(file, mark.line + 1 if mark else 1, error.problem or "is not YAML")]
    except Exception as error:  # noqa: BLE001  (KeyError for a bad !!bool, OverflowError for \UFFFFFFFF, and others)
        return documents, [ManifestError(file, 1, f"is not YAML: {_first_line(error)}")]
    return documents, []


def _yaml() -> YAML:
    yaml = YAML(typ="rt", pure=True)
    yaml.composer.warn_double_anchors = False  # YAML allows to use an anchor's name again
    return yaml


def _yaml_document(file: str, tree: Any) -> Document | ManifestError:
    if not isinstance(tree, CommentedMap):
        line = tree.lc.line + 1 if isinstance(tree, CommentedSeq) else 1
        return ManifestError(file, line, "a document must be a mapping", hint="begin with: kind: Slot")
    lines: dict[KeyPath, int] = {}
    _yaml_lines(tree, (), lines)
    return _document(file, tree, tree.lc.line + 1, lines)


def _yaml_lines(node: Any, path: KeyPath, lines: dict[KeyPath, int]) -> None:
    """Note the line of every key below a node."""
    if len(lines) > _MOST_KEYS:
        raise ValueError(f"more than {_MOST_KEYS} keys")
    if isinstance(node, CommentedMap):
        for key, value in node.items():
            lines[(*path, str(key))] = node.lc.key(key)[0] + 1 if key in node.lc.data else node.lc.line + 1
            _yaml_lines(value, (*path, str(key)), lines)
    if isinstance(node, CommentedSeq):
        for index, value in enumerate(node):
            lines[(*path, index)] = node.lc.item(index)[0] + 1
            _yaml_lines(value, (*path, index), lines)
