"""One key of one document of a YAML file, and one document taken out of it, by the marks of ruamel's composer.

Only a plain or quoted scalar, or a flow mapping, on one line is touched. Anchors, aliases, tags and blocks are left to
the operator.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

from ruamel.yaml import YAML
from ruamel.yaml.events import DocumentStartEvent
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode

from hal0.core.documents import parse_file
from hal0.core.splice import Value, quoted, refused, with_line_after, without_line

_Entry: TypeAlias = tuple[ScalarNode, Node]
_COLON = re.compile(r"[ \t]*:[ \t]*")
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]*")
_NOT_PLAIN = ("&", "!", "|", ">", "*")
_NEXT_COMMA = re.compile(r"[ \t]*,[ \t]*")
_COMMA_BEFORE = re.compile(r"[ \t]*,[ \t]*\Z")


def put(file: str, text: str, at: int, key: str, value: Value | None) -> str:
    """Return the text of a file with one key of its ``at``-th manifest set, or taken out for None.

    The file must be free of errors. Raises ``EditRefused``.
    """
    root = _roots(text)[at]
    named = next((pair for pair in root.value if pair[0].value == key), None)
    if named is None:
        return text if value is None else _added(file, text, root, key, value)
    entry = _plain(text, *named)
    if entry is None:
        by_hand = "take it out" if value is None else f"make it {key}: {_written(value)}"
        raise refused(file, f"{key} is not a plain value on one line", f"{by_hand}, by hand")
    if value is not None:
        return _spliced(text, entry[1], value)
    shorter = _taken_out(text, root, entry)
    if shorter is None:
        raise refused(file, f"{key} does not stand on a line of its own")
    return shorter


def without(text: str, at: int) -> str:
    """Return the text of a file of several documents without its ``at``-th manifest, from ``---`` to the next one."""
    starts = [event.start_mark.index for event in _yaml().parse(text) if isinstance(event, DocumentStartEvent)]
    begin = max(start for start in starts if start <= _roots(text)[at].start_mark.index)
    end = min((start for start in starts if start > begin), default=len(text))
    return text[:begin] + text[end:]


def declaring(manifests: Iterable[Mapping[str, Any]]) -> str:
    """Return the text of a YAML file that declares some manifests, a key a line in the order that is given."""
    blocks = ("".join(f"{key}: {_written(value)}\n" for key, value in each.items()) for each in manifests)
    return "---\n".join(blocks)


def _yaml() -> YAML:
    return YAML(typ="safe", pure=True)


def _roots(text: str) -> list[MappingNode]:
    """Return the root of every manifest: the reader passes over empty documents, and has no others but mappings."""
    return [node for node in _yaml().compose_all(text) if isinstance(node, MappingNode)]


def _plain(text: str, key: Node, value: Node) -> _Entry | None:
    """Return an entry whose key is a scalar and value one or a flow mapping, on one line.

    An alias has the marks of its anchor.
    """
    start, end = value.start_mark.index, value.end_mark.index
    between, written = text[key.end_mark.index : start], text[start:end]
    is_one = isinstance(value, ScalarNode | MappingNode)  # a mapping that begins behind its key is a flow
    if not isinstance(key, ScalarNode) or not is_one or not _COLON.fullmatch(between):
        return None
    return None if "\n" in written or written.startswith(_NOT_PLAIN) else (key, value)


def _spliced(text: str, node: Node, value: Value) -> str:
    start, end = node.start_mark.index, node.end_mark.index
    gap = " " if text[start - 1] == ":" else ""
    return text[:start] + gap + _written(value, text[start:end]) + text[end:]


def _written(value: Any, like: str = "") -> str:
    """Return a value as it is most simply written: without quotes where the reader takes it for the same."""
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{_written(key)}: {_written(own)}' for key, own in value.items())}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(_written, value))}]"
    if like.startswith(("'", '"')) or not isinstance(value, str) or not _PLAIN.fullmatch(value):
        return quoted(value, like)
    documents, _ = parse_file(".yaml", f"{{a: {value}}}")
    return value if [document.data for document in documents] == [{"a": value}] else quoted(value)


def _added(file: str, text: str, root: MappingNode, key: str, value: Value) -> str:
    """Put a key behind the last plain one of the mapping."""
    added = f"{key}: {_written(value)}"
    entry = next((found for pair in reversed(root.value) if (found := _plain(text, *pair))), None)
    if entry is None:
        raise refused(file, "there is no line to put a key after", f"add by hand: {added}")
    at = entry[1].end_mark.index
    return f"{text[:at]}, {added}{text[at:]}" if root.flow_style else with_line_after(text, at, added)


def _taken_out(text: str, root: MappingNode, entry: _Entry) -> str | None:
    start, end = entry[0].start_mark.index, entry[1].end_mark.index
    if not root.flow_style:
        return without_line(text, start, end)
    if after := _NEXT_COMMA.match(text, end):
        return text[:start] + text[after.end() :]
    return _COMMA_BEFORE.sub("", text[:start]) + text[end:]
