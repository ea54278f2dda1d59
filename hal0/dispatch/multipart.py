"""The ``model`` field of a multipart/form-data body, found while the body still arrives: its files are not read."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

_TYPE = re.compile(r"[ \t]*multipart/form-data[ \t]*(?=;)", re.IGNORECASE)
_DISPOSITION = re.compile(r"(?:\A|\r\n)content-disposition:[ \t]*form-data[ \t]*(;[^\r\n]*)", re.IGNORECASE)
_PARAMETER = re.compile(r'[; \t]*;[ \t]*([^\s=;"]+)=(?:"((?:[^"\\]|\\.)*)"|([^\s;"]*))')
_ESCAPED = re.compile(r"\\(.)")
# Behind a boundary the form ends, or the line does. Before anything else it was no boundary, but content.
_LINE_END = re.compile(rb"--|[ \t]{0,16}\r\n")
_LINE_END_BEGUN = re.compile(rb"(?:-|[ \t]{0,16}\r?)\Z")
_MAX_HEADERS = 8192


@dataclass(slots=True)
class Form:
    """What the first bytes of a form say. A part is known when the boundary behind it is; the first model counts."""

    boundary: bytes
    model: str | None = None  # may be empty; what is no UTF-8 in it is U+FFFD
    span: tuple[int, int] | None = None  # where the model begins and ends in the bytes
    has_ended: bool = False  # nothing more can come
    _part: int | None = field(default=None, repr=False)  # where the part begins that is read now
    _at: int = field(default=0, repr=False)  # up to here there is no boundary that was not seen

    def look(self, head: bytes | bytearray) -> None:
        """Read on. ``head`` is all of the form so far, from its first byte; what was searched is not searched again."""
        mark = b"\r\n--" + self.boundary
        while not self.has_ended and (begin := self._next_mark(head, mark)) is not None:
            behind = begin + len(mark)
            if line_end := _LINE_END.match(head, behind):
                if self._part is not None and self.span is None:
                    self._read(head, self._part, begin)
                self.has_ended = line_end[0] == b"--"
                self._part = line_end.end()
                self._at = self._part - 2  # the end of this line may begin the next boundary
            elif _LINE_END_BEGUN.match(head, behind):
                return
            else:
                self._at = max(begin, 0) + 1

    def _next_mark(self, head: bytes | bytearray, mark: bytes) -> int | None:
        """Return where the next boundary's line break is; -2 for the form's first line, which has none before it."""
        if self._at == 0 and head.startswith(mark[2:]):
            return -2
        begin = head.find(mark, self._at)
        self._at = begin if begin >= 0 else max(self._at, len(head) - len(mark) + 1)
        return begin if begin >= 0 else None

    def _read(self, head: bytes | bytearray, begin: int, end: int) -> None:
        """Take a part's content as the model, if its header says so."""
        # Headers may be none at all: then the line break in front of the part is the first half of this.
        blank = head.find(b"\r\n\r\n", begin - 2, min(end, begin + _MAX_HEADERS))
        if blank >= 0 and _is_model(head[begin:blank].decode("latin-1")):
            self.span = (blank + 4, end)
            self.model = head[blank + 4 : end].decode(errors="replace")

    def renamed(self, head: bytes, model: str) -> bytes:
        """Return the form's first bytes with another model in them; ``head`` itself where its model is not there."""
        if self.span is None:
            return head
        begin, end = self.span
        return b"".join((head[:begin], model.encode(), head[end:]))


def boundary_of(content_type: str) -> bytes | None:
    """Return what stands between a form's parts, by its Content-Type; None where it is no form, or does not say."""
    kind = _TYPE.match(content_type)
    boundary = _parameters(content_type[kind.end() :]).get("boundary") if kind else None
    return boundary.encode() if boundary and boundary.isascii() else None


def _is_model(headers: str) -> bool:
    disposition = _DISPOSITION.search(headers)
    said = _parameters(disposition[1]) if disposition else {}
    return said.get("name") == "model" and "filename" not in said and "filename*" not in said


def _parameters(text: str) -> dict[str, str]:
    """Return what follows a header's value, ``; name="model"; x=y``; nothing where not all of it can be read."""
    found: dict[str, str] = {}
    at = 0
    while match := _PARAMETER.match(text, at):
        name, quoted, token = match.groups()
        found.setdefault(name.lower(), token if quoted is None else _ESCAPED.sub(r"\1", quoted))
        at = match.end()
    return {} if text[at:].strip("; \t") else found
